"""Which number is explained: scores worked by hand, and what becomes of them on the way to a map."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import ByHand, Pooled, Small, named, pictures
from torch import nn

from camcli import Explainer
from camcli.base.errors import PictureError, RequestError
from camcli.targets.readers.spec import OutputSpec
from camcli.targets.scores import SCORES
from camcli.targets.target import LOGIT, Score

# Softmax: 1/7, 2/7, 4/7. Sigmoid: 1/2, 2/3, 4/5.
LOGITS = torch.tensor([0.0, math.log(2), math.log(4)], dtype=torch.float64)


def given(name, index, rivals=(), activation="softmax", scores=LOGITS):
    """The number and its gradient by the scores."""
    leaf = scores.clone().requires_grad_()
    number = SCORES.load(name)(leaf, index, rivals, activation)
    (gradient,) = torch.autograd.grad(number.sum(), leaf)
    return number.detach(), gradient


def check(found, number, gradient):
    torch.testing.assert_close(found[0], torch.tensor(number, dtype=torch.float64))
    torch.testing.assert_close(found[1], torch.tensor(gradient, dtype=torch.float64))


# ---- the functions


def test_the_logit_is_the_score_itself():
    check(given("logit", 2), math.log(4), [0, 0, 1])


def test_the_probability_of_a_softmax():
    # The derivative is p_1 (1 - p_1), and -p_1 p_j for the others.
    check(given("probability", 1), 2 / 7, [-2 / 49, 10 / 49, -8 / 49])


def test_the_probability_of_a_sigmoid():
    check(given("probability", 2, activation="sigmoid"), 4 / 5, [0, 0, 4 / 25])
    check(given("probability", 0, scores=torch.zeros(1, dtype=torch.float64)), 1 / 2, [1 / 4])


def test_the_logarithm_of_a_probability():
    check(given("logprob", 1), math.log(2 / 7), [-1 / 7, 5 / 7, -4 / 7])
    check(given("logprob", 2, activation="sigmoid"), math.log(4 / 5), [0, 0, 1 / 5])
    # Where the probability itself is rounded to nothing, and its gradient with it.
    far = torch.tensor([-1000.0, 0.0], dtype=torch.float64)
    check(given("logprob", 0, scores=far), -1000.0, [1, -1])


def test_a_margin_is_over_the_greatest_rival():
    check(given("margin", 2, [1]), math.log(2), [0, -1, 1])
    check(given("margin", 0, [1, 2]), -math.log(4), [1, 0, -1])


def test_pixels_behind_the_classes_are_carried_along():
    pixels = torch.stack([LOGITS, LOGITS.flip(0)], 1)
    for name in SCORES.names():
        both, _ = given(name, 1, [0], scores=pixels)
        for column in (0, 1):
            one, _ = given(name, 1, [0], scores=pixels[:, column])
            torch.testing.assert_close(both[column], one)


@pytest.mark.parametrize("name", ["probability", "logprob"])
def test_a_model_without_probabilities_has_none(name):
    with pytest.raises(RequestError, match="the scores of this model have no probabilities") as caught:
        given(name, 0, activation="none")
    assert "--activation" in caught.value.hint


# ---- whom a class is compared with


def test_the_rival_is_the_strongest_other_class_or_those_named():
    margin = Score("margin", SCORES.load("margin"), has_rivals=True)
    assert margin.find_rivals(LOGITS, 2) == (1,)
    assert margin.find_rivals(LOGITS, 1) == (2,)
    assert Score(has_rivals=True, fixed_rivals=(0, 1)).find_rivals(LOGITS, 1) == (0,)
    assert LOGIT.find_rivals(LOGITS, 1) == ()


def test_nobody_to_compare_with_is_an_error():
    with pytest.raises(PictureError, match="compared only with itself"):
        Score(has_rivals=True, fixed_rivals=(1,)).find_rivals(LOGITS, 1)
    with pytest.raises(PictureError, match="no other class"):
        Score(has_rivals=True).find_rivals(LOGITS[:1], 0)
    # What a segmentation finds nowhere is no rival.
    with pytest.raises(PictureError, match="no other class"):
        Score(has_rivals=True).find_rivals(torch.tensor([1.0, -torch.inf]), 0)


# ---- maps

# Pooling and a linear head: Grad-CAM's channel weights are the gradient by the scores times the head's weights.
MODEL = Pooled(3)
IMAGES = pictures(2, 8)


def wanted(gradient):
    """The map of a number whose gradient by the scores this is, ``(n, classes)``."""
    act = MODEL.last(MODEL.features(IMAGES)).detach()
    weights = gradient @ MODEL.fc.weight.detach() / act[0, 0].numel()
    return (weights[:, :, None, None] * act).sum(1).numpy()


def found(**options):
    explain = Explainer(named(MODEL, 3, cosine=(4.0, -1.0)), layers=["last"], **options)
    return [one for [one] in explain(IMAGES, 1)]


def agree(ones, maps):
    for one, map in zip(ones, maps, strict=True):
        np.testing.assert_allclose(one.map, map, rtol=1e-4, atol=1e-6 * abs(map).max())


def test_a_map_of_the_probability_and_of_its_logarithm():
    scores = MODEL(IMAGES).detach()
    sure = scores.softmax(1)
    one = F.one_hot(torch.tensor([1, 1]), 3)
    agree(ones := found(score="logprob"), wanted(one - sure))
    assert [each.score for each in ones] == pytest.approx(scores.log_softmax(1)[:, 1].tolist())
    agree(ones := found(score="probability"), wanted(sure[:, [1]] * (one - sure)))
    assert [each.score for each in ones] == pytest.approx([each.probability for each in ones])


def test_a_map_of_the_margin_over_the_runner_up_and_over_a_class():
    scores = MODEL(IMAGES).detach()
    others = scores.clone()
    others[:, 1] = -torch.inf
    second = others.argmax(1)
    one = F.one_hot(torch.tensor([1, 1]), 3).double()
    agree(ones := found(score="margin"), wanted(one - F.one_hot(second, 3)))
    assert [each.score for each in ones] == pytest.approx(
        [float(row[1] - row[at]) for row, at in zip(scores, second, strict=True)]
    )
    assert [each.versus for each in ones] == [f"thing {at}" for at in second.tolist()]
    agree(ones := found(score="margin", versus=[2]), wanted(one - F.one_hot(torch.tensor([2, 2]), 3)))
    assert {each.versus for each in ones} == {"thing 2"}
    assert ones[0].probability == pytest.approx(float(scores.softmax(1)[0, 1]))


def test_a_counterfactual_is_the_map_of_what_lowers_the_score():
    for score in SCORES.names():
        plain, turned = found(score=score), found(score=score, counterfactual=True)
        agree(turned, [-one.map for one in plain])
        assert [one.score for one in turned] == pytest.approx([-one.score for one in plain])


def test_by_hand_the_margin_of_opposites_doubles_the_map():
    # Class 1's gradient is the opposite of class 0's: alpha is 1/2 for red and -1/2 for green.
    image = torch.arange(12.0).reshape(1, 3, 2, 2)
    network = named(ByHand(), 3, size=2)
    [[one]] = Explainer(network, layers=["layer"])(image, 0)
    [[two]] = Explainer(network, layers=["layer"], score="margin", versus=[1])(image, 0)
    red, green = image[0, :2].numpy()
    np.testing.assert_allclose(one.map, red / 2 - green / 2)
    np.testing.assert_allclose(two.map, red - green)


@pytest.mark.parametrize("score", SCORES.names())
def test_integrated_gradients_add_up_to_the_difference_of_the_scores(score):
    model = Small()
    explain = Explainer(
        named(model, 4, cosine=(1.0, 0.0)),
        method="integrated-gradients",
        options={"steps": 200},
        score=score,
        versus=[2] if score == "margin" else [],
    )
    image = pictures(1, 16)
    [[one]] = explain(image, 1)
    ends = [
        float(SCORES.load(score)(model(x)[0].detach(), 1, (2,), "softmax")) for x in (image, torch.zeros_like(image))
    ]
    assert one.map.sum() == pytest.approx(ends[0] - ends[1], rel=1e-2)


def test_methods_that_ask_again_keep_the_picture_s_own_rival():
    # The runner-up of what is left when half of the image is hidden is another class.
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.still = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            x = x + 0 * self.still(x)
            left, right = x[..., :4].mean((1, 2, 3)), x[..., 4:].mean((1, 2, 3))
            return torch.stack([10 * left + 10 * right, 3 * left, 2 * right], 1)

    image = torch.ones(1, 3, 8, 8)
    options = {"window": 4, "stride": 4}
    [[one]] = Explainer(Halves(), method="occlusion", options=options, score="margin")(image, 0)
    assert one.versus == "1"
    # Hidden is a quarter: 5 of the left side's 20 - 3 / 2 and so on; the right side's rival would be class 2.
    left, right = one.map[..., :4].mean(), one.map[..., 4:].mean()
    assert left / right == pytest.approx((5 - 1.5) / 5, rel=1e-4)


def test_a_region_s_margin_is_the_sum_over_its_pixels():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.layer(x)

    torch.manual_seed(0)  # scores are summed in float32, where by chance they may cancel out
    network = named(Dense().double(), 3, output_spec=OutputSpec("segment"))
    image = pictures(1, 8)
    region = torch.zeros(1, 8, 8, dtype=torch.bool)
    region[0, 2:5, 1:7] = True
    [[one]] = Explainer(network, layers=["layer"], score="margin", versus=[2])(image, 0, region=region)
    scores = network.module(image).detach()[0]
    assert one.score == pytest.approx(float((scores[0] - scores[2])[region[0]].sum()))
    [[turned]] = Explainer(network, layers=["layer"], score="probability", counterfactual=True)(image, 0, region=region)
    assert turned.score == pytest.approx(-float(scores.softmax(0)[0][region[0]].sum()))


# ---- what does not go together


def test_what_makes_its_own_contrast_goes_with_logits_alone():
    for options in ({"score": "probability"}, {"counterfactual": True}):
        with pytest.raises(RequestError, match="finer-cam builds its own score from those of all classes"):
            Explainer(MODEL, layers=["last"], method="finer-cam", **options)


def test_a_rival_for_a_score_that_has_none_is_refused():
    with pytest.raises(RequestError, match="does not compare classes") as caught:
        Explainer(MODEL, score="logprob", versus=[1])
    assert "margin" in caught.value.hint
    with pytest.raises(RequestError, match="there is no score 'logits'") as caught:
        Explainer(MODEL, score="logits")
    assert "logit" in caught.value.hint


def test_boxes_have_one_score():
    network = named(MODEL, 3, output_spec=OutputSpec("detect"))
    with pytest.raises(RequestError, match="there is no margin of it"):
        Explainer(network, score="margin")


def test_what_is_explained_is_said():
    network = named(MODEL, 3)
    assert Explainer(network).describe_target() == "class logit (before softmax)"
    assert "probability" in Explainer(network, score="probability").describe_target()
    assert Explainer(network, score="margin", versus=[2]).describe_target() == "class margin over thing 2"
    assert Explainer(network, counterfactual=True).describe_target().endswith("regions that lower it are highlighted")


# ---- the channels that matter most


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


# ---- likeness


def likeness(reference, **options):
    headless = nn.Sequential(MODEL.features, MODEL.last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        features = headless(reference)
    network = named(headless, len(features), output_spec=OutputSpec(references=features))
    return headless, features, Explainer(network, layers=["1"], **options)


def test_likeness_is_the_cosine_and_its_map_is_of_its_gradient():
    reference = pictures(2, 8, seed=5)
    model, features, explain = likeness(reference)
    for row, index in ((0, 1), (1, 0)):
        image = IMAGES[row : row + 1]
        [[one]] = explain(image, index)
        act = model[:2](image).detach().requires_grad_()
        cosine = F.cosine_similarity(model[2:](act), features[[index]])[0]
        (gradient,) = torch.autograd.grad(cosine, act)
        np.testing.assert_allclose(
            one.map, (gradient.mean((2, 3), True) * act).sum(1)[0].detach(), rtol=1e-4, atol=1e-7
        )
        assert one.score == pytest.approx(float(cosine.detach()))
        assert one.probability is None


def test_why_more_like_one_than_like_the_other():
    reference = pictures(2, 8, seed=5)
    _, _, explain = likeness(reference, score="margin")
    _, _, plain = likeness(reference)
    [[margin]] = explain(IMAGES[:1], 0)
    [[first, second]] = plain(IMAGES[:1], [[0, 1]])
    np.testing.assert_allclose(margin.map, first.map - second.map, rtol=1e-4, atol=1e-7)


def test_the_reference_itself_is_explained_by_the_inner_product():
    model, features, explain = likeness(IMAGES[:1])
    [[one]] = explain(IMAGES[:1], 0)
    assert one.score == pytest.approx(1)
    assert "it is the reference itself" in " ".join(one.notes)
    act = model[:2](IMAGES[:1]).detach()
    weights = features[0] / features[0].square().sum() / act[0, 0].numel()
    np.testing.assert_allclose(one.map, (weights[:, None, None] * act[0]).sum(0), rtol=1e-4)
    # What the places have in it adds up to it.
    assert one.map.sum() == pytest.approx(1, rel=1e-5)
    # Mirrored, it is asked for in the same way.
    [[mirrored]] = likeness(IMAGES[:1], flips=["flip"])[2](IMAGES[:1], 0)
    assert mirrored.score == pytest.approx(1)
