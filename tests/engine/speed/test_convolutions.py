"""Convolutions with "same" padding, without a padded copy: the same numbers at every size, with live weights."""

from copy import deepcopy

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from camcli import Explainer
from camcli.engine.layers.probe import probe_image
from camcli.engine.speed.convolutions import find_same_convolutions, pad_inside
from camcli.engine.speed.tune import optimize_weights

SIZES = [(12, 12), (13, 12), (12, 13), (11, 15), (2, 3)]


def make(*given, **named) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Conv2dSame(*given, **named)).eval()


def has_changed(model: nn.Module) -> bool:
    return any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_the_output_at_every_size_and_back_again(kernel, stride, dilation):
    for groups in (1, 3):
        model = make(3, 6, kernel, stride=stride, dilation=dilation, groups=groups)
        images = [torch.randn(2, 3, *size) for size in SIZES]
        wanted = [model(image) for image in images]
        undo = pad_inside(find_same_convolutions(model))
        assert has_changed(model)
        for image, before in zip(images, wanted, strict=True):
            after = model(image)
            assert after.shape == before.shape
            assert torch.allclose(after, before, atol=1e-6)
        undo()
        assert not has_changed(model)
        assert torch.equal(model(images[0]), wanted[0])


def test_the_zero_of_the_kernel_by_hand():
    model = make(1, 1, 3, stride=2, bias=False)
    model[0].weight.data = torch.tensor([[[[0.0, 0, 0], [0, 1, 10], [0, 100, 1000]]]])
    pad_inside(find_same_convolutions(model))
    # Cells begin at 0 and 2, and nothing is padded before them: each is 1, 10, 100 and 1000 times its inner corner.
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert model(image).tolist() == [[[[5 + 60 + 900 + 10000, 7 + 1100], [13 + 140, 15]]]]


def test_gradients_pass_as_before():
    model, image = make(3, 6, 3, stride=2), torch.randn(1, 3, 12, 12, requires_grad=True)
    [before] = torch.autograd.grad(model(image).square().sum(), image)
    pad_inside(find_same_convolutions(model))
    [after] = torch.autograd.grad(model(image).square().sum(), image)
    assert torch.allclose(after, before, atol=1e-6)


def test_not_a_number_stays_one():
    model, image = make(3, 6, 3, stride=2), torch.randn(1, 3, 12, 12)
    image[0, 0, 5, 5] = torch.nan
    before = model(image).isnan()
    pad_inside(find_same_convolutions(model))
    assert bool(before.any())
    assert bool((model(image).isnan() >= before).all())


def test_a_copy_uses_its_own_weights_and_a_changed_weight_counts():
    model, image = make(3, 6, 3, stride=2), torch.randn(1, 3, 12, 12)
    pad_inside(find_same_convolutions(model))
    copy, before = deepcopy(model), model(image)
    nn.init.zeros_(copy[0].weight)
    nn.init.ones_(copy[0].bias)
    assert torch.equal(copy(image), torch.ones(1, 6, 6, 6))
    assert torch.equal(model(image), before)


@pytest.mark.parametrize("method", ["gradcam", "guided-gradcam", "scorecam", "ablation-cam", "saliency"])
def test_maps_of_a_network_with_same_padding(method):
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    image = probe_image((64, 64), torch.float32, torch.device("cpu"))
    layers = [] if method == "saliency" else ["blocks.-1"]
    before = Explainer(model, layers=layers, method=method)(image, 1)[0][0]
    explainer = Explainer(model, layers=layers, method=method)
    assert optimize_weights(explainer, image) == 49
    assert has_changed(model)
    after = explainer(image, 1)[0][0]
    assert abs(before.map - after.map).max() <= 1e-4 * abs(before.map).max()
    assert after.score == pytest.approx(before.score, rel=1e-4, abs=1e-6)


def test_a_method_that_needs_every_bias_leaves_all_as_it_is():
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    optimize_weights(Explainer(model, method="fullgrad"), probe_image((64, 64), torch.float32, torch.device("cpu")))
    assert not has_changed(model)
