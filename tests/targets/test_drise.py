"""D-RISE: a box in changed images is scored by the greatest similarity of any box found there, worked by hand."""

import numpy as np
import pytest
import torch
from shape_finder import compose, shape_finder

from camcli import Explainer, OutputSpec, RequestError

BOX = [0.0, 0, 4, 4]


def read(*images, names=("a", "b")):
    return OutputSpec("detect").read(list(images), len(images), names)


def found(corners, labels, scores, **candidates):
    one = {"boxes": torch.tensor(corners).reshape(-1, 4), "labels": torch.tensor(labels).long()}
    one["scores"] = torch.tensor(scores)
    return one | ({"candidates": candidates} if candidates else {})


def test_the_similarity_by_hand_of_labels_and_scores():
    """Another image has a box of half the overlap (IoU 8/16) and score 0.8, and a full overlap of another class."""
    before = read(found([BOX], [0], [0.9]))
    after = read(found([[0.0, 0, 2, 4], BOX], [0, 1], [0.8, 0.9]), found([], [], []))
    [target] = before.find_targets(0, 0)
    assert float(after.score_target(0, target)) == pytest.approx(0.5 * 1 * 0.8)
    assert float(after.score_target(1, target)) == 0


def test_the_similarity_by_hand_of_candidates():
    """Sigmoids of (ln 3, -ln 3) are (3/4, 1/4); of its mirror image (1/4, 3/4): cosine 6/10. Objectness 1/2."""
    three = float(np.log(3))
    logits = torch.tensor([[three, -three], [-three, three]])
    given = {"boxes": torch.tensor([BOX, [0.0, 0, 4, 2]]), "logits": logits, "activation": "sigmoid"}
    before = read(found([BOX], [0], [0.75], **given, kept=torch.tensor([0])))
    [target] = before.find_targets(0, 0)
    after = read(found([[0.0, 0, 4, 2]], [1], [0.75], **given, kept=torch.tensor([1])))
    assert float(after.score_target(0, target)) == pytest.approx(0.5 * 0.6)
    unsure = read(found([BOX], [0], [0.75], **given, kept=torch.tensor([0]), objectness=torch.zeros(2)))
    assert float(unsure.score_target(0, target)) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_map_of_a_found_shape_peaks_in_its_box():
    image = compose([(0, 18, 18, 9), (1, 46, 46, 9)], seed=3)[None]
    explainer = Explainer(shape_finder(), method="rise", options={"samples": 300, "cells": 8, "center": True})
    some = explainer(image)[0]
    assert {one.method for one in some} == {"rise"}
    for one in some:
        row, column = np.unravel_index(one.map.argmax(), one.map.shape)
        x0, y0, x1, y1 = one.box
        assert x0 - 4 <= column <= x1 + 4
        assert y0 - 4 <= row <= y1 + 4
    assert any("D-RISE" in note for note in explainer.notes)


def test_it_needs_no_gradient_and_explains_no_other_score():
    network = shape_finder(trained=False)
    for options in ({"score": "probability"}, {"counterfactual": True}):
        with pytest.raises(RequestError, match="no score of a class"):
            Explainer(network, method="d-rise", **options)
    for method in ("occlusion", "scorecam"):
        with pytest.raises(RequestError, match="finds other boxes in a changed image"):
            Explainer(network, method=method)
