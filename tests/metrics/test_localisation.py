"""Metrics of maps alone and of maps and boxes, by hand; and what theory says of controls."""

import numpy as np
import pytest

from camcli.metrics import CONTROLS, METRICS
from camcli.metrics.bind import bind_metrics
from camcli.metrics.bootstrap import bootstrap_mean
from camcli.metrics.complexity import effective_area, entropy, sparseness
from camcli.metrics.localisation import (
    box_accuracy,
    energy_in_box,
    iou,
    pointing_game,
    pool_box_accuracy,
    relevance_rank,
)

# Rows 1 and 2 of four.
REGION = np.zeros((4, 6), bool)
REGION[1:3, :3] = True


def peaks(*places: tuple[int, int]) -> np.ndarray:
    map = np.zeros((1, 4, 6), np.float32)
    for place in places:
        map[0, *place] = 2
    return map


@pytest.mark.parametrize(
    ("places", "tolerance", "hits"),
    [
        ([(1, 0)], 0, 1),
        ([(1, 3)], 0, 0),
        ([(1, 3)], 1, 1),
        ([(0, 3)], 1, 0),  # it is the root of 2 away
        ([(0, 3)], 1.5, 1),
        ([(1, 0), (1, 3)], 0, 0.5),  # of peaks that tie each counts
        ([(1, 5), (1, 3), (1, 4), (2, 2)], 0, 0.25),
    ],
)
def test_pointing_game_by_hand(places: list, tolerance: float, hits: float) -> None:
    assert pointing_game(peaks(*places), REGION, tolerance=float(tolerance)) == [hits]


def test_energy_and_overlap_by_hand() -> None:
    map = np.full((1, 4, 6), -5, np.float32)
    map[0, 1, :4] = (4, 3, 2, 1)
    assert energy_in_box(map, REGION) == pytest.approx([0.9])
    # From 2 on: three pixels, all in the box of six. From 0.8 on: four, three of them in it.
    assert iou(map, REGION, threshold=0.5) == pytest.approx([3 / 6])
    assert iou(map, REGION, threshold=0.2) == pytest.approx([3 / 7])


def test_relevance_rank_by_hand() -> None:
    # Six pixels are the object's; of the six greatest, 12 to 7, four are in it.
    map = np.zeros((1, 4, 6), np.float32)
    map[0, 1, :5] = (12, 11, 10, 9, 8)
    map[0, 2, 0] = 7
    assert relevance_rank(map, REGION) == pytest.approx([4 / 6])
    # Five are greatest, three of them in it; 19 tie for the last place, three of them in it.
    map[0, 2, 0] = 0
    assert relevance_rank(map, REGION) == pytest.approx([(3 + 3 / 19) / 6])
    assert relevance_rank(REGION[None].astype(np.float32), REGION) == [1]
    assert np.isnan(relevance_rank(map, np.zeros_like(REGION)))


