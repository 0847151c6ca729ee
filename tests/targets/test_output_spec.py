"""What a model returns: where its scores are, and what is summed when it scores pixels or finds boxes."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from networks import Small, Through, named, pictures, same, untouched
from torch import nn

from camcli import Explainer, Labels, Network, OutputSpec, PictureError, Preprocess, RequestError
from camcli.engine.choose import select_detected
from camcli.targets.readers.find import find_scores, get_path, named_tensors
from camcli.targets.readers.torchvision_boxes import unfiltered

SCORES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
OTHER = -SCORES
Pair = namedtuple("Pair", ["logits", "aux_logits"])
Distilled = namedtuple("Distilled", ["head", "head_dist"])


@dataclass
class Answer:
    """As transformers' outputs are made."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


# ---- the rule


@pytest.mark.parametrize(
    ("output", "classes"),
    [
        (SCORES, 0),
        ((SCORES,), 0),
        ([SCORES], 0),
        ({"anything": SCORES}, 0),
        ({"a": [{"b": SCORES}]}, 0),
        (Pair(SCORES, OTHER), 0),
        (Pair(SCORES, None), 0),
        (Answer(torch.tensor(0.5), SCORES, (torch.ones(2, 5, 7), torch.ones(2, 5, 7))), 0),
        (OrderedDict(out=SCORES, aux=OTHER), 0),
        ({"aux1": OTHER, "aux2": OTHER, "main": SCORES}, 0),
        ({"embedding": torch.ones(2, 9), "logits": SCORES}, 0),
        ((torch.ones(2, 9), SCORES), 3),  # three classes are named
        ((SCORES, SCORES.long(), torch.ones(5, 3), torch.ones(2, 3, 8, 8)), 0),  # only one of them can be scores
        ({"scores": SCORES, "out": OTHER, "logits": OTHER}, 0),
    ],
)
def test_the_scores_are_found_where_one_thing_can_be_meant(output, classes):
    wanted = OTHER if isinstance(output, dict) and len(output) == 3 and "logits" in output else SCORES
    assert find_scores(output, 2, classes) is wanted


@pytest.mark.parametrize("output", [(SCORES, OTHER), Distilled(SCORES, OTHER), {"a": SCORES, "b": OTHER}])
def test_what_could_be_either_is_refused_with_paths_types_and_shapes(output):
    with pytest.raises(RequestError, match="returns 2 tensors that could be its scores") as caught:
        find_scores(output, 2, 3)
    first, second = [part.path for part in named_tensors(output)]
    assert f"--output {first}" in caught.value.hint
    assert f"{first}: float32 2x3" in caught.value.hint
    assert f"{second}: float32 2x3" in caught.value.hint


@pytest.mark.parametrize(
    ("output", "path", "wanted"),
    [
        ((SCORES, OTHER), "1", OTHER),
        (Distilled(SCORES, OTHER), "head_dist", OTHER),
        (Distilled(SCORES, OTHER), "1", OTHER),
        (Pair(SCORES, OTHER), "aux_logits", OTHER),
        ({"aux": [SCORES, OTHER]}, "aux.1", OTHER),
        ({"a": {"logits": SCORES}, "b": OTHER}, "a", SCORES),
        ({"a.b": SCORES, "a": OTHER}, "a.b", SCORES),
        ({0: SCORES, 1: OTHER}, "1", OTHER),
    ],
)
def test_a_path_says_which(output, path, wanted):
    assert find_scores(output, 2, path=path) is wanted


def test_a_path_to_nothing_lists_what_there_is():
    with pytest.raises(RequestError, match=r"has no 'logit'") as caught:
        get_path(Pair(SCORES, OTHER), "logit")
    assert "logits: float32 2x3" in caught.value.hint
    with pytest.raises(RequestError, match="returns 2x3x4 for 2 image"):
        find_scores(torch.ones(2, 3, 4), 2)


def test_a_map_for_each_pixel_is_no_row_of_scores():
    with pytest.raises(RequestError, match="returns 2x3x4x4 for 2 image") as caught:
        find_scores(torch.ones(2, 3, 4, 4), 2)
    assert "camcli.OutputSpec('segment')" in caught.value.hint
    assert find_scores({"out": torch.ones(2, 3, 4, 4), "x": SCORES}, 2, task="segment").shape == (2, 3, 4, 4)


