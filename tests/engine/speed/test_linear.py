"""Linear layers by oneDNN: the same maps by every kind of method, and the library chosen that is faster here."""

import json
from itertools import cycle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import do
from networks import pictures, seeded, untouched
from readback import facts
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from vision_transformers import open_clip_vit, timm_vit, torchvision_vit

from camcli import Explainer, RequestError
from camcli.base import cache
from camcli.engine.hooks import products
from camcli.engine.speed import linear
from camcli.engine.speed.linear import LinearChoice, LinearTrial
from camcli.runs.job.job import Job
from camcli.runs.worker.worker import Worker

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch is built without oneDNN")

NETWORKS = {
    "timm": timm_vit,
    "open_clip": open_clip_vit,
    "torchvision": torchvision_vit,
    "convnext": lambda: seeded(ConvNeXt(num_classes=5, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), patch_size=2)),
    "swin": lambda: seeded(
        SwinTransformer(
            img_size=32, patch_size=4, window_size=4, embed_dim=12, depths=(2, 1), num_heads=(2, 4), num_classes=5
        )
    ),
}


class ByCell(nn.Module):
    """Linear layers for each cell of the image, and the mean of their scores."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, x):
        return self.mlp(x.permute(0, 2, 3, 1)).mean((1, 2))


# Methods in groups that share a forward: gradients at the layer, reruns from it, and gradients everywhere.
KINDS = {
    "gradcam,hirescam,layercam,shapleycam,finer-cam,eigen-gradcam": (),
    "ablation-cam": (),
    "scorecam": (),
    "saliency,smoothgrad,integrated-gradients": ("smoothgrad.samples=2", "integrated-gradients.steps=4"),
}


@pytest.fixture
def any_size(monkeypatch):
    """Products are handed over whatever their size; the number of those that were."""
    count, multiply = [0], products.multiply

    def counted(*given):
        count[0] += 1
        return multiply(*given)

    for name in ("MIN_ROWS", "MIN_FLOPS", "MIN_ROWS_TRANSPOSED"):
        monkeypatch.setattr(products, name, 0)
    monkeypatch.setattr(products, "multiply", counted)
    return count


def maps(model, method, by_onednn, **options):
    explainer = Explainer(model, method=method, batch_size=4, **options)
    explainer.setup.runner.linear_by_onednn = by_onednn
    found = explainer(pictures(2, 32, dtype=torch.float32), 1)
    return [one.map for several in found for one in several]


def same_maps(model, method, **options):
    plain, found = (maps(model, method, by, **options) for by in (False, True))
    # Ablation-CAM's weights are small differences of scores, and have fewer digits than these.
    tolerance = 1e-4 if method == "ablation-cam" else 1e-5
    for one, other in zip(plain, found, strict=True):
        assert np.abs(one - other).max() <= tolerance * np.ptp(one)


@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_the_same(name, method, any_size):
    model = NETWORKS[name]().float()
    with untouched(model):
        same_maps(model, method, options=KINDS[method])
    assert any_size[0]


@pytest.mark.parametrize("name", ["timm", "open_clip", "torchvision"])
def test_maps_by_attention_are_the_same(name, any_size):
    same_maps(NETWORKS[name]().float(), "gae,rollout,legrad,grad-eclip,maskclip")
    assert any_size[0]


@pytest.mark.parametrize("method", ["guided-backprop", "fullgrad", "gradcam,saliency"])
def test_maps_by_other_modes_beside_it_are_the_same(method, any_size):
    mlp = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))
    same_maps(seeded(ByCell(mlp), dtype=torch.float32), method, layer="mlp.2" if "cam" in method else ())
    assert any_size[0]


def test_maps_are_the_same_where_parts_are_recomputed(any_size):
    same_maps(NETWORKS["timm"]().float(), "saliency", recompute=True)


class Wide(nn.Module):
    """A network with linear layers that are large from two images on."""

    def __init__(self):
        super().__init__()
        self.patches, self.mlp = nn.Conv2d(3, 256, 2, 2), nn.Linear(256, 2048)
        self.back, self.head = nn.Linear(2048, 256), nn.Linear(256, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2).contiguous()
        x = self.back(F.gelu(self.mlp(x))).transpose(1, 2).unflatten(2, (12, 12))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def vit_file(tmp_path):
    """The model string of a small transformer."""
    file = tmp_path / "vit.py"
    file.write_text(
        "import timm\n"
        "def make(): return timm.create_model('vit_tiny_patch16_224', img_size=96, depth=2, num_classes=3)\n"
    )
    return f"{file}:make"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "find_folder", lambda: tmp_path)
    return tmp_path / "linear.json"


def clock(monkeypatch, *seconds):
    """Let the products by PyTorch and oneDNN, in turn, take so many seconds; return how often it was read."""
    now, read, turns = [0.0], [0], cycle(seconds)

    def tell():
        if read[0] % 3:
            now[0] += next(turns)
        read[0] += 1
        return now[0]

    monkeypatch.setattr(linear, "CLOCK", tell)
    monkeypatch.setattr(linear, "PIECE", (288, 512))
    return read


def choose(wanted="auto", repeats=8.0, model=None, precision="fp32"):
    explainer = Explainer(model or seeded(Wide(), dtype=torch.float32), layer="patches")
    trial = LinearTrial(explainer.setup, wanted, precision)
    noise = pictures(1, 24, dtype=torch.float32)
    explainer.locate(noise)
    with trial.counting():
        explainer.check(noise)
    choice = trial.choose(repeats)
    assert explainer.setup.runner.linear_by_onednn == (choice.library == "onednn")
    return choice


@pytest.mark.parametrize(
    ("seconds", "library", "speedup"),
    [
        ((2, 1), "onednn", 2),
        ((1, 1), "torch", 1),
        ((1.1, 1), "torch", 1.1),
        ((1, 2), "torch", 0.5),
        # Single slow rounds are chance.
        ((2, 1, 2, 1, 1, 9, 2, 1), "torch", 7 / 12),
        ((1, 1, 1, 1, 9, 1, 1, 1), "torch", 1),
        # A clock that stands still tells nothing.
        ((0, 0), "torch", 0),
    ],
)
def test_the_faster_library_is_chosen_with_a_margin(seconds, library, speedup, own_cache, monkeypatch):
    clock(monkeypatch, *seconds)
    choice = choose()
    assert (choice.library, choice.speedup) == (library, pytest.approx(speedup))


def test_what_was_timed_is_kept_for_this_processor_and_its_threads(own_cache, monkeypatch):
    read = clock(monkeypatch, 2, 1)
    first = choose()
    timed = read[0]
    assert timed
    assert choose() == first
    assert read[0] == timed
    # More rows than are timed are the same piece, fewer are another.
    assert choose(repeats=40.0) == first
    assert read[0] == timed
    assert choose(repeats=2.0) == first
    assert read[0] == 2 * timed
    [(machine, shapes)] = json.loads(own_cache.read_text())["value"].items()
    assert f"threads, torch {torch.__version__}" in machine
    assert set(shapes) == {"576x256x512", "576x512x256", "288x256x512", "288x512x256"}
    assert all(one == pytest.approx(2.0) for one in shapes.values())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert choose() == first
    assert read[0] == 3 * timed
    assert len(json.loads(own_cache.read_text())["value"]) == 2


def test_unequal_products_leave_the_library(own_cache, monkeypatch):
    clock(monkeypatch, 2, 1)
    monkeypatch.setattr(linear, "multiply", lambda x, weight: x @ weight.t() * (1.001 if len(x) > 1 else 1))
    assert choose() == LinearChoice("torch", 0.0)


def test_nothing_is_timed_without_large_layers(own_cache, monkeypatch):
    read = clock(monkeypatch, 2, 1)
    assert choose(repeats=1.0) == LinearChoice()
    assert choose("torch") == LinearChoice()
    assert choose("onednn") == LinearChoice("onednn")
    assert choose(precision="bf16") == LinearChoice()
    assert read[0] == 0
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("precision", "built", "why"),
    [
        ("bf16", True, "it is for fp32, and the network runs in bf16"),
        ("tf32", True, "it is for fp32, and the network runs in tf32"),
        ("fp32", False, "this PyTorch is built without oneDNN"),
    ],
)
def test_where_it_cannot_be_used_that_is_an_error(precision, built, why, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: built)
    with pytest.raises(RequestError) as error:
        choose("onednn", precision=precision)
    assert error.value.message == f"--linear onednn cannot be used: {why}"


def test_a_pytorch_that_lacks_the_operation_is_found_out(own_cache, monkeypatch):
    def refuse(*_):
        raise AttributeError("no such operation\nand more")

    monkeypatch.setattr(linear, "multiply", refuse)
    assert choose() == LinearChoice()
    with pytest.raises(RequestError, match=r"does not hand products to oneDNN: no such operation$"):
        choose("onednn")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_compiled_and_scripted_code_is_left_to_itself(own_cache):
    scripted = nn.Sequential(nn.Conv2d(3, 4, 1), torch.jit.script(nn.Flatten()), nn.Linear(2304, 5))
    with pytest.raises(RequestError, match=r"scripted or traced by torch.jit.*, which hides its operations"):
        LinearTrial(Explainer(scripted, layer="0").setup, "onednn")


def test_it_is_for_cpus():
    elsewhere = Explainer(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 5)).to("meta"), layer="0").setup
    with pytest.raises(RequestError, match="it is for CPUs, and the network is on meta"):
        LinearTrial(elsewhere, "onednn")
    assert LinearTrial(elsewhere, "auto").choose(1.0) == LinearChoice()


@pytest.mark.parametrize(
    ("options", "library"),
    [({}, "onednn"), ({"compile": "on"}, "torch"), ({"linear": "torch"}, "torch"), ({"precision": "bf16"}, "torch")],
)
def test_a_worker_chooses_before_the_first_image(options, library, vit_file, own_cache, monkeypatch):
    clock(monkeypatch, 2, 1)
    monkeypatch.setattr(products, "MIN_FLOPS", 0)
    monkeypatch.setattr(torch, "compile", lambda *_given, **_options: None)
    worker = Worker(Job(model=vit_file, size="96", device="cpu,cpu", **options))
    assert worker.linear.library == library
    assert len(worker.explainers) == 2
    for explainer in worker.explainers:
        assert explainer.setup.runner.linear_by_onednn == (library == "onednn")


def test_a_run_records_the_library(vit_file, own_cache, here, paint):
    paint("in/a.png", size=(96, 96))
    job = ("explain", "in", "--model", vit_file, "--size", "96", "--device", "cpu", "--save", "array")
    for choice in ("onednn", "torch"):
        found = do(*job, "--linear", choice, "--out", choice)
        assert found.exit_code == 0, found.output
        assert facts(choice)["linear"] == {"library": choice, "speedup": None}
    found = do(*job, "--linear", "onednn", "--compile", "on", "--out", "onednn")
    assert "nothing is compiled: oneDNN computes the linear layers" in " ".join(found.output.split())
    found = do(*job, "--linear", "onednn", "--precision", "bf16")
    assert found.exit_code == 2
    assert "--linear onednn cannot be used: it is for fp32" in found.output