def test_box_accuracy_by_hand() -> None:
    # Two parts: columns 0 to 2 of rows 1 and 2 at 4, of which the lower row falls to 2; and a stronger one elsewhere.
    map = np.zeros((1, 4, 6), np.float32)
    map[0, 1:3, :3] = [[4], [2]]
    map[0, 3, 5] = 8
    boxes = np.array([[0, 1, 3, 4.0]])  # rows 1 to 3
    # From 0: all 24 cells, 9/24. From 2: 6/9. From 4: 3/9. From 6: the other part, 0.
    [value], [curve] = box_accuracy(map, boxes, thresholds=4)
    np.testing.assert_array_equal(curve.reshape(3, 4), [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    assert value == pytest.approx(2 / 3)
    # Over several images the threshold is one for all: of two that are found at different ones half is.
    found = np.array([[1, 0], [0, 1.0]])
    curves = np.concatenate([found, found, np.zeros((2, 2))], 1)
    assert pool_box_accuracy(curves) == pytest.approx([2 / 3, 2 / 3])
    assert pool_box_accuracy(curves.mean(0)[None]) == pytest.approx([(1 / 2 + 1 / 2 + 0) / 3])
    # The best of several boxes counts, and of several parts.
    assert box_accuracy(map, np.array([[0, 0, 1, 1.0], [5, 3, 6, 4]]), thresholds=4)[0] == [1]
    assert np.isnan(box_accuracy(map, np.empty((0, 4)))[0])
    assert np.isnan(box_accuracy(-map, boxes)[0])


def test_what_is_undefined_without_a_box_or_a_positive_value() -> None:
    for metric in (pointing_game, energy_in_box, iou):
        assert np.isnan(metric(peaks((1, 1)), np.zeros_like(REGION))).all()
        assert np.isnan(metric(-peaks((1, 1)), REGION)).all()


def test_concentration_by_hand() -> None:
    maps = np.array([[[1, 1], [1, 1]], [[0, 0], [-3, 0]], [[1, 0], [1, 0]], [[1, 2], [3, 4]], [[0, 0], [0, 0]]])
    maps = maps.astype(np.float32)
    np.testing.assert_allclose(sparseness(maps), [0, 0.75, 0.5, 0.25, np.nan], atol=1e-12)
    halves = np.array([0.1, 0.2, 0.3, 0.4])
    most = -(halves * np.log(halves)).sum() / np.log(4)
    np.testing.assert_allclose(entropy(maps), [1, 0, 0.5, most, np.nan], atol=1e-12)
    np.testing.assert_allclose(effective_area(maps), [1, 0.25, 0.5, 10**2 / (4 * 30), np.nan])


def test_controls_score_what_theory_says() -> None:
    image = np.random.default_rng(0).random((3, 100, 80), np.float32)
    maps = {name: CONTROLS.load(name)(image, np.random.default_rng(1))[None] for name in CONTROLS.names()}
    region = np.zeros((100, 80), bool)
    region[20:70, 10:30] = True  # an eighth
    assert energy_in_box(maps["uniform"], region) == [0.125]
    assert iou(maps["uniform"], region) == [0.125]
    assert pointing_game(maps["uniform"], region, tolerance=0.0) == [0.125]
    assert relevance_rank(maps["uniform"], region) == pytest.approx([0.125])
    assert relevance_rank(maps["random"], region) == pytest.approx([0.125], abs=0.03)
    assert (sparseness(maps["uniform"]), effective_area(maps["uniform"])) == (pytest.approx([0]), pytest.approx([1]))
    assert entropy(maps["uniform"]) == pytest.approx([1])
    # Of numbers uniform from 0 to 1: mean 1/2, mean square 1/3.
    assert energy_in_box(maps["random"], region) == pytest.approx([0.125], abs=0.005)
    assert sparseness(maps["random"]) == pytest.approx([1 / 3], abs=0.01)
    assert effective_area(maps["random"]) == pytest.approx([0.75], abs=0.01)
    centre = maps["centre"][0]
    assert centre == pytest.approx(centre[::-1, ::-1])
    assert np.unravel_index(centre.argmax(), centre.shape) in [(row, at) for row in (49, 50) for at in (39, 40)]
    assert all(map.dtype == np.float32 and map.shape == (1, 100, 80) for map in maps.values())
    assert all(map.min() >= 0 for map in maps.values())


# ---- intervals


def test_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_mean(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert (low, high) == bootstrap_mean(values)
    assert (low, high) != bootstrap_mean(values, seed=1)


def test_interval_of_two_numbers_and_of_less() -> None:
    # Half of the samples are of both numbers, a quarter of each alone.
    assert bootstrap_mean(np.array([1.0, 3.0])) == (1, 3)
    assert bootstrap_mean(np.array([2.0, 2.0, 2.0])) == (2, 2)
    assert bootstrap_mean(np.array([2.0])) is None
    assert bootstrap_mean(np.array([])) is None


# ---- the registry


def test_every_row_has_what_a_reader_needs() -> None:
    for metric in bind_metrics(METRICS.names(), (), with_objects=True):
        assert (metric.count_passes(3) > 0) == bool({"score_of", "explain_again"} & {*metric.given_names})
        assert metric.row.summary
        assert metric.row.source
        assert metric.row.settings.items() <= metric.settings.items()
    assert {row.name for row in METRICS.rows if not row.better} == {"sparseness", "entropy", "effective-area"}