# ---- through the explainer


class Wrapped(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.net, self.function = Small(), function

    def forward(self, x):
        return self.function(self.net(x))


@pytest.mark.parametrize(
    ("function", "output"),
    [
        (lambda scores: {"logits": scores, "hidden": scores * 2}, ""),
        (lambda scores: Pair(scores, -scores), ""),
        (lambda scores: (scores, -scores), "0"),
        (lambda scores: {"x": {"y": [-scores, scores]}}, "x.y.1"),
    ],
)
def test_the_maps_are_those_of_the_scores_wherever_they_are(function, output):
    images = pictures(3, 16)
    plain = Explainer(Small(), layers=["conv2"])(images, [1, 2, 3])
    wrapped = Wrapped(function)
    with untouched(wrapped):
        for [one], [other] in zip(
            Explainer(wrapped, layers=["net.conv2"], output=output)(images, [1, 2, 3]), plain, strict=True
        ):
            assert np.abs(one.map - other.map).max() <= 1e-6 * np.abs(other.map).max()
            assert one.score == other.score


def test_of_a_single_score_the_probability_is_its_sigmoid():
    for shape in [(-1, 1), (-1,)]:
        model = nn.Sequential(Small(1), Through(lambda scores, shape=shape: scores.reshape(shape)))
        [[one]] = Explainer(model, layers=["0.conv2"])(pictures(1, 16))
        assert one.probability == pytest.approx(1 / (1 + np.exp(-one.score)))


def test_a_regression_has_no_probability():
    network = named(Small(1), 1, 16, activation="none")
    [[one]] = Explainer(network, layers=["conv2"])(pictures(1, 16))
    assert one.probability is None
    assert "regions that raise it are highlighted" in network.output_spec.describe_score("none", 1)


# ---- one score for each class and pixel


class Painted(nn.Module):
    """On a 2x2 image: a layer that hands on red and green, which are the scores of classes 0 and 1, cell by cell."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 1, bias=False)
        self.gain = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.eval()
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(5, 3)[:, :, None, None])

    def forward(self, x):
        scores = self.layer(x)[:, :2] * self.gain[:, None, None]
        return {"out": scores, "aux": -scores}


IMAGE = torch.tensor([[[3.0, 1.0], [5.0, 0.0]], [[1.0, 2.0], [1.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])[None]


def painted(**facts):
    labels = Labels(("red", "green"))
    preprocess = Preprocess((2, 2), (0.0,) * 3, (1.0,) * 3, (2, 2), "squash", "nearest")
    return Network(
        "tests:painted", Painted(), preprocess, labels, "random", "here", output_spec=OutputSpec("segment"), **facts
    )


def test_the_score_is_summed_where_the_class_is_predicted():
    """Red scores 3 1 / 5 0, green (doubled) 2 4 / 2 8: red is predicted in the left column, green in the right.

    Red's score is 3 + 5 = 8. Its gradient by the red channel is 1 in the left column, so Grad-CAM's weight is the mean
    1/2, and the map half of red everywhere. Green: 4 + 8 = 12, gradient 2 in the right column, weight 1, map green.
    """
    explain = Explainer(painted(), layers=["layer"])
    [[red, green]] = explain(IMAGE, [[0, 1]])
    assert (red.score, green.score) == (8, 12)
    assert red.map.tolist() == [[1.5, 0.5], [2.5, 0.0]]
    assert green.map.tolist() == [[1.0, 2.0], [1.0, 4.0]]
    of_red = np.mean([1 / (1 + np.exp(2 - 3)), 1 / (1 + np.exp(2 - 5))])
    assert red.probability == pytest.approx(of_red)
    [[best]] = explain(IMAGE)
    assert best.index == 1


def test_hirescam_at_the_scores_is_the_scores_in_the_region():
    [[red]] = Explainer(painted(), layers=["layer"], method="hirescam")(IMAGE, 0)
    assert red.map.tolist() == [[3.0, 0.0], [5.0, 0.0]]


def test_a_region_replaces_the_prediction():
    lower = torch.tensor([[[False, False], [True, True]]])
    [[red]] = Explainer(painted(), layers=["layer"], method="hirescam")(IMAGE, 0, region=lower)
    assert red.score == 5
    assert red.map.tolist() == [[0.0, 0.0], [5.0, 0.0]]


def test_padding_is_no_part_of_a_class():
    upper = torch.tensor([[[True, True], [False, False]]])
    [[red]] = Explainer(painted(), layers=["layer"]).results(IMAGE, lambda row, scores: [0], picture_mask=upper)
    assert red.score == 3


def test_a_class_predicted_nowhere_has_no_map_and_the_reason_stands_there():
    explain = Explainer(painted(), layers=["layer"])
    dark = IMAGE * torch.tensor([0.0, 1.0, 1.0])[:, None, None] + torch.tensor([0.1, 0.0, 0.0])[:, None, None]
    [[red, green]] = explain.results(dark, lambda row, scores: [0, 1])
    assert "nowhere" in red.message
    assert "--region" in red.hint
    assert green.index == 1
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    with pytest.raises(PictureError, match="outside the model's input"):
        explain(IMAGE, 0, region=nothing)


def test_background_is_explained_only_when_it_is_named():
    network = painted()
    network = Network(**{**vars(network), "labels": Labels(("red", "__background__"))})
    explain = Explainer(network, layers=["layer"])
    assert [one.index for [one] in [explain(IMAGE)[0]]] == [0]
    assert explain(IMAGE, 1)[0][0].score == 12


def test_where_classes_do_not_exclude_one_another_a_class_is_where_its_score_is_positive():
    [[red]] = Explainer(painted(activation="sigmoid"), layers=["layer"])(IMAGE, 0)
    assert red.score == 3 + 1 + 5


def test_a_region_means_nothing_to_a_classifier():
    with pytest.raises(RequestError, match="does not score every pixel"):
        Explainer(Small(), layers=["conv2"])(pictures(1, 16), 0, region=torch.ones(1, 16, 16, dtype=torch.bool))


# ---- boxes


class Finder(nn.Module):
    """On a 2x2 image: for each cell a box of that cell, of class 1 where red is stronger than green, else of 2.

    A box's score is half the cell's stronger colour; boxes of ``score_thresh`` or less are kept to itself.
    """

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 1, bias=False)
        self.score_thresh = 0.3
        self.eval()
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(5, 3)[:, :, None, None])

    def forward(self, images):
        return [self.found(colours) for colours in self.layer(images)]

    def found(self, colours):
        scores, channel = colours[:2].flatten(1).max(0)
        cells = torch.tensor([[0, 0, 1, 1], [1, 0, 2, 1], [0, 1, 1, 2], [1, 1, 2, 2]], dtype=torch.float32)
        kept = scores / 2 > self.score_thresh
        return {"boxes": cells[kept], "labels": channel[kept] + 1, "scores": scores[kept] / 2}


SCENE = torch.tensor([[[0.9, 0.1], [1.6, 0.0]], [[0.1, 1.2], [0.1, 0.2]], [[0.0, 0.0], [0.0, 0.0]]])[None]


def finder(min_score=0.4):
    labels = Labels(("__background__", "red", "green"))
    preprocess = Preprocess((2, 2), (0.0,) * 3, (1.0,) * 3, (2, 2), "squash", "nearest")
    output_spec = OutputSpec("detect", min_score=min_score)
    return Network("tests:finder", Finder(), preprocess, labels, "random", "here", output_spec=output_spec)


def test_each_box_has_a_map_of_its_own_the_best_first():
    """Scores: red .45 and .8, green .6; the lower right cell's .1 is below. HiResCAM: half the colour in the cell."""
    explain = Explainer(finder(), layers=["layer"], method="hirescam")
    [[first, second, third]] = explain(SCENE)
    assert [one.label for one in (first, second, third)] == ["red", "red", "green"]
    assert [one.number for one in (first, second, third)] == [1, 3, 2]
    assert [one.score for one in (first, second, third)] == pytest.approx([0.8, 0.45, 0.6])
    assert first.probability == first.score
    assert first.box == (0, 1, 1, 2)
    np.testing.assert_allclose(first.map, [[0, 0], [0.8, 0]])
    np.testing.assert_allclose(second.map, [[0.45, 0], [0, 0]])
    np.testing.assert_allclose(third.map, [[0, 0.6], [0, 0]])


def test_a_target_is_the_class_of_boxes():
    explain = Explainer(finder(), layers=["layer"])
    assert [one.number for one in explain(SCENE, 1)[0]] == [1, 3]
    assert [one.number for one in explain(SCENE, 2)[0]] == [2]
    with pytest.raises(PictureError, match=r"no box of class 0 .* at least 0\.4"):
        explain(SCENE, 0)


def test_boxes_below_the_least_score_are_not_there():
    assert [one.number for one in Explainer(finder(0.6), layers=["layer"])(SCENE)[0]] == [1, 2]
    with pytest.raises(PictureError, match=r"finds no box with a score of at least 0\.9"):
        Explainer(finder(0.9), layers=["layer"])(SCENE)


def test_a_batch_of_pictures_with_different_numbers_of_boxes_equals_singles():
    images = torch.cat([SCENE, SCENE.flip(3), torch.zeros_like(SCENE), SCENE * 0.6])
    explain = Explainer(finder(), layers=["layer"])
    together = explain.results(images)
    assert [len(some) for some in together] == [3, 3, 1, 1]
    assert isinstance(together[2][0], PictureError)
    for row in (0, 1, 3):
        for one, other in zip(together[row], explain(images[row : row + 1])[0], strict=True):
            same(one, other)
            assert (one.number, one.box) == (other.number, other.box)


def test_a_detector_is_tried_without_its_own_threshold_and_has_it_back():
    module = Finder()
    with unfiltered(module):
        assert len(module(SCENE)[0]["scores"]) == 4
    assert module.score_thresh == 0.3
    network = finder()
    network.module.score_thresh = 100.0  # noise shows it nothing
    with untouched(network.module):
        Explainer(network, layers=["layer"]).check(torch.rand(1, 3, 2, 2))


def test_masks_are_brought_to_the_scores_once_for_all_classes(monkeypatch):
    """At the scores' device and size: a copy for each class would wait for a GPU each time."""
    brought = []
    real = torch.nn.functional.interpolate
    monkeypatch.setattr(
        "camcli.targets.readers.segmentation.F.interpolate",
        lambda *given, **how: brought.append(1) or real(*given, **how),
    )
    seen, region = torch.ones(2, 16, 16, dtype=torch.bool), torch.zeros(2, 16, 16, dtype=torch.bool)
    region[:, :8, 4:] = True
    scores = torch.arange(2 * 5 * 8 * 8.0).reshape(2, 5, 8, 8)
    predictions = OutputSpec("segment").read({"out": scores}, 2, tuple("abcde"), picture_mask=seen, region_mask=region)
    for row in range(2):
        # At half the size the region is rows 0 to 3, columns 2 to 7.
        assert torch.equal(predictions.scores(row), scores[row, :, :4, 2:].sum((1, 2)))
        for index in range(5):
            [target] = predictions.find_targets(row, index)
            assert torch.equal(predictions.score_target(row, target), target.score)
    assert len(brought) == 2


def test_every_class_found_is_what_a_detector_predicts():
    assert select_detected(0, torch.tensor([-torch.inf, 0.2, -torch.inf, 0.9])) == [3, 1]


def test_what_is_no_detection_is_refused():
    with pytest.raises(RequestError, match="does not return boxes, labels and scores for each of 1"):
        OutputSpec("detect").read([{"boxes": torch.ones(1, 4)}], 1, ("a",))


# ---- in words


def test_the_run_says_what_is_explained():
    assert OutputSpec().describe_score("softmax", 1000) == "class logit (before softmax)"
    assert "before sigmoid" in OutputSpec().describe_score("softmax", 1)
    assert "of independent classes" in OutputSpec().describe_score("sigmoid", 20)
    assert "summed over the pixels where the model predicts it" in OutputSpec("segment").describe_score("softmax", 21)
    assert "the region given" in OutputSpec("segment").describe_score("softmax", 21, region=True)
    assert "each box that is explained" in OutputSpec("detect").describe_score("softmax", 91)
