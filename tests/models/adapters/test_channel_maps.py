"""A channel of a backbone: three ways to explain it give one map."""

import copy

import captum.attr
import numpy as np
import pytest
import torch
from headless import load
from networks import Pooled, Through, calibrated, named, pictures, untouched
from torch import nn

from camcli import Explainer

SIZE = 64
IMAGES = pictures(2, SIZE)
CHANNELS = [7, 300]


def exact(name, **options):
    """A headless network in float64 whose features are alive: its batch norms know these images."""
    network = load(name, **options)
    calibrated(network.module.double(), IMAGES)
    return network


# ---- three ways to see a channel


def by_class_index(features, last, images, channels):
    """Method 1: the channel's number is the class's, on a network that ends at the pooled features."""
    network = named(nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4, headless=True)
    return [one.map for [one] in Explainer(network, layers=[f"0.{last}"])(images, [[one] for one in channels])]


def by_autograd(features, images, channels):
    """Method 2: the score is the pooled feature; Grad-CAM of it written out, equations 1 and 2 of its paper."""
    found = []
    for row, channel in enumerate(channels):
        act = features(images[row : row + 1]).detach().requires_grad_()
        score = act.mean((2, 3))[0, channel]
        (gradient,) = torch.autograd.grad(score, act)
        found.append((gradient.mean((2, 3), keepdim=True) * act).sum(1)[0].detach().numpy())
    return found


def by_raw_map(features, images, channels):
    """Method 3: the pooling is gone, and the channel's own map is looked at."""
    with torch.no_grad():
        raw = features(images)
    return [raw[row, channel].numpy() for row, channel in enumerate(channels)]


def test_the_three_ways_agree_on_a_network_that_ends_in_average_pooling():
    made = Pooled()
    features = nn.Sequential(made.features, made.last)
    images, channels = pictures(3), [2, 0, 2]
    first = by_class_index(features, 1, images, channels)
    second = by_autograd(features, images, channels)
    third = by_raw_map(features, images, channels)
    assert any(one.min() < 0 < one.max() for one in third)  # or the rectifying would prove nothing
    for one, two, three in zip(first, second, third, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
        # 1/N is each cell's part of the mean; the weight is its mean.
        np.testing.assert_allclose(one.clip(0) * three.size, three.clip(0), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_the_three_ways_agree_on_resnets(name):
    pooled, raw = exact(name), exact(name, pool="none")
    body = Through(lambda images: raw.module(images))
    first = [one for [one] in Explainer(pooled)(IMAGES, [[one] for one in CHANNELS])]
    same_layer = [one for [one] in Explainer(raw)(IMAGES, [[one] for one in CHANNELS])]
    second, third = by_autograd(body, IMAGES, CHANNELS), by_raw_map(body, IMAGES, CHANNELS)
    for one, other, two, three in zip(first, same_layer, second, third, strict=True):
        assert (one.layer, other.layer) == ("layer4", "layer4")
        assert three.std() > 0
        np.testing.assert_allclose(one.map, two, rtol=1e-5)
        np.testing.assert_allclose(other.map, two, rtol=1e-5)
        np.testing.assert_allclose(one.map.clip(0) * three.size, three.clip(0), rtol=1e-5)
        assert one.score == pytest.approx(three.mean(), rel=1e-6)
        assert other.score == pytest.approx(three.mean(), rel=1e-6)
        assert one.probability is None
        assert other.probability is None


@pytest.mark.parity
@pytest.mark.parametrize("layer", ["layer4", "layer3"])
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_captum_says_the_same(name, layer):
    network = exact(name)
    theirs = copy.deepcopy(network.module)
    maps = captum.attr.LayerGradCam(theirs, theirs.get_submodule(layer)).attribute(
        IMAGES, target=torch.tensor(CHANNELS)
    )
    ours = Explainer(network, layers=[layer])(IMAGES, CHANNELS)
    for [one], map in zip(ours, maps[:, 0].detach().numpy(), strict=True):
        assert map.std() > 0
        np.testing.assert_allclose(one.map, map, rtol=1e-5, atol=1e-6 * np.abs(map).max())
        assert (one.label, one.channel) == (f"channel {one.index}", one.index)


@pytest.mark.parametrize("method", ["ablation-cam", "scorecam", "occlusion", "integrated-gradients", "cam"])
def test_methods_that_ask_again_say_the_same_of_a_map_and_of_what_is_pooled(method):
    options = {"occlusion": {"window": 32, "stride": 32}, "integrated-gradients": {"steps": 8}}.get(method, {})
    layers = {"layers": ["layer4"]} if method in ("ablation-cam", "scorecam", "cam") else {}
    found = []
    for pool in ("keep", "none"):
        network = exact("timm:test_resnet", pool=pool)
        with untouched(network.module):
            found.append(
                Explainer(network, method=method, options=options, **layers)(IMAGES)
            )  # the most active channel
    for [pooled], [raw] in zip(*found, strict=True):
        assert pooled.map.any()
        np.testing.assert_allclose(pooled.map, raw.map, rtol=1e-4, atol=1e-6 * np.abs(pooled.map).max())
        assert pooled.score == pytest.approx(raw.score, rel=1e-6)


def test_a_map_is_explained_at_other_sizes_and_mirrored():
    for name in ("timm:test_resnet", "torchvision:resnet18"):
        explain = Explainer(exact(name, pool="none"), scales=(1.0, 1.5), flips=["flip"])
        with untouched(explain.module):
            [[one], _] = explain(IMAGES, 3)
        assert one.map.shape == (2, 2)
