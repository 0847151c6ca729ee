"""Edges of a detector's box as scores, by hand; and where there are none to explain."""

import numpy as np
import pytest
import torch
from torch import nn

from camcli import Explainer, Labels, Network, OutputSpec, PictureError, Preprocess, RequestError

EDGES = ("box-left", "box-top", "box-right", "box-bottom")
# Of each edge, the change by each of four cells.
WEIGHTS = torch.tensor([[1.0, 0, 2, 0], [0, -1, 0, 0], [0, 0, 0, 3], [1, 1, 1, 1]])
IMAGE = torch.arange(1.0, 5).reshape(1, 1, 2, 2).expand(1, 3, 2, 2) / 10


class Edges(nn.Module):
    """A detector of one box, whose edges are weighted sums of the cells of its layer and constants."""

    def __init__(self, attached: bool, candidates: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 1 / 3)
        self.attached, self.candidates = attached, candidates

    def forward(self, images):
        found = []
        for cells in self.layer(images).flatten(1):
            boxes = (WEIGHTS @ cells + torch.tensor([0.0, 1, 2, 2]))[None]
            boxes = boxes if self.attached else boxes.detach()
            logits = torch.stack([cells.sum(), -cells.sum()])[None]
            one = {"boxes": boxes, "labels": torch.tensor([0]), "scores": logits.sigmoid()[:, 0]}
            if self.candidates:
                one["candidates"] = {"boxes": boxes, "logits": logits, "kept": torch.tensor([0])}
            found.append(one)
        return found


def network(attached=True, candidates=True):
    return Network(
        module=Edges(attached, candidates).eval(),
        preprocess=Preprocess((2, 2), (0.0,) * 3, (1.0,) * 3, (2, 2), "squash"),
        labels=Labels(("thing", "other")),
        name="edges",
        weights="random",
        origin="here",
        output_spec=OutputSpec("detect"),
        activation="sigmoid",
    )


def explain(score, method="hirescam", counterfactual=False, **kind):
    where = {} if method == "rise" else {"layers": ["layer"], "layout": "nchw"}
    explainer = Explainer(network(**kind), method=method, score=score, counterfactual=counterfactual, **where)
    [[one]] = explainer(IMAGE)
    return one


@pytest.mark.parametrize("candidates", [True, False])
@pytest.mark.parametrize("at", range(4))
def test_an_edge_is_explained_by_its_gradient_times_the_activation(at, candidates):
    cells = torch.arange(1.0, 5) / 10
    wanted = (WEIGHTS[at] * cells).reshape(2, 2).numpy()
    one = explain(EDGES[at], candidates=candidates)
    np.testing.assert_allclose(one.map, wanted, rtol=1e-5)
    assert one.score == pytest.approx(float(WEIGHTS[at] @ cells) + (0, 1, 2, 2)[at])
    assert one.box[at] == pytest.approx(one.score)
    if at == 1:
        with pytest.raises(PictureError, match="nothing at the layer 'layer' raises its score"):
            explain(EDGES[at], "odam", candidates=candidates)
    else:
        raised = explain(EDGES[at], "odam", candidates=candidates)
        np.testing.assert_allclose(raised.map, np.maximum(wanted, 0), rtol=1e-5)
    lowered = explain(EDGES[at], counterfactual=True, candidates=candidates)
    np.testing.assert_allclose(lowered.map, -wanted, rtol=1e-5)


@pytest.mark.parametrize("candidates", [True, False])
def test_boxes_without_a_gradient_are_refused(candidates):
    with pytest.raises(RequestError, match="gives its boxes without a gradient"):
        explain("box-left", attached=False, candidates=candidates)


def test_methods_without_a_gradient_explain_no_edge():
    with pytest.raises(RequestError, match="no score of a class"):
        explain("box-left", "rise")


def test_what_is_no_detector_has_no_edges():
    with pytest.raises(RequestError, match="'box-top' is an edge of a box, and this model finds none"):
        Explainer(nn.Sequential(nn.Conv2d(3, 2, 1)), score="box-top")
