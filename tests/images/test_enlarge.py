"""A map enlarged to be looked at: smooth, through the cells' values, never stronger than the strongest cell."""

import numpy as np
import pytest

from camcli.images.placement import Placement
from camcli.images.view import View

WHOLE = View((161, 161), (224, 224), (0.0, 0.0, 161.0, 161.0))
PLACED = View((161, 161), (224, 224), (0.0, 0.0, 161.0, 161.0), Placement((16.0, 20.0), (30.0, 31.0)))


def random(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("view", [WHOLE, PLACED])
def test_every_cell_keeps_its_value_at_its_centre(view):
    map = random(7, 7)
    enlarged = view.scale(161 * 7, 161 * 7).enlarge(map)
    for row, column in np.ndindex(7, 7):
        x, y = view.scale(161 * 7, 161 * 7).cell_centre(row, column, (7, 7))
        assert enlarged[int(y), int(x)] == pytest.approx(map[row, column], abs=0.03)


@pytest.mark.parametrize("view", [WHOLE, PLACED])
def test_no_place_is_stronger_than_the_strongest_cell_or_weaker_than_the_weakest(view):
    map = random(5, 9)
    enlarged = view.enlarge(map)
    assert enlarged.min() == map.min()
    assert enlarged.max() == map.max()


def test_a_constant_map_stays_constant_and_one_cell_is_enough():
    assert np.unique(PLACED.enlarge(np.full((7, 7), 0.3, np.float32))).tolist() == [np.float32(0.3)]
    assert np.unique(WHOLE.enlarge(np.full((1, 1), 0.3, np.float32))).tolist() == [np.float32(0.3)]


def test_a_slope_stays_a_slope():
    slope = np.tile(np.arange(7, dtype=np.float32), (7, 1))
    inner = WHOLE.enlarge(slope)[80, 40:120]
    np.testing.assert_allclose(np.diff(inner), 7 / 161, atol=1e-5)


def test_it_has_no_bends_where_bilinear_has():
    map = np.zeros((7, 7), np.float32)
    map[3, 3] = 1

    def bend(drawn):
        return np.abs(np.diff(drawn[80], 2)).max()

    assert bend(WHOLE.enlarge(map)) < bend(WHOLE.onto_picture(map)) / 3
    # Round: as strong on the diagonal as beside it, where bilinear has the arms of a star.
    across, aslant = WHOLE.enlarge(map)[80, 80 + 17], WHOLE.enlarge(map)[80 + 12, 80 + 12]
    assert across == pytest.approx(aslant, abs=0.05)


def test_it_covers_what_the_model_saw_and_mirrors():
    view = View((100, 140), (224, 224), (20.0, -10.0, 130.0, 100.0))
    map = random(7, 7)
    enlarged = view.enlarge(map)
    assert np.array_equal(np.isnan(enlarged), np.isnan(view.onto_picture(map)))
    mirrored = View((100, 140), (224, 224), (10.0, -10.0, 120.0, 100.0)).enlarge(map[:, ::-1])
    np.testing.assert_allclose(enlarged, mirrored[:, ::-1], atol=1e-6)


def test_a_map_as_fine_as_the_input_is_bilinear():
    view, map = View((50, 60), (16, 24), (0.0, 0.0, 60.0, 50.0)), random(16, 24)
    assert np.array_equal(view.enlarge(map), view.onto_picture(map))


def test_a_strip_of_unseen_pixels_is_no_error():
    assert np.isnan(View((1, 50), (224, 224), (0.0, 0.6, 50.0, 0.9)).enlarge(random(7, 7))).all()
