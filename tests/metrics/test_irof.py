"""Regions of like colour, and the score without them: by hand, by law, and by a plain reading of the paper."""

from functools import partial

import cv2
import numpy as np
import pytest
from planted import plant_in_image

from camcli.metrics import CONTROLS
from camcli.metrics.faithfulness import irof
from camcli.metrics.superpixels import divide


def scoring(weights: np.ndarray):
    """A score linear in the pixels: those of the weights, times these, summed."""
    return lambda variants: ((one * weights).sum((1, 2, 3)).astype(np.float64) for one in variants)


def regions_of(image: np.ndarray):
    """The regions of an image, as the metric asks for them."""
    return partial(divide, image)


def test_one_colour_is_divided_into_cells() -> None:
    regions = divide(np.full((3, 24, 36), 0.3, np.float32), 6, 10.0)
    down, across = np.mgrid[:24, :36]
    assert (regions == down // 12 * 3 + across // 12).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_regions_follow_colours(channels: int) -> None:
    image = np.zeros((channels, 60, 70), np.float32)
    cv2.circle(canvas := np.zeros((60, 70), np.uint8), (31, 28), 17, 1, -1)
    image[:, canvas > 0] = 0.8
    regions = divide(image, 30, 10.0)
    inside, outside = {*regions[canvas > 0].tolist()}, {*regions[canvas == 0].tolist()}
    assert not inside & outside
    assert {*range(len(inside | outside))} == inside | outside
    assert 20 <= len(inside | outside) <= 30
    for number in inside | outside:
        assert cv2.connectedComponents((regions == number).astype(np.uint8), connectivity=4)[0] == 2


def test_regions_of_noise_are_whole_and_of_a_pixel_each_if_so_many_are_asked() -> None:
    noise = np.random.default_rng(0).random((3, 32, 32), np.float32)
    for number in np.unique(regions := divide(noise, 16, 1.0)):
        assert cv2.connectedComponents((regions == number).astype(np.uint8), connectivity=8)[0] == 2
    assert divide(noise[:, :4, :5], 20, 1e6).tolist() == np.arange(20).reshape(4, 5).tolist()
    assert (divide(noise, 1, 10.0) == 0).all()


def test_irof_by_hand() -> None:
    # Four cells of one colour each; the mean is 0.4, and the score the sum over it.
    image = np.repeat(np.repeat(np.array([[[0.9, 0.5], [0.1, 0.1]]], np.float32), 8, 1), 8, 2)
    weights = np.zeros((16, 16), np.float32)
    weights[:8, :8] = weights[:8, 8:] = 1
    score_of = scoring(weights)
    right = np.repeat(np.repeat(np.array([[[3, 2], [1, 0]]], np.float32), 8, 1), 8, 2)
    [value], [curve] = irof(right, image, regions_of(image), score_of, segments=4, steps=4)
    # 1.4 at first; 0.9 without the first cell, 0.8 without both, and as much without all.
    expected = [1, 0.9 / 1.4, 0.8 / 1.4, 0.8 / 1.4, 0.8 / 1.4]
    assert curve == pytest.approx(expected, rel=1e-5)
    assert value == pytest.approx(1 - np.trapezoid(expected) / 4, rel=1e-5)
    # The two cells without weight first.
    assert irof(-right, image, regions_of(image), score_of, segments=4, steps=4)[1][0] == pytest.approx(
        [1, 1, 1, 1.3 / 1.4, 0.8 / 1.4], rel=1e-5
    )
    flat, without = (
        np.ones_like(right),
        irof(right, image, regions_of(image), lambda v: (0 * s for s in score_of(v)), segments=4),
    )
    assert np.isnan(irof(flat, image, regions_of(image), score_of, segments=4)[0]).all()
    assert np.isnan(without[0]).all()


def test_the_truth_of_a_linear_score_is_best() -> None:
    image, weights = plant_in_image()
    truth = ((image - image.mean((1, 2), keepdims=True)) * weights).sum(0)
    rng = np.random.default_rng(2)
    maps = np.stack([truth, -truth, *(CONTROLS.load(name)(image, rng) for name in CONTROLS.names())])
    values, _ = irof(maps, image, regions_of(image), scoring(weights), segments=60, steps=20)
    best, worst, *rest = values
    named = dict(zip(CONTROLS.names(), rest, strict=True))
    assert np.isnan(named.pop("uniform"))
    assert best > max(named.values()) > min(named.values()) > worst
    # A plain reading: region after region.
    regions = divide(image, 60, 10.0)
    order = sorted(np.unique(regions), key=lambda number: -truth[regions == number].mean())
    changed, scores = image.copy(), [float((image * weights).sum())]
    for number in order:
        changed[:, regions == number] = image.mean((1, 2))[:, None]
        scores.append(float((changed * weights).sum()))
    one_by_one = irof(truth[None], image, regions_of(image), scoring(weights), segments=60, steps=len(order))
    assert one_by_one[0] == pytest.approx(1 - np.trapezoid(scores) / len(order) / scores[0], rel=1e-4)
