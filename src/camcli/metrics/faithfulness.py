"""Metrics that change the image where a map is strong or weak, and look at the score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

from camcli.base.option_checks import check_at_least
from camcli.metrics.imputation import impute
from camcli.metrics.similarity import is_constant

ScoreOf = Callable[[Iterable[Float32[np.ndarray, "_ d h w"]]], Iterator[Float64[np.ndarray, " _"]]]
# The number of each map, and the scores that it is made of.
Curves = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n t"]]
Fill = Literal["blur", "mean"]

# Standard deviation of the Gaussian of a blurred image, in shares of its shorter side: 11 pixels of 224.
BLUR_SHARE = 0.05
# Relative difference up to which two scores are equal: rounding, which depends on what else is in the batch.
SCORE_TOLERANCE = 1e-5


def insertion(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    score_of: ScoreOf,
    *,
    fill: Fill = "blur",
    steps: int = 10,
    seed: int = 0,
) -> Curves:
    """Compute the area under the score while an image appears in its filled copy, the most relevant pixels first.

    The score is taken at equal steps of the share of pixels, from none to all, and integrated by the trapezoidal rule:
    the area is in units of the score; the curve is these scores. Pixels of equal value come in random order, so that
    the number is one draw from the orders that the map allows. NaN for a constant map.

    Args:
        fill: blur, a Gaussian of 5% of the shorter side; or mean, the image's own mean colour.
        steps: number of steps.
        seed: of the order of equal pixels.
    """
    return _integrate(maps, fill_image(image, fill), image, score_of, steps, seed)


def deletion(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    score_of: ScoreOf,
    *,
    fill: Fill = "mean",
    steps: int = 10,
    seed: int = 0,
) -> Curves:
    """Compute the area under the score while an image is filled, the most relevant pixels first; see `insertion`.

    Args:
        fill: as in insertion.
        steps: number of steps.
        seed: of the order of equal pixels.
    """
    return _integrate(maps, image, fill_image(image, fill), score_of, steps, seed)


def road(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    score_of: ScoreOf,
    *,
    first: Literal["most", "least"] = "most",
    steps: int = 5,
    noise: float = 0.01,
    seed: int = 0,
) -> Curves:
    """Compute the mean score without the most or the least relevant pixels, over several shares of all pixels.

    Pixels are replaced by noisy linear imputation, so that no edge shows where they were. Of pixels of equal value
    random ones come first. The curve is the scores. NaN for a constant map.

    Args:
        first: which pixels are removed: most relevant, or least.
        steps: number of shares, in the middle of equal parts: 10%, 30%, ... 90% for 5.
        noise: standard deviation of the noise, in units of the normalised image.
        seed: of the noise, and of the order of equal pixels.
    """
    check_at_least(1, steps=steps)

    def compute(ranks: Int64[np.ndarray, "m h w"]) -> Float64[np.ndarray, "m t"]:
        def remove(share: float) -> Float32[np.ndarray, "m d h w"]:
            removed = ranks < round(share * image[0].size)
            # The same noise for each map, whatever else is in the batch.
            return np.stack([*pool.map(lambda one: impute(image, one, noise, np.random.default_rng(seed)), removed)])

        with ThreadPoolExecutor() as pool:
            scores = [*score_of(remove((step + 0.5) / steps) for step in range(steps))]
        return np.stack(scores, 1)

    curves = _compute_ordered(-maps if first == "most" else maps, seed, steps, compute)
    return curves.mean(1), curves


def average_drop(
    maps: Float32[np.ndarray, "n h w"], image: Float32[np.ndarray, "d h w"], score_of: ScoreOf
) -> Float64[np.ndarray, " n"]:
    """Compute the share of the score that is lost if the normalised image is multiplied by the map, at least 0.

    Values below zero count as zero, and the greatest as 1. NaN if none is positive, or the image's score is not.
    """
    whole, masked = _score_masked(maps, image, score_of)
    return np.asarray(np.maximum(whole - masked, 0) / whole)


def average_increase(
    maps: Float32[np.ndarray, "n h w"], image: Float32[np.ndarray, "d h w"], score_of: ScoreOf
) -> Float64[np.ndarray, " n"]:
    """Return 1 if the score rises when the normalised image is multiplied by the map, else 0; see `average_drop`."""
    whole, masked = _score_masked(maps, image, score_of)
    return np.where(np.isnan(masked), np.nan, masked > whole * (1 + SCORE_TOLERANCE))


# ---- changed images


def fill_image(image: Float32[np.ndarray, "d h w"], fill: Fill) -> Float32[np.ndarray, "d h w"]:
    """Return the image blurred, or of its own mean colour."""
    if fill == "mean":
        return np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
    sigma = BLUR_SHARE * min(image.shape[1:])
    return np.stack([cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for plane in image])


def _integrate(
    maps: Float32[np.ndarray, "n h w"],
    begin: Float32[np.ndarray, "d h w"],
    end: Float32[np.ndarray, "d h w"],
    score_of: ScoreOf,
    steps: int,
    seed: int,
) -> Curves:
    """Return the area under the score from one image to another, the most relevant pixels first, and the scores."""
    check_at_least(1, steps=steps)

    def compute(ranks: Int64[np.ndarray, "m h w"]) -> Float64[np.ndarray, "m t"]:
        def change() -> Iterator[Float32[np.ndarray, "_ d h w"]]:
            yield np.stack([begin, end])
            for step in range(1, steps):
                yield np.where(ranks[:, None] < round(step / steps * begin[0].size), end, begin)

        (first, last), *between = score_of(change())
        whole = np.ones(len(ranks))
        return np.stack([first * whole, *between, last * whole], 1)

    curves = _compute_ordered(-maps, seed, steps + 1, compute)
    return (curves[:, 1:] + curves[:, :-1]).mean(1) / 2, curves


def _compute_ordered(
    maps: Float32[np.ndarray, "n h w"],
    seed: int,
    points: int,
    compute: Callable[[Int64[np.ndarray, "m h w"]], Float64[np.ndarray, "m t"]],
) -> Float64[np.ndarray, "n t"]:
    """Compute curves from the places of maps' pixels in ascending order; NaN for maps that put them in no order."""
    values = np.full((len(maps), points), np.nan)
    ordered = [number for number, map in enumerate(maps) if not is_constant(map)]
    if ordered:
        values[ordered] = compute(np.stack([_rank(map, seed) for map in maps[ordered]]))
    return values


def _rank(values: Float32[np.ndarray, "h w"], seed: int) -> Int64[np.ndarray, "h w"]:
    """Return each pixel's place in ascending order, those of equal value at random."""
    ranks = np.empty(values.size, np.int64)
    order = np.random.default_rng(seed).permutation(values.size)
    ranks[order[np.argsort(values.ravel()[order], kind="stable")]] = np.arange(values.size)
    return ranks.reshape(values.shape)


def _score_masked(
    maps: Float32[np.ndarray, "n h w"], image: Float32[np.ndarray, "d h w"], score_of: ScoreOf
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the score of the image and those of it times the maps; NaN where these cannot be compared."""
    greatest = maps.max((1, 2), keepdims=True)
    masks = np.maximum(maps, 0) / np.where(greatest > 0, greatest, 1)
    whole, masked = score_of(iter([image[None], image * masks[:, None]]))
    defined = (greatest[:, 0, 0] > 0) & (whole > 0)
    return np.where(defined, whole, np.nan), np.where(defined, masked, np.nan)
