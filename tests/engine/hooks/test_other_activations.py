"""Backward rules at activations that are no ReLUs: the switch for them, by hand, and what cannot be seen."""

import math

import numpy as np
import open_clip.transformer
import pytest
import timm
import timm.layers.activations
import torch
import torch.nn.functional as F
from networks import Small, Through, pictures, replaced_activations, untouched
from torch import nn

from camcli import Explainer
from camcli.base.errors import RequestError
from camcli.engine.hooks.relu import BackwardRules, count_hidden_relus
from camcli.engine.maps.method import Formula, bind_methods
from camcli.methods import MethodRow
from camcli.methods.backprop import deconvnet, guided_backprop, mask_gradient


class TwoUnits(nn.Module):
    """u = 2 red - green and v = green - blue; the scores are 3 phi(u) + phi(v), and 2 phi(v) - phi(u)."""

    def __init__(self, phi):
        super().__init__()
        self.phi = phi

    def forward(self, x):
        red, green, blue = x.unbind(1)
        u, v = (self.phi(unit).sum((1, 2)) for unit in (2 * red - green, green - blue))
        return torch.stack([3 * u + v, 2 * v - u], 1)


def units(u, v, green=0.5):
    """The image of one pixel whose units are these."""
    return torch.tensor([(u + green) / 2, green, green - v], dtype=torch.float64).reshape(1, 3, 1, 1)


def mapped(phi, image, index, method="guided-backprop", **options):
    [[one]] = Explainer(TwoUnits(phi).double(), method=method, options={"activations": "all"} | options)(image, index)
    return one.map.ravel().tolist()


# By hand: SiLU'(x) = s (1 + x (1 - s)) with s = sigmoid(x), and sigmoid(log 3) = 3/4.
LOG3 = math.log(3)
SILU_UP, SILU_DOWN = 3 / 4 * (1 + LOG3 / 4), 1 / 4 * (1 - LOG3 * 3 / 4)
# GELU'(x) = Phi(x) + x phi(x), at 1: 0.8413447461 + 0.2419707245.
GELU_UP = 1.0833154706
SLOPES = {
    "SiLU": (nn.SiLU(), LOG3, SILU_UP),
    "GELU": (nn.GELU(), 1.0, GELU_UP),
    # x relu6(x + 3) / 6 has the slope (2 x + 3) / 6, at 1: 5/6.
    "Hardswish": (nn.Hardswish(), 1.0, 5 / 6),
    # scale * x, where x > 0
    "SELU": (nn.SELU(), 2.0, 1.0507009874),
    "ELU": (nn.ELU(), 2.0, 1.0),
    "LeakyReLU": (nn.LeakyReLU(0.1), 2.0, 1.0),
}


@pytest.mark.parametrize("name", SLOPES)
def test_extended_guided_backprop_by_hand(name):
    phi, x, slope = SLOPES[name]
    close = pytest.approx
    # Both units open, 3 and 1 arrive: red 2 * 3 slope, green (-3 + 1) slope, blue -slope.
    assert mapped(phi, units(x, x), 0) == close([6 * slope, -2 * slope, -slope], rel=1e-6)
    # -1 and 2 arrive: the first is negative, so only v passes.
    assert mapped(phi, units(x, x), 1) == close([0, 2 * slope, -2 * slope], rel=1e-6)
    # u is closed, though at -x the slope is not 0 (of SiLU at -log 3 it is positive).
    assert mapped(phi, units(-x, x), 0) == close([0, slope, -slope], rel=1e-6)


@pytest.mark.parametrize("name", SLOPES)
def test_an_extended_deconvnet_by_hand(name):
    phi, x, _ = SLOPES[name]
    # 3 and 1 arrive and pass, whatever the units were and however steep: red 6, green -3 + 1, blue -1.
    for image in (units(x, x), units(-x, x), units(-x, -x)):
        assert mapped(phi, image, 0, "deconvnet") == pytest.approx([6, -2, -1], rel=1e-6)
    assert mapped(phi, units(-x, x), 1, "deconvnet") == pytest.approx([0, 2, -2], rel=1e-6)


def test_plain_gradients_by_hand_pass_where_the_extended_rule_does_not():
    image = units(-LOG3, LOG3).requires_grad_()
    TwoUnits(nn.SiLU())(image)[0, 0].backward()
    wanted = [6 * SILU_DOWN, -3 * SILU_DOWN + SILU_UP, -SILU_UP]
    assert image.grad.ravel().tolist() == pytest.approx(wanted)


# ---- other activations, however they are spelt

