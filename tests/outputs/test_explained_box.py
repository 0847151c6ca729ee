"""A detector's box over its map: where it is drawn, that it shows on any image, and the true box beside it."""

from dataclasses import replace

import numpy as np
import pytest
from drawings import STYLE, drawn, explanation, picture

from camcli.outputs import panel
from camcli.outputs.explained_box import draw_explained_box

BOXED = replace(explanation(), box=(4.0, 2.0, 24.0, 22.0), number=1)


@pytest.mark.parametrize("ground", [0, 127, 255])
def test_the_box_is_white_between_black_lines_inside_its_edges(ground):
    pixels = np.full((30, 40, 3), ground, np.uint8)
    found = draw_explained_box(pixels, BOXED, (30, 40))
    assert [*found[10, 4:8, 0]] == [0, 255, 255, 0]
    assert [*found[10, 20:24, 0]] == [0, 255, 255, 0]
    assert [*found[2:6, 10, 0]] == [0, 255, 255, 0]
    found[2:22, 4:24] = ground
    found[6:18, 8:20] = ground
    assert np.array_equal(found, pixels)
    assert (pixels == ground).all()


def test_the_true_box_is_dashed_and_the_explained_one_is_not():
    both = replace(BOXED, true_box=(4.0, 2.0, 34.0, 28.0))
    found = draw_explained_box(np.full((30, 40, 3), 127, np.uint8), both, (30, 40))
    right = found[2:28, 33, 0]
    assert set(right.tolist()) == {0, 255}
    assert 3 <= np.count_nonzero(np.diff(right.astype(int))) <= 5
    assert [*found[10, 22:24, 0]] == [255, 0]


def test_the_box_follows_the_size_of_the_drawing_and_small_ones_are_drawn_whole():
    found = draw_explained_box(np.full((60, 80, 3), 127, np.uint8), BOXED, (30, 40))
    assert np.argwhere(found[..., 0] != 127).min(0).tolist() == [4, 8]
    assert np.argwhere(found[..., 0] != 127).max(0).tolist() == [43, 47]
    tiny = draw_explained_box(np.full((30, 40, 3), 127, np.uint8), replace(BOXED, box=(4.0, 2.0, 6.0, 4.0)), (30, 40))
    assert np.count_nonzero(tiny[..., 0] != 127) == 4
    none = replace(BOXED, box=(4.0, 2.0, 4.0, 2.0))
    assert (draw_explained_box(np.full((30, 40, 3), 127, np.uint8), none, (30, 40)) == 127).all()


def test_overlays_have_the_box_and_nothing_else_changes():
    boxed = replace(explanation(), box=(40.0, 30.0, 200.0, 150.0), number=1)
    changed = np.argwhere(
        (drawn("overlay-png", picture(), boxed, STYLE) != drawn("overlay-png", picture(), explanation(), STYLE)).any(2)
    )
    assert (changed.min(0).tolist(), changed.max(0).tolist()) == ([30, 40], [149, 199])


def test_the_box_is_at_its_place_in_a_strip_of_which_a_part_is_shown():
    boxed = replace(explanation(), box=(2470.0, 2.0, 2490.0, 18.0), number=1)
    sheet = drawn("panel", picture(5000, 20), boxed, STYLE)
    assert (sheet != drawn("panel", picture(5000, 20), explanation(), STYLE)).any()
    said = [text for _, _, text in panel.footing(picture(), picture(), replace(boxed, true_box=boxed.box), STYLE)]
    assert "dashed: the true box" in said
