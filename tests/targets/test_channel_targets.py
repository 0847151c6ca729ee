"""Channels as targets: the strongest of a class, one alone, and what is refused."""

import numpy as np
import pytest
import torch
from networks import Small, named, pictures
from scored import IMAGES, MODEL
from torch import nn

from camcli import Explainer
from camcli.base.errors import PictureError, RequestError


def shares(image, index):
    act = MODEL.last(MODEL.features(image)).detach()
    weights = MODEL.fc.weight.detach()[index] / act[0, 0].numel()
    return act, weights, (weights[:, None, None] * act[0]).sum((1, 2))


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "activation"])
def test_the_strongest_channels_are_those_of_the_greatest_share(method):
    image = IMAGES[:1]
    act, weights, share = shares(image, 2)
    order = share.argsort(descending=True).tolist()
    [ones] = Explainer(named(MODEL, 3), layers=["last"], method=method, top_channels=3)(image, 2)
    assert [one.channel for one in ones] == order[:3]
    assert [one.weight for one in ones] == pytest.approx(share[order[:3]].tolist())
    assert {(one.index, one.label) for one in ones} == {(2, "thing 2")}
    for one in ones:
        part = act[0, one.channel] * (1 if method == "activation" else weights[one.channel])
        np.testing.assert_allclose(one.map, part.numpy(), rtol=1e-5)


def test_all_channels_together_are_the_map():
    explain = Explainer(MODEL, layers=["last"], top_channels=4)
    [[whole]] = Explainer(MODEL, layers=["last"])(IMAGES[:1], 1)
    [ones] = explain(IMAGES[:1], 1)
    np.testing.assert_allclose(sum(one.map for one in ones), whole.map, rtol=1e-5, atol=1e-7)
    # And their weights are the score, but for the head's bias.
    score = float(MODEL(IMAGES[:1])[0, 1].detach() - MODEL.fc.bias[1].detach())
    assert sum(one.weight for one in ones) == pytest.approx(score)


def test_mirrored_pictures_have_the_same_channels():
    explain = Explainer(MODEL, layers=["last"], top_channels=2, flips=["flip"])
    [ones] = explain(IMAGES[:1], 1)
    both = torch.cat([IMAGES[:1], IMAGES[:1].flip(-1)])
    share = torch.stack([shares(one[None], 1)[2] for one in both]).mean(0)
    assert [one.channel for one in ones] == share.argsort(descending=True)[:2].tolist()
    assert [one.weight for one in ones] == pytest.approx(share.sort(descending=True).values[:2].tolist())


def test_each_picture_has_its_own_channels():
    together = Explainer(MODEL, layers=["last"], top_channels=2)(IMAGES, [0, 2])
    for row, index in ((0, 0), (1, 2)):
        [alone] = Explainer(MODEL, layers=["last"], top_channels=2)(IMAGES[row : row + 1], index)
        assert [one.channel for one in alone] == [one.channel for one in together[row]]


@pytest.mark.parametrize("method", ["eigencam", "scorecam", "guided-backprop", "guided-gradcam"])
def test_a_map_that_is_no_sum_of_channels_has_no_strongest(method):
    layers = [] if method == "guided-backprop" else ["conv2"]
    with pytest.raises(RequestError, match=r"contributions of single channels"):
        Explainer(Small(), layers=layers, method=method, top_channels=2)(pictures(1, 16), 1)


def test_more_channels_than_there_are_is_refused():
    with pytest.raises(RequestError, match="the layer 'last' has 4"):
        Explainer(MODEL, layers=["last"], top_channels=5).check(IMAGES[:1])
    with pytest.raises(RequestError, match="cannot be fused or smoothed"):
        Explainer(MODEL, layers=["last", "features.0"], top_channels=2, fuse="mean")


# ---- a channel of the layer


def test_a_channel_is_shown_as_the_layer_gives_it():
    act = MODEL.last(MODEL.features(IMAGES)).detach()
    found = Explainer(named(MODEL, 3), layers=["last"], method="activation")(IMAGES, [[3, 0], [1]])
    assert [[(one.index, one.label, one.channel) for one in ones] for ones in found] == [
        [(3, "channel 3", 3), (0, "channel 0", 0)],
        [(1, "channel 1", 1)],
    ]
    np.testing.assert_allclose(found[0][0].map, act[0, 3].numpy(), rtol=1e-6)
    assert found[1][0].score == pytest.approx(float(act[1, 1].mean()))
    assert found[1][0].probability is None


@pytest.mark.parametrize("method", ["activation", "gradcam"])
def test_a_silent_channel_is_shown_as_it_is_and_said(method):
    headless = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with torch.no_grad():
        headless[0].bias[2] = -1000
    [[silent, loud]] = Explainer(named(headless, 12, headless=True), layers=["1"], method=method)(IMAGES[:1], [[2, 1]])
    assert not silent.map.any()
    assert silent.notes == ("channel 2 is inactive here: it is zero everywhere, and so is its map",)
    assert (silent.channel, silent.score) == (2, 0)
    assert loud.map.any()
    assert not loud.notes
    # A class whose map is zero is still a failure.
    [[one]] = Explainer(named(headless, 12), layers=["1"]).results(IMAGES[:1], lambda row, scores: [2])
    assert isinstance(one, PictureError)


def test_a_channel_that_the_layer_does_not_have_is_refused():
    explain = Explainer(MODEL, layers=["last", "features.0"], method="activation")
    with pytest.raises(RequestError, match="there is no channel 4 at the layer 'last'") as caught:
        explain(IMAGES, 4)
    assert "4 channels, counted from 0 to 3" in caught.value.hint
    with pytest.raises(RequestError, match="no channel is given"):
        explain(IMAGES)


def test_a_channel_and_a_class_are_not_one_target():
    with pytest.raises(RequestError, match="the other methods explain a class"):
        Explainer(named(MODEL, 3), layers=["last"], method=["activation", "gradcam"])
    headless = nn.Sequential(MODEL.features, MODEL.last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = named(headless, 4, headless=True)
    [[shown, explained]] = Explainer(network, layers=["1"], method=["activation", "gradcam"])(IMAGES[:1], 2)
    # Grad-CAM of a pooled channel is that channel over the number of cells.
    np.testing.assert_allclose(explained.map * shown.map.size, shown.map, rtol=1e-5)
    assert (explained.channel, shown.channel, shown.label) == (2, 2, "channel 2")