OTHERS = {
    "nn.GELU()": ("GELU", nn.GELU()),
    "nn.GELU('tanh')": ("GELU", nn.GELU("tanh")),
    "F.gelu(input=x)": ("GELU", lambda x: F.gelu(input=x)),
    "nn.SiLU()": ("SiLU", nn.SiLU()),
    "nn.SiLU(inplace=True)": ("SiLU", nn.SiLU(inplace=True)),
    "F.silu(x, True)": ("SiLU", lambda x: F.silu(x, True)),
    "nn.Hardswish()": ("Hardswish", nn.Hardswish()),
    "nn.Hardswish(inplace=True)": ("Hardswish", nn.Hardswish(inplace=True)),
    "nn.Mish()": ("Mish", nn.Mish()),
    "nn.Mish(inplace=True)": ("Mish", nn.Mish(inplace=True)),
    "nn.ELU(0.5)": ("ELU", nn.ELU(0.5)),
    "nn.ELU(inplace=True)": ("ELU", nn.ELU(inplace=True)),
    "F.elu_": ("ELU", F.elu_),
    "nn.CELU(2)": ("CELU", nn.CELU(2.0)),
    "torch.celu_": ("CELU", torch.celu_),
    "nn.SELU()": ("SELU", nn.SELU()),
    "torch.selu": ("SELU", torch.selu),
    "nn.LeakyReLU(0.1)": ("LeakyReLU", nn.LeakyReLU(0.1)),
    "nn.LeakyReLU(inplace=True)": ("LeakyReLU", nn.LeakyReLU(0.1, inplace=True)),
    "F.leaky_relu_": ("LeakyReLU", F.leaky_relu_),
    "nn.PReLU()": ("PReLU", nn.PReLU()),
    "nn.RReLU()": ("RReLU", nn.RReLU().eval()),
    "nn.Softplus(2)": ("Softplus", nn.Softplus(2.0)),
    "nn.Tanh()": ("Tanh", nn.Tanh()),
    "Tensor.tanh_": ("Tanh", lambda x: x.tanh_()),
    "x * sigmoid(x)": ("SiLU", lambda x: x * torch.sigmoid(x)),
    "sigmoid(x) * x": ("SiLU", lambda x: x.sigmoid() * x),
    "timm's swish": ("SiLU", timm.layers.activations.swish),
    "timm's swish(inplace=True)": ("SiLU", lambda x: timm.layers.activations.swish(x, inplace=True)),
    "timm's quick_gelu": ("x*sigmoid(1.702x)", timm.layers.activations.quick_gelu),
    "open_clip's QuickGELU()": ("x*sigmoid(1.702x)", open_clip.transformer.QuickGELU()),
}


@pytest.mark.parametrize("spelling", OTHERS)
def test_another_activation_follows_the_rule_however_it_is_spelt(spelling):
    name, phi = OTHERS[spelling]
    for parameter in phi.parameters() if isinstance(phi, nn.Module) else ():
        parameter.requires_grad_(False)
    above = torch.tensor([1.0, 2.0, -3.0, 4.0, 5.0])
    start = torch.tensor([-2.0, -0.5, 0.5, 1.0, 4.0], requires_grad=True)
    value = phi(start.clone())
    (plain,) = torch.autograd.grad(value, start, above)
    (slope,) = torch.autograd.grad(phi(start.clone()).sum(), start)

    with BackwardRules(extended=True) as met:
        handed = start.clone()
        y = phi(handed)
    assert met.count == 0
    assert met.other_activations == {name: 1}
    assert torch.equal(y, value)
    # Who changes a tensor in place changes it for everyone who has it.
    changed = phi(other := start.detach().clone()) is other
    assert (y is handed) == changed

    def below():
        return torch.autograd.grad(y, start, above, retain_graph=True)[0]

    assert torch.equal(below(), plain)
    with met.using(guided_backprop):
        assert torch.equal(below(), plain)
    with met.using(guided_backprop, everywhere=True):
        wanted = [0, 0, 0, 4 * slope[3], 5 * slope[4]]
        assert torch.allclose(below(), torch.tensor(wanted), rtol=1e-6, atol=0)
    with met.using(deconvnet, everywhere=True):
        assert below().tolist() == [1, 2, 0, 4, 5]
    assert torch.equal(below(), plain)


def test_what_follows_another_activation_may_change_it_in_place_as_torch_allows():
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    with BackwardRules(extended=True) as met:
        y = F.gelu(x).mul_(2)
    with met.using(guided_backprop, everywhere=True):
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == pytest.approx([0, 2 * GELU_UP])


