"""Similarity of an image's maps: of the same cells, wherever these lie, and of others over the image."""

import numpy as np
import pytest

from camcli.images.placement import Placement
from camcli.images.view import View
from camcli.metrics import similarity
from camcli.runs.worker.map_similarity import MEASURES, MeanSimilarity, PlacedMap, measure_similarity

VIEW = View((64, 64), (64, 64), (0.0, 0.0, 64.0, 64.0))
# Cells of 16 pixels whose centres lie two pixels further to the right and below than if they shared the input evenly.
SHIFTED = VIEW.placed(Placement((10.0, 10.0), (16.0, 16.0)))


def draw(seed: int, side: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).random((side, side), np.float32)


def test_ssim_is_over_the_whole_input_where_cells_have_measured_places() -> None:
    maps = [draw(1), draw(2)]
    pixels = np.stack([SHIFTED.onto_picture(map) for map in maps])
    found, same = measure_similarity([PlacedMap(map, SHIFTED) for map in maps])
    assert found["ssim"][0, 1] == pytest.approx(similarity.ssim(pixels)[0, 1])
    assert found["pearson"][0, 1] == pytest.approx(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])
    assert same.all()


def test_maps_of_other_cells_are_compared_over_the_image_and_a_missing_one_is_undefined() -> None:
    maps = [PlacedMap(draw(1), VIEW), None, PlacedMap(draw(2, 8), VIEW), PlacedMap(draw(3), VIEW)]
    found, same = measure_similarity(maps)
    assert same.tolist() == [
        [True, False, False, True],
        [False, False, False, False],
        [False, False, True, False],
        [True, False, False, True],
    ]
    drawn = [VIEW.onto_picture(one.map).ravel() for one in maps if one]
    assert found["pearson"][0, 2] == pytest.approx(np.corrcoef(drawn[0], drawn[1])[0, 1])
    assert found["pearson"][0, 3] == pytest.approx(np.corrcoef(draw(1).ravel(), draw(3).ravel())[0, 1])
    for name in MEASURES:
        assert np.isnan(found[name][1]).all()
        assert np.allclose(found[name], found[name].T, equal_nan=True)


def test_models_that_see_no_part_in_common_are_not_compared() -> None:
    left, right = (View((32, 64), (32, 32), (x, 0.0, x + 32.0, 32.0)) for x in (0.0, 32.0))
    found, _ = measure_similarity([PlacedMap(draw(1), left), PlacedMap(draw(2), right)])
    assert all(np.isnan(found[name][0, 1]) for name in MEASURES)


def test_means_are_over_the_images_in_which_a_pair_is_defined() -> None:
    sums = MeanSimilarity(2)
    for value in (0.25, 0.75, np.nan):
        sums.add(dict.fromkeys(MEASURES, np.array([[1.0, value], [value, 1.0]])))
    assert sums.average()["ssim"][0, 1] == 0.5
    assert sums.counts["ssim"].tolist() == [[3, 2], [2, 3]]
    off = ~np.eye(2, dtype=bool)
    assert sums.average_pairs(off)["overlap"] == 0.5
    assert sums.average_pairs(np.zeros((2, 2), bool))["overlap"] is None
