"""No method mixes devices, or asks Metal for float64: on a pretended device the maps are the CPU's."""

import numpy as np
import pytest
import torch
from networks import explainer, pictures, small
from pretended_gpu import Pretending
from torch import nn

from camcli import Explainer
from camcli.base.signature import read_options
from camcli.methods import METHODS

# Less than the papers', for methods that ask often.
FEW = {"samples": 2, "top": 2, "steps": 2, "stride": 8, "window": 8, "iterations": 2}
# What is computed for a tensor that wraps another.
pytestmark = pytest.mark.filterwarnings("default:at::frobenius_norm")


def near(found, wanted) -> None:
    """The same to float32's rounding: on Metal the memory format is another."""
    for ones, others in zip(found, wanted, strict=True):
        for one, other in zip(ones, others, strict=True):
            assert np.abs(one.map - other.map).max() <= 1e-4 * np.abs(other.map).max()
            assert one.index == other.index


@pytest.mark.parametrize("method", METHODS.names())
def test_a_method_on_a_pretended_device(method: str) -> None:
    row = METHODS.find(method)
    known = {name for part in row.parts or (method,) for name in read_options(METHODS.load(part))}
    few = {name: value for name, value in FEW.items() if name in known}
    images = pictures(2, 16, dtype=torch.float32)
    wanted = explainer(small(method).float(), method, **few)(images, [1, 2])
    for name in ("cuda:0", "mps:0"):
        with Pretending(name):
            near(explainer(small(method).float().to(name), method, **few)(images, [1, 2]), wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"layers": ["relu1", "relu2"], "fuse": "mean", "scales": (1.0, 1.5), "augment": "flip"},
        {"method": "gradcam,layercam", "eigen_smooth": True, "recompute": True},
        {"method": ["layercam"], "top_channels": 3, "score": "margin", "versus": 2, "counterfactual": True},
        {"method": ["dff"], "options": {"concepts": 2, "iterations": 5}},
        {"group": True, "score": "probability"},
    ],
    ids="-".join,
)
def test_options_on_a_pretended_device(options: dict) -> None:
    options = {"layers": ["relu1"], **options}
    method = options.pop("method", "gradcam")
    images = pictures(2, 16, dtype=torch.float32)
    wanted = Explainer(small("gradcam").float(), method=method, **options)(images, 1)
    for name in ("cuda:0", "mps:0"):
        with Pretending(name):
            near(Explainer(small("gradcam").float().to(name), method=method, **options)(images, 1), wanted)


def test_a_pretended_device_refuses_what_the_real_ones_refuse() -> None:
    here, linear = torch.ones(2, 3), nn.Linear(3, 1)
    with Pretending("mps:0"):
        there = here.to("mps:0")
        assert (str(there.device), (there * torch.tensor(2.0)).tolist()) == ("mps:0", [[2.0] * 3] * 2)
        for mixed in (lambda: there + here, lambda: linear(there), lambda: torch.cat([there, here])):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="float64"):
            there.double()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)
    with Pretending():
        there = here.to("cuda:0").requires_grad_()
        [gradient] = torch.autograd.grad((there.cpu() * here).sum(), there)
        assert str(gradient.device) == "cuda:0"
        assert torch.zeros(2, device="cuda").is_cuda
        assert there.detach().cpu().numpy().shape == (2, 3)