def test_in_place_on_a_part_of_a_tensor_the_rest_keeps_its_gradient():
    x = torch.tensor([LOG3, -1.0, 2.0], requires_grad=True)
    with BackwardRules(extended=True) as met:
        whole = x * torch.ones(3)
        F.silu(whole[:2], inplace=True)
    with met.using(guided_backprop, everywhere=True):
        assert torch.autograd.grad(whole.sum(), x)[0].tolist() == pytest.approx([SILU_UP, 0, 1])


def test_gates_are_no_activations():
    x = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    with BackwardRules(extended=True) as met:
        squeezed = x * x.mean(1, keepdim=True).sigmoid()
        linear = (3 * x) * x.sigmoid()
        for y in (squeezed, linear, F.glu(x), x.sigmoid(), F.hardsigmoid(x)):
            y.sum()
    assert not met.other_activations


def test_curvature_beside_an_extended_rule_is_what_it_is_alone():
    def net():
        return replaced_activations(Small(), nn.GELU)

    images = pictures(2, 16)
    [alone], _ = Explainer(net(), layers=["conv2"], method="shapleycam")(images, 1)
    both = Explainer(
        net(), layers=["conv2"], method="shapleycam,guided-backprop", options=["guided-backprop.activations=all"]
    )
    [beside, _], _ = both(images, 1)
    assert torch.equal(torch.from_numpy(alone.map), torch.from_numpy(beside.map))


# ---- the switch


def explained(model, images, method="guided-backprop", layers=(), **options):
    explain = Explainer(model, method=method, layers=layers, options=options)
    return [row[0].map for row in explain(images, 1)], explain.notes


@pytest.mark.parametrize("method", ["guided-backprop", "deconvnet", "guided-gradcam"])
@pytest.mark.parametrize("name", ["small", "resnet18", "tf_efficientnet_lite0"])
def test_with_relus_alone_the_switch_changes_nothing(method, name):
    torch.manual_seed(0)
    model = Small() if name == "small" else timm.create_model(name, num_classes=5).eval()
    images = pictures(2, 64, dtype=next(model.parameters()).dtype)
    layers = [{"small": "conv2", "resnet18": "layer3", "tf_efficientnet_lite0": "blocks.3"}[name]]
    layers = layers if method == "guided-gradcam" else []
    off, notes = explained(model, images, method, layers)
    on, noted = explained(model, images, method, layers, activations="all")
    assert all(map(np.array_equal, off, on))
    assert noted == notes


