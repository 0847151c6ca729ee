"""Networks of volumes: maps are those of the formulas over all positions, and what is of the plane is refused."""

import pytest
import torch
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.explainer import Explainer
from camcli.engine.layers.layout import Layout, from_nchw, possible_layouts, to_nchw
from camcli.engine.volumes import VolumeModule, find_slices

SLICES, SIDE = 4, 8


class Last(nn.Module):
    """Move channels last, as Swin's blocks do."""

    def forward(self, x):
        return x.permute(0, 2, 3, 4, 1)


class First(nn.Module):
    def forward(self, x):
        return x.permute(0, 4, 1, 2, 3)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    parts = [nn.Conv3d(2, 6, 3, (1, 2, 2), 1), nn.ReLU(), nn.Conv3d(6, 7, 3, (2, 1, 1), 1), Last(), First()]
    return nn.Sequential(*parts, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(7, 3)).eval()


@pytest.fixture(scope="module")
def volumes():
    return torch.randn(2, 2, SLICES, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def explain(net, volumes, method, layer):
    found = Explainer(VolumeModule(net, SLICES), method=method, layers=[layer] if layer else [])(
        volumes.flatten(2, 3), targets=1
    )
    return torch.stack([torch.from_numpy(one.map) for [one] in found])


def act_and_grad(net, volumes, layer):
    act = net[: layer + 1](volumes).detach().requires_grad_()
    [grad] = torch.autograd.grad(net[layer + 1 :](act)[:, 1].sum(), act)
    return act.detach(), grad


# Over all positions (d, h, w) of channels first, from the papers.
FORMULAS = {
    "gradcam": lambda act, grad: (grad.mean((2, 3, 4), keepdim=True) * act).sum(1),
    "hirescam": lambda act, grad: (grad * act).sum(1),
    "layercam": lambda act, grad: (grad.relu() * act).sum(1),
    "gradcam-elementwise": lambda act, grad: (grad * act).relu().sum(1),
    "xgradcam": lambda act, grad: (
        (grad * act).sum((2, 3, 4), keepdim=True) / act.sum((2, 3, 4), keepdim=True) * act
    ).sum(1),
}


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_maps_are_those_over_all_positions(net, volumes, method, layer):
    act, grad = act_and_grad(net, volumes, layer)
    if layer == 3:
        act, grad = First()(act), First()(grad)
    if method == "layercam" and layer != 1:
        pytest.skip("its authors rectify; activations before a ReLU are negative")
    expected = FORMULAS[method](act, grad)
    found = explain(net, volumes, method, f"volumes.{layer}").reshape(expected.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["saliency", "input-x-gradient"])
def test_maps_at_the_input(net, volumes, method):
    leaf = volumes.clone().requires_grad_()
    [grad] = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    expected = grad.abs().amax(1) if method == "saliency" else grad * volumes
    found = explain(net, volumes, method, "").reshape(expected.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_integrated_gradients_sum_to_the_difference(net, volumes):
    found = explain(net, volumes, "integrated-gradients", "")
    expected = (net(volumes) - net(torch.zeros_like(volumes)))[:, 1].detach()
    torch.testing.assert_close(found.flatten(1).sum(1), expected, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("order", ["ncdhw", "ndhwc"])
def test_layouts_there_and_back(order):
    volumes = torch.randn(2, 5, 3, 4, 6)
    layout = Layout(order, (3 * 4, 6), slices=3)
    given = volumes if order == "ncdhw" else volumes.permute(0, 2, 3, 4, 1)
    cells = to_nchw(given, layout)
    assert torch.equal(cells, volumes.flatten(2, 3))
    assert torch.equal(from_nchw(cells, layout, given), given)
    assert str(layout) == f"{order} 3x4x6"


def test_readings_of_a_volumes_layer():
    size = (16 * 112, 112)
    assert possible_layouts((1, 64, 8, 56, 56), size, slices=16) == [Layout("ncdhw", (8 * 56, 56), slices=8)]
    assert possible_layouts((1, 8, 14, 14, 96), size, slices=16) == [Layout("ndhwc", (8 * 14, 14), slices=8)]
    assert possible_layouts((1, 64, 56, 56), size, slices=16) == []
    assert possible_layouts((1, 392, 96), size, slices=16) == []
    assert possible_layouts((2, 64, 8, 56, 56), size, images=1, slices=16) == []
    assert possible_layouts((1, 64, 8, 56, 56), (112, 112)) == []  # of images it is none


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "scorecam"}, "scorecam works in the image plane"),
        ({"method": "occlusion"}, "occlusion works in the image plane"),
        ({"method": "rollout"}, "rollout works in the image plane or with tokens"),
        ({"method": "guided-gradcam"}, "guided-gradcam works in the image plane"),
        ({"method": "fullgrad"}, "fullgrad works in the image plane"),
        ({"scales": (1.0, 0.5)}, "--scales is of images"),
        ({"augment": ("flip",)}, "--augment is of images"),
        ({"layers": ["volumes.1", "volumes.2"], "fuse": "mean"}, "--fuse is of images"),
        ({"layers": ["volumes.1"], "layout": "nchw"}, "--layout is of images"),
    ],
)
def test_what_is_of_the_plane_is_refused(net, options, words):
    with pytest.raises(RequestError, match=words):
        Explainer(VolumeModule(net, SLICES), **options)


def test_a_module_says_how_many_slices_it_takes(net, volumes):
    module = VolumeModule(net, SLICES)
    assert (find_slices(module), find_slices(net)) == (SLICES, 0)
    assert torch.equal(module(volumes.flatten(2, 3)), net(volumes))
    assert explain(net, volumes, "eigencam", "volumes.2").isfinite().all()
