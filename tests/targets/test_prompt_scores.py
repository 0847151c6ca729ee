"""Prompts as classes: what may be explained, and scores and maps by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import named, pictures
from prompt_files import PICTURE
from torch import Tensor, nn

import camcli
from camcli import Explainer, Labels
from camcli.base.errors import PictureError, RequestError
from camcli.methods import METHODS
from camcli.models.adapters.zero_shot import ZeroShotClassifier
from camcli.targets import is_multi_target, resolve
from camcli.targets.scores import SCORES
from camcli.targets.target import Score, mask_competing

CONTRASTED = Labels(("a dog", "a cat", "a wall"), synonyms=False, noun="prompt", asked=2)
NETWORK = replace(named(nn.Identity(), 3), labels=CONTRASTED)
SCORES_OF = torch.tensor([1.0, 2.0, 5.0])


def test_what_only_competes_is_never_explained() -> None:
    for words, wanted in (("predicted", [1]), ("top:2", [1, 0]), ("all", [0, 1]), ("a cat", [1]), ("0", [0])):
        assert list(resolve([words], NETWORK)(PICTURE, SCORES_OF)) == wanted, words
    # Its share of the softmax is taken off all the same: 0.017 and 0.047.
    assert list(resolve(["all>0.02"], NETWORK)(PICTURE, SCORES_OF)) == [1]
    for word, message in (("a wall", "no prompt 'a wall'"), ("2", "no prompt 2"), ("top:3", "not a number of prompts")):
        with pytest.raises(RequestError, match=message):
            resolve([word], NETWORK)
    assert is_multi_target("all")


def test_the_predicted_one_is_the_best_of_those_that_can_be_explained() -> None:
    module = of_prompts(torch.eye(3, dtype=torch.float64))
    network = named(module, 3, cosine=(10.0, 0.0))
    network = camcli.Network(**{**vars(network), "labels": CONTRASTED})
    images = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    images[:, 0], images[:, 1], images[:, 2] = 1, 2, 3
    images[0, :, 0, 0] = 0.5
    [[one]] = Explainer(network, layers=["visual.layer"], layout="nchw")(images)
    assert one.label == "a cat"


def test_every_class_in_order_without_those_that_are_not_there() -> None:
    assert list(resolve(["all"], NETWORK)(PICTURE, mask_competing(SCORES_OF, [1, 2]))) == [1]
    plain = replace(named(nn.Identity(), 2), activation="none")
    assert list(resolve(["all"], plain)(PICTURE, torch.tensor([3.0, 4.0]))) == [0, 1]


# ---- scores, by hand


class Mean(nn.Module):
    """A layer that hands everything on, and the mean of each of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mean((2, 3))


def of_prompts(vectors: Tensor, scale: float = 10.0, bias: float = 0.0) -> ZeroShotClassifier:
    module = ZeroShotClassifier(Mean(), F.normalize(vectors, dim=1), torch.tensor(scale), torch.tensor(bias))
    return module.double().eval()


def of_three(scale: float = 10.0, bias: float = 0.0, **more: Any) -> camcli.Network:
    """Along red; along green; along both, and a prompt for contrast along blue."""
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    network = named(of_prompts(vectors, scale, bias), 4, cosine=(scale, bias), **more)
    labels = Labels(("red", "green", "yellow", "blue"), synonyms=False, noun="prompt", asked=3)
    return camcli.Network(**{**vars(network), "labels": labels})


def test_by_hand_scores_are_scaled_cosines() -> None:
    # The mean of red is 3, of green 4: cosines 0.6, 0.8, 7 / (5 sqrt 2) and 0.
    image = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    image[0, :2, 0, 0] = torch.tensor([3.0, 4.0])
    found = of_three(10.0, -2.0).module(image)[0]
    assert found.tolist() == pytest.approx([4, 6, 10 * 7 / (5 * math.sqrt(2)) - 2, -2])


@pytest.fixture
def images() -> Tensor:
    return pictures(3, 4, seed=3).abs()


