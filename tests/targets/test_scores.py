"""Which number is explained: scores worked out by hand, and what becomes of them on the way to a map."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import ByHand, Small, named, pictures
from scored import IMAGES, MODEL
from torch import nn

from camcli import Explainer
from camcli.base.errors import PictureError, RequestError
from camcli.targets.readers.spec import OutputSpec
from camcli.targets.scores import SCORES
from camcli.targets.target import LOGIT, Score

# Softmax: 1/7, 2/7, 4/7. Sigmoid: 1/2, 2/3, 4/5.
OF_CLASSES = [row.name for row in SCORES.rows if not row.of_box]
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
    for name in OF_CLASSES:
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
    for score in OF_CLASSES:
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


@pytest.mark.parametrize("score", OF_CLASSES)
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


def test_what_is_explained_is_said():
    network = named(MODEL, 3)
    assert Explainer(network).describe_target() == "class logit (before softmax)"
    assert "probability" in Explainer(network, score="probability").describe_target()
    assert Explainer(network, score="margin", versus=[2]).describe_target() == "class margin over thing 2"
    assert Explainer(network, counterfactual=True).describe_target().endswith("regions that lower it are highlighted")
