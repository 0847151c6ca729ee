"""Lines of equal heat lie where the heat has their level, and leave the image as it is elsewhere."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from drawings import GRADIENT, SQUASH, STYLE, UNTRAINED, explanation, picture

from camcli.engine.explanation import Concept
from camcli.outputs import COLORMAPS, contour, draw
from camcli.outputs.contour import draw_contours
from camcli.outputs.style import concept_colour

# From 0 at the left to 1 at the right.
RAMP = np.tile(np.linspace(0, 1, 29, dtype=np.float32), (28, 1))
SEEN = picture(800, 600, SQUASH)


def changed(drawn, seen=SEEN):
    return (drawn != seen.pixels).any(2)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_lines_lie_at_quarters_of_the_peak_in_their_colours(colormap):
    drawn = draw_contours(SEEN, explanation(RAMP), replace(STYLE, colormap=colormap))
    columns = np.flatnonzero(changed(drawn).any(0))
    lines = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    heat = SEEN.view.enlarge(RAMP)[300]
    assert [round(float(heat[line].mean()), 2) for line in lines] == [0.25, 0.5, 0.75]
    assert all(6 <= len(line) <= 9 for line in lines)
    inner = [drawn[300, round(line.mean())].astype(int) for line in lines]
    assert all(one.max() > 125 for one in inner)
    assert all(np.abs(one - other).sum() > 40 for one, other in pairwise(inner))


@pytest.mark.parametrize("map_", [np.zeros((7, 7), np.float32), np.ones((1, 1), np.float32), 0 * GRADIENT])
def test_flat_maps_have_no_lines(map_):
    assert not changed(draw_contours(SEEN, explanation(map_), STYLE)).any()


@pytest.mark.parametrize("outside", ["dim", "hatch", "hide", "keep"])
def test_the_unseen_part_is_as_in_an_overlay(outside):
    seen, style = picture(), replace(STYLE, outside=outside)
    drawn = draw_contours(seen, explanation(), style)
    heat = seen.view.enlarge(np.zeros((7, 7), np.float32))
    blank = draw.blend(seen.pixels, heat, replace(style, alpha=0.0))
    blank = draw.frame(blank, seen.view) if outside == "dim" else blank
    assert np.array_equal(drawn[np.isnan(heat)], blank[np.isnan(heat)])
    assert not np.array_equal(drawn, blank)


def test_a_scale_moves_the_lines_and_strips_do_not(monkeypatch):
    whole = draw_contours(SEEN, explanation(), STYLE)
    monkeypatch.setattr(contour, "STRIP_PIXELS", 800 * 7)
    assert np.array_equal(draw_contours(SEEN, explanation(), STYLE), whole)
    half = draw_contours(SEEN, explanation(RAMP), replace(STYLE, normalize="run", scale=2.0))
    assert np.ptp(np.flatnonzero(changed(half).any(0))) == pytest.approx(400, abs=16)


def test_lines_around_a_gradient_are_few():
    lines = changed(draw_contours(SEEN, explanation(GRADIENT**9), STYLE))
    assert 10 < cv2.connectedComponents(lines.view(np.uint8))[0] < 100


def test_each_concept_has_a_line_at_half_the_peak_in_its_colour():
    amounts = np.stack([RAMP, RAMP[:, ::-1] ** 3])
    two = replace(explanation(amounts), concepts=(Concept(1, 0.6), Concept(2, 0.4)), index=None)
    drawn = draw_contours(SEEN, two, STYLE)
    for number, map_ in enumerate(amounts, start=1):
        middle = np.abs(SEEN.view.enlarge(map_)[300] - 0.5).argmin()
        np.testing.assert_allclose(drawn[300, middle], concept_colour(number), atol=2)


def test_untrained_weights_are_said_and_small_images_drawn():
    assert (draw_contours(SEEN, explanation(), UNTRAINED)[-1] == (255, 196, 0)).all()
    for size in ((1, 1), (1, 40), (40, 1)):
        assert draw_contours(picture(*size), explanation(), STYLE).shape == (size[1], size[0], 3)
