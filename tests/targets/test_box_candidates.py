"""What a detector considered before it dropped boxes: a box's score is traced to the candidate that made it."""

import math

import pytest
import torch
from torch import nn

from camcli import Explainer, Labels, Network, OutputSpec, Preprocess, RequestError

BOXES = torch.tensor([[0.0, 0, 2, 2], [2, 0, 4, 2], [0, 2, 2, 4], [2, 2, 4, 4]])
NAMES = ("__background__", "cat", "dog")


class Toy(nn.Module):
    """Four candidates, the quarters of a 4x4 image, each with three logits: the colours' means there.

    The best class of each is its label; the boxes whose probability is at least a half are kept, the last first.
    """

    def __init__(self, objectness: bool = False):
        super().__init__()
        self.layer, self.has_objectness = nn.Conv2d(3, 3, 1, bias=False), objectness
        nn.init.dirac_(self.layer.weight)
        self.eval()

    def forward(self, images):
        return [self.find(cells.flatten(1).T) for cells in nn.functional.avg_pool2d(self.layer(images), 2)]

    def find(self, logits):
        best, labels = logits.softmax(1)[:, 1:].max(1)
        kept = torch.nonzero(best >= 0.5)[:, 0].flip(0)
        candidates = {"boxes": BOXES.to(logits) + 0 * logits[:, :1], "logits": logits, "kept": kept}
        if self.has_objectness:
            candidates["objectness"] = logits[:, 1]
        return {"boxes": BOXES.to(logits)[kept], "labels": labels[kept] + 1, "scores": best[kept]} | {
            "candidates": candidates
        }


def scene():
    """A cat upper left (logits 0, 3, 1), a dog lower right (1, 0, 4), nothing between (5, 0, 0)."""
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0] = 5
    image[0, :, :2, :2] = torch.tensor([0.0, 3, 1])[:, None, None]
    image[0, :, 2:, 2:] = torch.tensor([1.0, 0, 4])[:, None, None]
    return image


def toy(objectness=False):
    preprocess = Preprocess((4, 4), (0.0,) * 3, (1.0,) * 3, (4, 4), "squash", "nearest")
    return Network(
        "tests:toy", Toy(objectness), preprocess, Labels(NAMES), "random", "here", output_spec=OutputSpec("detect")
    )


def explained(objectness=False, **options):
    options = {"layers": ["layer"], "method": "hirescam", "layout": "nchw", **options}
    return Explainer(toy(objectness), **options)(scene())[0]


def test_a_box_is_explained_by_the_logit_of_the_candidate_it_came_from():
    dog, cat = explained()
    assert [(one.label, one.number, one.box) for one in (dog, cat)] == [
        ("dog", 1, (2, 2, 4, 4)),
        ("cat", 2, (0, 0, 2, 2)),
    ]
    assert (dog.score, cat.score) == pytest.approx((4, 3))
    assert dog.probability == pytest.approx(math.exp(4) / (math.e + 1 + math.exp(4)))
    # The logit is the mean over four cells of the third channel.
    assert dog.map[2:, 2:] == pytest.approx(1)
    assert dog.map[:2].max() == cat.map[2:].max() == 0


def test_a_box_has_every_score_that_a_class_has():
    probability = math.exp(4) / (math.e + 1 + math.exp(4))
    assert explained(score="probability")[0].score == pytest.approx(probability)
    assert explained(score="logprob")[0].score == pytest.approx(math.log(probability))
    dog, cat = explained(score="margin")
    # Never over the background, whose logit in the dog's box is greater than the cat's.
    assert (dog.score, dog.versus, cat.score, cat.versus) == (4, "cat", 2, "dog")
    with pytest.raises(RequestError, match="does not compare"):
        explained(versus=1)
    options = {"layers": ["layer"], "layout": "nchw", "score": "margin", "versus": 1, "counterfactual": True}
    [[dog, cat]] = Explainer(toy(), method="hirescam", **options).results(scene())
    assert dog.score == -4
    assert "compared only with itself" in cat.message
    [[dog, _]] = Explainer(toy(), **options).results(scene())
    assert "nothing at the layer 'layer' raises its score" in dog.message


def test_objectness_enters_scores_that_are_probabilities():
    dog, _ = explained(objectness=True, score="logprob")
    alone = math.log(math.exp(4) / (math.e + 1 + math.exp(4)))
    assert dog.score == pytest.approx(alone + math.log(0.5))
    assert explained(objectness=True, score="probability")[0].score == pytest.approx(math.exp(alone) / 2)
    assert explained(objectness=True)[0].score == pytest.approx(4)
    assert explained(objectness=True, score="logprob", counterfactual=True)[0].score == pytest.approx(-dog.score)


def one_box(**candidates):
    return [{"boxes": BOXES[:1], "labels": torch.ones(1).long(), "scores": torch.ones(1), "candidates": candidates}]


def test_boxes_of_each_class_are_read_and_what_does_not_fit_is_refused():
    good = {"boxes": torch.rand(5, 3, 4), "logits": torch.rand(5, 3), "kept": torch.tensor([2])}
    [found] = OutputSpec("detect").read(one_box(**good), 1, NAMES).detections
    assert torch.equal(found.candidates.boxes_of_class(2), good["boxes"][:, 2])
    for wrong in ({"boxes": torch.rand(4, 4)}, {"kept": torch.tensor([5])}, {"objectness": torch.rand(4)}):
        with pytest.raises(RequestError, match="do not fit 1 boxes"):
            OutputSpec("detect").read(one_box(**good | wrong), 1, NAMES)
    with pytest.raises(RequestError, match="not a mapping of boxes, logits and kept"):
        OutputSpec("detect").read(one_box(boxes=BOXES), 1, NAMES)


def test_without_candidates_a_box_has_one_score():
    network = toy()
    network.module.register_forward_hook(
        lambda module, given, output: [{k: v for k, v in one.items() if k != "candidates"} for one in output]
    )
    dog, _ = Explainer(network, layers=["layer"], layout="nchw")(scene())[0]
    assert dog.score == dog.probability
    with pytest.raises(RequestError, match="a box has a single score"):
        Explainer(network, layers=["layer"], layout="nchw", score="margin")(scene())