NETWORKS = {
    "test_convnext": "GELU",
    "mobilenetv3_small_050": "Hardswish",
    "test_vit": "GELU",
    "test_efficientnet": "SiLU",
    "vit_base_patch32_clip_quickgelu_224": "x*sigmoid(1.702x)",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_other_activations_are_explained_with_the_switch(name):
    torch.manual_seed(0)
    more = {"depth": 2, "img_size": 64, "embed_dim": 64, "num_heads": 2} if "clip" in name else {}
    size = 160 if name == "test_vit" else 64
    model = timm.create_model(name, num_classes=5, **more).eval()
    images = pictures(2, size, dtype=torch.float32)
    for method in ("guided-backprop", "deconvnet"):
        with untouched(model):
            maps, notes = explained(model, images, method, activations="all")
        for row, map in enumerate(maps):
            assert np.isfinite(map).all()
            assert map.any()
            [alone], _ = explained(model, images[row : row + 1], method, activations="all")
            assert np.abs(map - alone).max() <= 1e-4 * np.abs(map).max()
        [note] = [one for one in notes if "extension" in one]
        assert note.startswith(f"the paper of {method} defines its rule at ReLUs only")
        assert NETWORKS[name] in note
    if name == "mobilenetv3_small_050":
        off, notes = explained(model, images)
        assert any("Hardswish pass the plain gradient" in note for note in notes)
        assert not np.array_equal(off[0], maps[0])
        return
    with pytest.raises(RequestError, match="has none") as caught:
        explained(model, images)
    assert "-o activations=all" in caught.value.hint


def test_without_any_activation_the_switch_is_no_way_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    for options in ({}, {"activations": "all"}):
        with pytest.raises(RequestError, match=r"this network has none$") as caught:
            explained(model, pictures(1, dtype=torch.float32), **options)
        # No layer of it has a grid either.
        assert caught.value.hint == (
            "choose a method that needs neither a layer nor ReLUs, such as integrated-gradients"
        )


def test_a_product_hands_the_option_to_its_part():
    model, images = replaced_activations(Small(), nn.SiLU), pictures(2, 16)
    whole, notes = explained(model, images, "guided-gradcam", ["conv2"], activations="all")
    fine, _ = explained(model, images, activations="all")
    coarse, _ = explained(model, images, "gradcam", ["conv2"])
    for product, guided, cam in zip(whole, fine, coarse, strict=True):
        positive = torch.from_numpy(cam).relu()[None, None]
        scale = F.interpolate(positive, (16, 16), mode="bilinear", align_corners=False)[0].numpy()
        assert np.allclose(product, guided * scale, rtol=1e-5, atol=1e-8 * np.abs(product).max())
    assert any("the paper of guided-gradcam" in note for note in notes)


def test_in_one_run_a_rule_may_hold_at_relus_and_another_everywhere():
    def net():
        model = Small()
        model.relu1 = nn.SiLU(inplace=True)
        return model

    images = pictures(2, 16)
    options = ["guided-backprop.activations=all"]
    both = Explainer(net(), method="guided-backprop,deconvnet", options=options)
    for row, (guided, other) in enumerate(both(images, 1)):
        assert np.array_equal(guided.map, explained(net(), images, activations="all")[0][row])
        assert np.array_equal(other.map, explained(net(), images, "deconvnet")[0][row])
    assert [note for note in both.notes if "ReLUs" in note] == [
        "1 ReLUs follow the rule of deconvnet; SiLU pass the plain gradient",
        "the paper of guided-backprop defines its rule at ReLUs only (1 here); as our extension, it is applied at "
        "SiLU (1) too",
    ]


def test_the_words_of_the_switch_are_checked():
    with pytest.raises(RequestError, match="activations cannot be 'gelu'") as caught:
        bind_methods("guided-gradcam", ["activations=gelu"])
    assert caught.value.hint == "there are: relu, all"


def test_a_rule_that_others_bring_may_know_relus_alone():
    def shy(grad, passes):
        return grad.where(passes, 0)

    def bold(grad, passes, slope=1.0, *, activations="all"):
        return grad.where(passes, 0) * slope

    bold.__annotations__["activations"] = str
    assert not Formula(MethodRow("backprop", "shy"), shy).rule_is_everywhere
    assert Formula(MethodRow("backprop", "bold"), bold).rule_is_everywhere
    assert not Formula(MethodRow("backprop", "bold"), bold, (), {"activations": "relu"}).rule_is_everywhere
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    with BackwardRules(extended=True) as met:
        y = F.gelu(F.relu(x))
    with met.using(shy):
        torch.autograd.grad(y.sum(), x)


# ---- what cannot be seen


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_relu_in_a_scripted_function_is_missed_and_said_so():
    def relu(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)

    scripted_relu = torch.jit.script(relu)
    x = torch.ones(2, requires_grad=True)
    with BackwardRules():
        y = F.relu(x) + scripted_relu(x)
    assert count_hidden_relus(y.sum()) == 1
    model = Small()
    model.relu1 = Through(scripted_relu)
    with pytest.raises(
        RequestError, match=r"guided-backprop changes the gradient of every ReLU, and 1 of this network's"
    ):
        explained(model, pictures(1, 16))
    [map], _ = explained(model, pictures(1, 16), "gradcam", ["conv2"])
    assert np.array_equal(map, explained(Small(), pictures(1, 16), "gradcam", ["conv2"])[0][0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_where_open_is_where(dtype, format_):
    grad = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype, memory_format=format_)
    grad[0, 0, 0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    passes = torch.rand(grad.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    for mask in (passes, ~passes):
        found = mask_gradient(grad, mask)
        assert torch.equal(found.nan_to_num(7), grad.where(mask, 0).nan_to_num(7))
        assert found.dtype == dtype


def test_where_open_has_a_gradient_of_its_own():
    grad = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    mask_gradient(grad, torch.tensor([True, True, False])).square().sum().backward()
    assert grad.grad.tolist() == [2, -4, 0]


def test_what_is_no_number_is_not_made_one():
    x = torch.tensor([torch.nan, torch.inf, 1.0, -1.0], requires_grad=True)
    above = torch.tensor([2.0, 3.0, torch.nan, torch.inf])
    rules = BackwardRules()
    with rules:
        y = F.relu(x)
    (plain,) = torch.autograd.grad(y, x, above, retain_graph=True)
    (torchs,) = torch.autograd.grad(F.relu(x), x, above)
    assert torch.equal(plain.nan_to_num(7), torchs.nan_to_num(7))
    with rules.using(guided_backprop):
        (guided,) = torch.autograd.grad(y, x, above)
    assert torch.equal(guided.nan_to_num(7), torchs.nan_to_num(7))
