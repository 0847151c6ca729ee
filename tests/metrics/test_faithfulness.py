"""Metrics that change the image: worked out by hand, and where a linear score has a known best map."""

from itertools import permutations

import numpy as np
import pytest
from planted import plant_in_image

from camcli.base.errors import RequestError
from camcli.metrics import CONTROLS, faithfulness
from camcli.metrics.controls import blur_map
from camcli.metrics.faithfulness import average_drop, average_increase, fill_image
from camcli.metrics.imputation import impute


def deletion(*given, **settings) -> np.ndarray:
    """The areas without the curves."""
    return faithfulness.deletion(*given, **settings)[0]


def insertion(*given, **settings) -> np.ndarray:
    return faithfulness.insertion(*given, **settings)[0]


def road(*given, **settings) -> np.ndarray:
    return faithfulness.road(*given, **settings)[0]


SQUARE = np.array([[[4, 2], [1, 1]]], np.float32)  # its mean is 2
FALLING = np.array([[[4, 3], [2, 1]]], np.float32)


def scoring(weights: np.ndarray):
    """A score linear in the pixels: those of the weights, times these, summed."""
    return lambda variants: ((one * weights).sum((1, 2, 3)).astype(np.float64) for one in variants)


def score(weights: np.ndarray, image: np.ndarray) -> float:
    """The image's own score."""
    return next(scoring(weights)([image[None]]))[0]


def test_deletion_and_insertion_by_hand() -> None:
    # Whole 8; pixel by pixel to the mean: 6, 6, 7, 8. Trapezoids over quarters: (4 + 6 + 6 + 7 + 4) / 4.
    score_of = scoring(np.ones((2, 2)))
    assert deletion(FALLING, SQUARE, score_of, fill="mean", steps=4) == pytest.approx([6.75])
    # From 8 = 4 * 2: 10, 10, 9, 8.
    assert insertion(FALLING, SQUARE, score_of, fill="mean", steps=4) == pytest.approx([9.25])
    assert insertion(-FALLING, SQUARE, score_of, fill="mean", steps=4) == pytest.approx([6.75])


def test_curves_by_hand() -> None:
    score_of = scoring(np.ones((2, 2)))
    maps = np.concatenate([FALLING, np.ones((1, 2, 2), np.float32)])
    _, curves = faithfulness.deletion(maps, SQUARE, score_of, fill="mean", steps=4)
    np.testing.assert_allclose(curves, [[8, 6, 6, 7, 8], [np.nan] * 5])
    areas, curves = faithfulness.road(FALLING, SQUARE, score_of, steps=2)
    assert curves.shape == (1, 2)
    assert areas == pytest.approx(curves.mean(1))


def test_pixels_that_tie_are_a_draw_from_all_their_orders() -> None:
    score_of = scoring(np.array([[3, -1], [2, 5]]))
    # The first pixel is first, and the others tie.
    orders = np.array([[9, *order] for order in permutations(range(3))], np.float32).reshape(-1, 2, 2)
    tied = np.array([[[9, 1], [1, 1]]], np.float32)
    for metric in (deletion, insertion):
        each = metric(orders, SQUARE, score_of, fill="mean", steps=4)
        draws = [metric(tied, SQUARE, score_of, fill="mean", steps=4, seed=seed)[0] for seed in range(200)]
        assert np.unique(draws) == pytest.approx(np.unique(each))
        assert np.mean(draws) == pytest.approx(each.mean(), abs=4 * each.std() / 200**0.5)


def test_a_constant_map_is_undefined_and_no_step_is_refused() -> None:
    for metric in (deletion, insertion):
        assert np.isnan(metric(np.ones((1, 2, 2), np.float32), SQUARE, scoring(np.ones((2, 2)))))
    with pytest.raises(RequestError, match="steps=0"):
        deletion(FALLING, SQUARE, scoring(np.ones((2, 2))), steps=0)


def test_other_maps_of_the_image_change_nothing() -> None:
    rng = np.random.default_rng(0)
    maps, image = rng.random((4, 8, 8), np.float32), rng.random((2, 8, 8), np.float32)
    maps[1] = 3
    score_of = scoring(rng.random((2, 8, 8)))
    for metric in (deletion, insertion, road, average_drop, average_increase):
        together = metric(maps, image, score_of)
        alone = [metric(maps[[row]], image, score_of)[0] for row in range(4)]
        np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_what_does_not_depend_on_the_map_is_scored_once() -> None:
    maps, lengths = np.random.default_rng(0).random((5, 8, 8), np.float32), []
    maps[2] = 0

    def score_of(variants):
        for one in variants:
            lengths.append(len(one))
            yield np.zeros(len(one))

    insertion(maps, np.ones((1, 8, 8), np.float32), score_of)
    assert lengths == [2, *[4] * 9]


# ---- a planted object


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    return plant_in_image()