def answers(network: camcli.Network, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network.module(images)


def explained(
    network: camcli.Network, images: Tensor, index: int, among: tuple[int, ...] = (), **options: Any
) -> list[camcli.Explanation]:
    explainer = Explainer(network, layers=["visual.layer"], layout="nchw", **options)
    found = explainer.results(images, lambda row, scores: [index], competing=lambda row: among)
    return [one for [one] in found]


def gradcam_of(network: camcli.Network, images: Tensor, derivative: Tensor) -> Tensor:
    """Grad-CAM of a number whose derivative by the scores is given, with the cosine's gradient in closed form."""
    features = images.mean((2, 3))
    lengths = features.norm(dim=1, keepdim=True)
    unit, prompts = features / lengths, network.module.prompts
    cosines = unit @ prompts.T
    by_features = (derivative @ prompts - (derivative * cosines).sum(1, keepdim=True) * unit) / lengths
    weights = float(network.module.scale) * by_features / images[0, 0].numel()
    return (weights[:, :, None, None] * images).sum(1)


def agree(ones: list[camcli.Explanation], maps: Tensor, scores: Tensor) -> None:
    for one, map, score in zip(ones, maps, scores, strict=True):
        np.testing.assert_allclose(one.map, map.numpy(), rtol=1e-5, atol=1e-6 * float(map.abs().max()))
        assert one.score == pytest.approx(float(score))


def test_the_cosine_alone_is_the_score_without_scale_and_bias(images: Tensor) -> None:
    network = of_three(10.0, -2.0)
    one_hot = F.one_hot(torch.tensor([1, 1, 1]), 4).double()
    cosines = (answers(network, images)[:, 1] + 2) / 10
    agree(explained(network, images, 1, score="similarity"), gradcam_of(network, images, one_hot) / 10, cosines)
    agree(explained(network, images, 1), gradcam_of(network, images, one_hot), 10 * cosines - 2)


@pytest.mark.parametrize("among", [(), (0, 1), (1, 3), (3, 2, 1)])
def test_a_probability_is_the_softmax_over_those_that_compete(images: Tensor, among: tuple[int, ...]) -> None:
    network = of_three()
    hidden = torch.stack([mask_competing(row, among) for row in answers(network, images)])
    sure = hidden.softmax(1)
    one_hot = F.one_hot(torch.tensor([1, 1, 1]), 4).double()
    maps = gradcam_of(network, images, sure[:, [1]] * (one_hot - sure))
    ones = explained(network, images, 1, among, score="probability")
    agree(ones, maps, sure[:, 1])
    assert [one.probability for one in ones] == pytest.approx(sure[:, 1].tolist())
    agree(
        explained(network, images, 1, among, score="logprob"),
        gradcam_of(network, images, one_hot - sure),
        hidden.log_softmax(1)[:, 1],
    )


def test_a_rival_is_one_of_those_that_compete(images: Tensor) -> None:
    network = of_three()
    scores = answers(network, images)
    contrast = torch.tensor([[0.0, 1, 0, -1]] * 3).double()
    ones = explained(network, images, 1, (1, 3), score="margin")
    agree(ones, gradcam_of(network, images, contrast), scores[:, 1] - scores[:, 3])
    assert {one.versus for one in ones} == {"blue"}
    # Named are two of which one is not there.
    assert Score(has_rivals=True, fixed_rivals=(0, 3)).find_rivals(mask_competing(scores[0], (1, 3)), 1) == (3,)
    ones = explained(network, images, 1, (1, 0, 2), score="margin", versus=[0, 3])
    agree(ones, gradcam_of(network, images, torch.tensor([[-1.0, 1, 0, 0]] * 3).double()), scores[:, 1] - scores[:, 0])


def test_what_does_not_compete_in_a_picture_is_not_explained_in_it(images: Tensor) -> None:
    [found] = Explainer(of_three(), layers=["visual.layer"], layout="nchw").results(
        images[:1], lambda row, scores: [2], competing=lambda row: [0]
    )
    assert isinstance(found[0], PictureError)
    assert "'yellow' is none of its own prompts" in found[0].message


@pytest.mark.parametrize("score", ["probability", "logprob", "margin"])
def test_methods_that_ask_again_ask_about_the_same_competition(images: Tensor, score: str) -> None:
    network = of_three()
    options = {"method": "occlusion", "options": {"window": 2, "stride": 2}, "score": score}
    found = Explainer(network, **options).results(images[:1], lambda row, scores: [1], competing=lambda row: (1, 3))
    # The same question where there is no other prompt.
    vectors = network.module.prompts[[1, 3]]
    other = named(of_prompts(vectors), 2, cosine=(10.0, 0.0))
    [[wanted]] = Explainer(other, **options)(images[:1], 0)
    np.testing.assert_allclose(found[0][0].map, wanted.map, rtol=1e-5, atol=1e-7)
    assert found[0][0].score == pytest.approx(wanted.score)
    # And over a flipped image, whose map comes back.
    [[turned]] = Explainer(network, layers=["visual.layer"], layout="nchw", score=score, flips=["flip"]).results(
        images[:1], lambda row, scores: [1], competing=lambda row: (1, 3)
    )
    [[same]] = Explainer(other, layers=["visual.layer"], layout="nchw", score=score, flips=["flip"])(images[:1], 0)
    np.testing.assert_allclose(turned.map, same.map, rtol=1e-5, atol=1e-7)


def test_what_is_explained_is_said_of_prompts() -> None:
    network = of_three(100.0, -10.5)
    assert (
        Explainer(network).describe_target()
        == "prompt logit: 100 times its cosine with the image minus 10.5, before softmax"
    )
    assert "cosine" in Explainer(network, score="similarity").describe_target()
    assert Explainer(network, score="probability").describe_target() == "prompt probability (softmax of the logits)"
    assert Explainer(network, score="margin", versus=[3]).describe_target() == "prompt margin over blue"
    assert Explainer(network, score="margin").describe_target().endswith("the strongest other prompt")


def test_networks_without_prompts_have_no_cosine() -> None:
    with pytest.raises(RequestError, match="compares images with no prompts") as caught:
        Explainer(named(Mean(), 3), score="similarity")
    assert "--text-tower" in caught.value.hint
    assert SCORES.find("similarity").is_cosine


def test_finer_cam_compares_with_what_is_for_contrast_too(images: Tensor) -> None:
    assert (
        "logits"
        in Explainer(of_three(), layers=["visual.layer"], layout="nchw", method="finer-cam")
        .bound_methods[0]
        .signal_names
    )
    [one, *_] = explained(of_three(), images, 0, method="finer-cam")
    assert np.isfinite(one.map).all()
    assert METHODS.find("finer-cam")
