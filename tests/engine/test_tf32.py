"""TF32 as a GPU would round: what fp32 means, what ``tf32`` allows, and proofs that hold under either."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import pictures, seeded
from pooled_network import Pooled
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import camcli
from camcli import Explainer, Job
from camcli.engine.layers.probe import probe_image
from camcli.engine.precision import float32_precision
from camcli.engine.speed.tune import optimize_weights
from camcli.methods.rounding import reduced_precision_eps, unit_roundoff
from camcli.models import BUNDLED_MODEL
from camcli.runs.explain.run import Run

aten = torch.ops.aten
PRODUCTS = {aten.convolution.default, aten.convolution_backward.default, aten.mm.default, aten.addmm.default}
CPU = torch.device("cpu")


def ten_bits(tensor: torch.Tensor) -> torch.Tensor:
    """Float32 rounded to the nearest number of ten explicit bits, as TF32's inputs are."""
    bits = (tensor.contiguous().view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)
    return bits.view(torch.float32)


class Rounding(TorchDispatchMode):
    """While it lasts, products round what they are given where the process allows that, as on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.rounded = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in PRODUCTS and reduced_precision_eps(CPU):
            self.rounded += 1
            # The bias is added in full precision; of addmm it stands first.
            given = range(func is aten.addmm.default, 3 if func is not aten.convolution.default else 2)
            args = tuple(
                ten_bits(one)
                if place in given and isinstance(one, torch.Tensor) and one.dtype == torch.float32
                else one
                for place, one in enumerate(args)
            )
        return func(*args, **(kwargs or {}))


@pytest.fixture
def allowed():
    """A process in which float32 may be rounded, as PyTorch has it on GPUs unless told otherwise."""
    conv = torch.backends.mkldnn.conv
    before, conv.fp32_precision = conv.fp32_precision, "tf32"
    yield
    assert conv.fp32_precision == "tf32", "camcli changed the process"
    conv.fp32_precision = before


def test_ten_bits():
    given = torch.tensor([1.0, 1 + 2.0**-10, 1 + 2.0**-11 + 2.0**-13, -3.1415927, 0.0])
    assert ten_bits(given).tolist() == [1.0, 1 + 2.0**-10, 1 + 2.0**-10, -3.140625, 0.0]


def test_the_process_is_as_it_was(allowed):
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul, torch.backends.mkldnn.conv)
    before = [one.fp32_precision for one in switches]
    old = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert unit_roundoff(torch.zeros(1)) == 2.0**-10
    assert unit_roundoff(torch.zeros(1, dtype=torch.float64)) == torch.finfo(torch.float64).eps
    assert unit_roundoff(torch.zeros(1, dtype=torch.long)) == 0
    with float32_precision("fp32"):
        assert {one.fp32_precision for one in switches} == {"ieee"}
        # What was set in one of PyTorch's two ways can be read in the other.
        assert torch.backends.cudnn.allow_tf32 is False
        assert torch.backends.cuda.matmul.allow_tf32 is False
        assert unit_roundoff(torch.zeros(1)) == torch.finfo(torch.float32).eps
        with float32_precision("tf32"):
            assert {one.fp32_precision for one in switches} == {"tf32"}
        assert {one.fp32_precision for one in switches} == {"ieee"}
    assert [one.fp32_precision for one in switches] == before
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == old


def test_what_was_said_in_the_other_way_is_put_back():
    before = torch.get_float32_matmul_precision()
    for precision in ("high", "medium", "highest"):
        torch.set_float32_matmul_precision(precision)
        with float32_precision("fp32"):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.slow
def test_fp32_is_fp32_whatever_the_process_allows(allowed, sample_images: Path):
    picture = sample_images / "chelsea.png"
    [plain] = camcli.explain(picture)
    with Rounding() as mode:
        [exact] = camcli.explain(picture)
        assert mode.rounded == 0
        explained = camcli.explain(picture, precision="tf32")
        assert torch.backends.mkldnn.conv.fp32_precision == "tf32"
        [coarser] = explained
        assert mode.rounded > 0
    assert np.array_equal(plain.map, exact.map)
    assert not np.array_equal(coarser.map, exact.map)
    assert np.abs(coarser.map - exact.map).max() <= 0.02 * np.ptp(exact.map)


def test_a_run_says_its_precision(sample_images: Path, tmp_path: Path):
    job = Job(inputs=(str(sample_images / "chelsea.png"),), out=str(tmp_path), precision="tf32", device="cpu")
    with Run(job) as run:
        assert not [one.error for some in run for one in some if one.error]
    said = json.loads((tmp_path / "run.json").read_text())
    assert said["precision"] == said["job"]["precision"] == "tf32"
    assert any("on cpu, fp32 is used" in note for note in said["notes"])


def test_folding_is_proven_to_the_rounding_in_use(allowed):
    network = camcli.load(BUNDLED_MODEL)
    noise = probe_image(network.preprocess.size, torch.float32, CPU)
    with float32_precision("fp32"):
        exact = optimize_weights(Explainer(network), noise)
    assert exact > 40
    with Rounding(), float32_precision("tf32"):
        assert optimize_weights(Explainer(camcli.load(BUNDLED_MODEL)), noise) == exact
        # The tolerance of fp32 would have taken it back, as it did.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("camcli.engine.speed.tune.unit_roundoff", lambda one: torch.finfo(one.dtype).eps)
            assert optimize_weights(Explainer(camcli.load(BUNDLED_MODEL)), noise) == 0


class Together(nn.Module):
    """A score for each image of a group; with ``mean`` less that of all."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean
        self.first, self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        seeded(self, dtype=torch.float32)

    def forward(self, x):
        x = self.conv(self.first(x).relu()).relu().square().mean((2, 3))
        return self.fc(x - x.mean(0) if self.mean else x)


@pytest.mark.parametrize("mean", [False, True])
def test_pictures_of_a_group_are_found_to_mix_only_if_they_do(allowed, mean):
    images = pictures(9, 16, dtype=torch.float32)
    with Rounding() as mode:
        explainer = Explainer(Together(mean), layers=["first"], group=True)
        explainer(images, 1)
        assert mode.rounded
    assert any("depends on others" in note for note in explainer.notes) == mean
    assert not any("are mixed before" in note for note in explainer.notes)


@pytest.mark.parametrize("method", ["cam", "ablation-cam", "gradcam", "fullgrad", "scorecam"])
def test_proofs_hold_to_the_rounding_in_use(allowed, method):
    """What lies behind a layer is run again, and parts are computed again: the same but for rounding."""
    model = seeded(Pooled(), dtype=torch.float32)
    images = pictures(2, 16, dtype=torch.float32)
    layers = () if method == "fullgrad" else ("relu2",)
    exact = Explainer(model, method=method, layers=layers)(images, 1)
    with Rounding(), float32_precision("tf32"):
        explainer = Explainer(model, method=method, layers=layers, recompute=True)
        found = explainer(images, 1)
    assert not any("cannot be run alone" in note or "give a different output" in note for note in explainer.notes)
    for [one], [other] in zip(exact, found, strict=True):
        assert np.abs(one.map - other.map).max() <= 0.05 * np.ptp(one.map)