def rivals(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The controls, and a blurred copy of the truth."""
    rng = np.random.default_rng(2)
    names = [name for name in CONTROLS.names() if name != "uniform"]
    return np.stack([blur_map(truth), *(CONTROLS.load(name)(image, rng) for name in names)])


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_the_parts_of_a_linear_score_beat_every_control(planted, fill: str) -> None:
    image, weights = planted
    truth = (weights * (image - fill_image(image, fill))).sum(0)[None]
    others = rivals(image, truth[0])
    score_of = scoring(weights)
    [best] = deletion(truth, image, score_of, fill=fill)
    assert (best < deletion(others, image, score_of, fill=fill)).all()
    [best] = insertion(truth, image, score_of, fill=fill)
    assert (best > insertion(others, image, score_of, fill=fill)).all()


def test_in_random_order_a_linear_score_falls_evenly(planted) -> None:
    image, weights = planted
    score_of, noise = scoring(weights), CONTROLS.load("random")(image, np.random.default_rng(0))[None]
    whole, filled = (score(weights, one) for one in (image, fill_image(image, "mean")))
    for metric in (deletion, insertion):
        found = metric(noise, image, score_of, fill="mean")
        assert found == pytest.approx([(whole + filled) / 2], abs=0.1 * (whole - filled))


def test_road_of_the_object_beats_every_control(planted) -> None:
    image, weights = planted
    truth, score_of = (weights * image.sum(0))[None], scoring(weights)
    others = np.stack([CONTROLS.load(name)(image, np.random.default_rng(2)) for name in ("smooth-random", "centre")])
    assert (road(truth, image, score_of, steps=3) < road(others, image, score_of, steps=3)).all()
    # Of a tenth of the pixels that are never removed, the object is less: it stays whole.
    least = road(truth, image, score_of, steps=3, first="least")
    assert least == pytest.approx([score(weights, image)])
    assert (least > road(others, image, score_of, steps=3, first="least")).all()


# ---- ROAD


def test_road_removes_these_shares() -> None:
    rng = np.random.default_rng(3)
    image, map = rng.random((1, 20, 20), np.float32), rng.random((1, 20, 20), np.float32)
    shares: list[float] = []

    def score_of(variants):
        for one in variants:
            changed = (one[0] != image)[0]
            shares.append(changed.mean())
            assert map[0][changed].min() > map[0][~changed].max()
            yield np.zeros(1)

    road(map, image, score_of, noise=0.0)
    assert shares == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


def test_road_of_a_constant_map_is_undefined_and_ties_are_not() -> None:
    image = np.random.default_rng(4).random((1, 12, 12), np.float32)
    maps = np.zeros((2, 12, 12), np.float32)
    maps[1, 3, 3] = 1
    assert np.isnan(road(maps, image, scoring(np.ones((12, 12))))).tolist() == [True, False]


def test_imputation_continues_what_is_linear() -> None:
    down, across = np.mgrid[:30, :40].astype(np.float32)
    image = np.stack([down + 2 * across, np.full_like(down, 7)]) / 40
    removed = np.zeros((30, 40), bool)
    removed[4:26, 3:33] = True
    removed[10, 12] = False
    found = impute(image, removed, np.zeros_like(image))
    np.testing.assert_array_equal(found[:, ~removed], image[:, ~removed])
    assert np.abs(found - image).max() < 0.01 * np.ptp(image)


def test_imputation_treats_each_channel_alike() -> None:
    rng = np.random.default_rng(0)
    image, removed = rng.random((6, 21, 30), np.float32), rng.random((21, 30)) < 0.5
    found = impute(image, removed, np.zeros_like(image))
    for channel in range(6):
        alone = impute(image[[channel]], removed, np.zeros_like(image[[channel]]))
        np.testing.assert_allclose(found[[channel]], alone, atol=0.005)


def test_imputation_adds_noise_where_pixels_were_removed() -> None:
    removed = np.zeros((64, 64), bool)
    removed[:, :32] = True
    noise = np.float32(0.1) * np.random.default_rng(0).standard_normal((1, 64, 64), np.float32)
    found = impute(np.ones((1, 64, 64), np.float32), removed, noise)[0]
    assert found[~removed] == pytest.approx(1)
    np.testing.assert_allclose(found[removed], 1 + noise[0][removed], atol=1e-4)


# ---- average drop and increase


def test_drop_and_increase_by_hand() -> None:
    # The map as a mask: 1, 0.5, 0, 0. The image's score is 4, that of the masked image 1.5.
    maps, image = np.array([[[2, 1], [0, -3]]], np.float32), np.ones((1, 2, 2), np.float32)
    assert average_drop(maps, image, scoring(np.ones((2, 2)))) == pytest.approx([0.625])
    assert average_increase(maps, image, scoring(np.ones((2, 2)))) == [0]
    # What lowers the score is masked.
    lowering = scoring(np.array([[3, 1], [1, -4]]))
    assert average_drop(maps, image, lowering) == [0]
    assert average_increase(maps, image, lowering) == [1]


def test_a_uniform_map_drops_nothing_and_raises_nothing() -> None:
    maps, image = np.full((1, 4, 4), 3, np.float32), np.random.default_rng(5).random((2, 4, 4), np.float32)
    for metric in (average_drop, average_increase):
        assert metric(maps, image, scoring(np.ones((4, 4)))) == [0]


def test_drop_is_undefined_without_a_positive_value_or_score() -> None:
    maps, image = np.stack([-FALLING[0], FALLING[0]]), SQUARE
    for weight, undefined in ((1, [True, False]), (0, [True, True]), (-1, [True, True])):
        for metric in (average_drop, average_increase):
            assert np.isnan(metric(maps, image, scoring(np.full((2, 2), weight)))).tolist() == undefined
