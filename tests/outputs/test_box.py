"""The box around the strongest region: its numbers by hand, against SciPy, where there is none, and how it is drawn."""

from dataclasses import replace

import numpy as np
import pytest
from drawings import GRADIENT, PREPARE, SQUASH, STYLE, UNTRAINED, drawn, explanation, picture

from camcli.base.errors import PictureError
from camcli.engine.explanation import Concept
from camcli.images.view import View
from camcli.outputs.box import find_box

RANGE = replace(STYLE, normalize="range")
# Each of six by eight cells has the size of a pixel of the image, and of two by two of the input.
PIXELS = View((6, 8), (12, 16), (0.0, 0.0, 8.0, 6.0))
BY_HAND = np.array(
    [
        [0, 0, 0, 0, 0, 0, 9, 0],  # the maximum, alone
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 2, 2, 0, 0, 0, 0, 0],  # eight at more than 20 % of 9 = 1.8, one of them by its corner
        [0, 2, 2, 2, 0, 0, 0, 0],
        [1.8, 0, 2, 2, 0, 0, 0, 0],
        [0, 0, 0, -5, 2, 0, 0, 0],
    ],
    np.float32,
)


def box_of(map_, view=PIXELS, style=STYLE, threshold=0.2):
    return find_box(view, explanation(map_), style, threshold)


def test_the_box_holds_the_largest_region_above_a_share_of_the_maximum_by_hand():
    assert box_of(BY_HAND) == (1, 2, 4, 4)
    assert box_of(BY_HAND, threshold=0.25) == (6, 0, 1, 1)
    for style in (RANGE, replace(STYLE, normalize="none"), replace(STYLE, normalize="run")):
        assert box_of(BY_HAND, style=style) == (1, 2, 4, 4)
    # From the minimum, 9 and 2 are as far as before; what was negative counts as zero.
    assert box_of(np.floor(np.maximum(BY_HAND, 0)) + 100, style=RANGE) == (1, 2, 4, 4)


@pytest.mark.parametrize("preprocess", [PREPARE, SQUASH])
@pytest.mark.parametrize("seed", range(3))
def test_the_box_is_scipys_on_the_enlarged_map(preprocess, seed):
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is no dependency; CI has it later")
    view = picture(300, 200, preprocess).view
    map_ = np.random.default_rng(seed).standard_normal((7, 7)).astype(np.float32)
    heat = view.enlarge(np.maximum(map_, 0))
    labels, count = ndimage.label(heat > 0.2 * np.nanmax(heat), np.ones((3, 3)))
    largest = 1 + np.argmax(ndimage.sum_labels(np.ones_like(heat), labels, range(1, count + 1)))
    rows, columns = ndimage.find_objects(labels)[largest - 1]
    expected = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
    assert box_of(map_, view) == expected


@pytest.mark.parametrize(
    ("map_", "style", "reason"),
    [
        (np.zeros((6, 8)), STYLE, "no value of the map is above zero"),
        (-np.ones((6, 8)), STYLE, "no value of the map is above zero"),
        (np.ones((6, 8)), STYLE, "above 20% of its maximum in all that the model saw"),
        (np.ones((6, 8)), RANGE, "above 20% of its maximum in all that the model saw"),
        (BY_HAND + 9, STYLE, "above 20% of its maximum in all that the model saw"),
        (BY_HAND * np.nan, STYLE, "not finite"),
    ],
)
def test_where_there_is_no_box_the_reason_is_said(map_, style, reason):
    with pytest.raises(PictureError, match=reason):
        box_of(map_.astype(np.float32), style=style)


def test_concepts_have_no_box():
    two = replace(explanation(np.stack([BY_HAND] * 2)), concepts=(Concept(1, 0.5), Concept(2, 0.5)), index=None)
    with pytest.raises(PictureError, match="concepts have no box"):
        find_box(PIXELS, two, STYLE)


def test_scattered_pixels_of_a_gradient_are_one_region():
    gradient = np.zeros_like(GRADIENT)
    gradient[0, 50:90:2, 60:140:2] = -1
    x, y, width, height = box_of(gradient, View((224, 224), (224, 224), (0.0, 0.0, 224.0, 224.0)))
    assert (x, y) == pytest.approx((55, 45), abs=5)
    assert (width, height) == pytest.approx((88, 48), abs=8)


@pytest.mark.parametrize("style", [STYLE, UNTRAINED])
def test_the_box_is_drawn_along_its_inner_edge_and_nothing_else_changes(style):
    seen = replace(picture(800, 600, SQUASH), pixels=np.full((600, 800, 3), 128, np.uint8))
    x, y, width, height = find_box(seen.view, explanation(), style)
    page = drawn("box", seen, explanation(), style).astype(int)[:500]
    changed = np.argwhere(np.abs(page - 128).max(2) > 40)
    assert changed.min(0) == pytest.approx((y, x), abs=1)
    assert changed.max(0) == pytest.approx((min(500, y + height) - 1, x + width - 1), abs=1)
    assert (np.abs(page[y + 12 : y + height - 12, x + 12 : x + width - 12] - 128) < 12).all()
    assert page[y + 3, x + width // 2].sum() > 500  # the line
    assert page[y, x + width // 2].sum() < 150  # its outline
