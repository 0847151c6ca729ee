"""Metrics that change the image where a map is strong or weak, and look at the score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

from camcli.base.option_checks import check_at_least
from camcli.metrics.imputation import impute
from camcli.metrics.similarity import is_constant

ScoreOf = Callable[[Iterable[Float32[np.ndarray, "n d h w"]]], Iterator[Float64[np.ndarray, " n"]]]
Fill = Literal["blur", "mean"]

# Standard deviation of the Gaussian of a blurred image, in shares of its shorter side: 11 pixels of 224.
BLUR_SHARE = 0.05
# Relative difference up to which two scores are equal: rounding, which depends on what else is in the batch.
SCORE_TOLERANCE = 1e-5


def insertion(
    maps: Float32[np.ndarray, "n h w"],
    images: Float32[np.ndarray, "n d h w"],
    score_of: ScoreOf,
    *,
    fill: Fill = "blur",
    steps: int = 10,
    seed: int = 0,
) -> Float64[np.ndarray, " n"]:
    """Compute the area under the score while an image appears in its filled copy, the most relevant pixels first.

    The score is taken at equal steps of the share of pixels, from none to all, and integrated by the trapezoidal rule:
    the area is in units of the score. Pixels of equal value come in random order, so that the number is one draw from
    the orders that the map allows. NaN for a constant map.

    Args:
        fill: blur, a Gaussian of 5% of the shorter side; or mean, the image's own mean colour.
        steps: number of steps.
        seed: of the order of equal pixels.
    """
    return _integrate(maps, fill_images(images, fill), images, score_of, steps, seed)


def deletion(
    maps: Float32[np.ndarray, "n h w"],
    images: Float32[np.ndarray, "n d h w"],
    score_of: ScoreOf,
    *,
    fill: Fill = "mean",
    steps: int = 10,
    seed: int = 0,
) -> Float64[np.ndarray, " n"]:
    """Compute the area under the score while an image is filled, the most relevant pixels first; see `insertion`.

    Args:
        fill: as in insertion.
        steps: number of steps.
        seed: of the order of equal pixels.
    """
    return _integrate(maps, images, fill_images(images, fill), score_of, steps, seed)


def road(
    maps: Float32[np.ndarray, "n h w"],
    images: Float32[np.ndarray, "n d h w"],
    score_of: ScoreOf,
    *,
    first: Literal["most", "least"] = "most",
    steps: int = 5,
    noise: float = 0.01,
    seed: int = 0,
) -> Float64[np.ndarray, " n"]:
    """Compute the mean score without the most or the least relevant pixels, over several shares of all pixels.

    Pixels are replaced by noisy linear imputation, so that no edge shows where they were. Of pixels of equal value
    random ones come first. NaN for a constant map.

    Args:
        first: which pixels are removed: most relevant, or least.
        steps: number of shares, in the middle of equal parts: 10%, 30%, ... 90% for 5.
        noise: standard deviation of the noise, in units of the normalised image.
        seed: of the noise, and of the order of equal pixels.
    """
    check_at_least(1, steps=steps)
    ranks = [_rank(-map if first == "most" else map, seed) for map in maps]

    def remove(share: float) -> Float32[np.ndarray, "n d h w"]:
        gone = [rank < round(share * rank.size) for rank in ranks]
        # The same noise for each map, whatever else is in the batch.
        sources = [np.random.default_rng(seed) for _ in maps]
        return np.stack([*map(impute, images, gone, [noise] * len(maps), sources)])

    scores = np.mean([*score_of(remove((step + 0.5) / steps) for step in range(steps))], axis=0)
    return _drop_constant(maps, scores)


def average_drop(
    maps: Float32[np.ndarray, "n h w"], images: Float32[np.ndarray, "n d h w"], score_of: ScoreOf
) -> Float64[np.ndarray, " n"]:
    """Compute the share of the score that is lost if the normalised image is multiplied by the map, at least 0.

    Values below zero count as zero, and the greatest as 1. NaN if none is positive, or the image's score is not.
    """
    whole, masked = _score_masked(maps, images, score_of)
    return np.asarray(np.maximum(whole - masked, 0) / whole)


def average_increase(
    maps: Float32[np.ndarray, "n h w"], images: Float32[np.ndarray, "n d h w"], score_of: ScoreOf
) -> Float64[np.ndarray, " n"]:
    """Return 1 if the score rises when the normalised image is multiplied by the map, else 0; see `average_drop`."""
    whole, masked = _score_masked(maps, images, score_of)
    return np.where(np.isnan(masked), np.nan, masked > whole * (1 + SCORE_TOLERANCE))


# ---- changed images


def fill_images(images: Float32[np.ndarray, "n d h w"], fill: Fill) -> Float32[np.ndarray, "n d h w"]:
    """Return the images blurred, or each of its own mean colour."""
    if fill == "mean":
        return np.broadcast_to(images.mean((2, 3), keepdims=True), images.shape)
    sigma = BLUR_SHARE * min(images.shape[2:])
    flat = images.reshape(-1, *images.shape[2:])
    blurred = [cv2.GaussianBlur(one, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for one in flat]
    return np.stack(blurred).reshape(images.shape)


def _integrate(
    maps: Float32[np.ndarray, "n h w"],
    begin: Float32[np.ndarray, "n d h w"],
    end: Float32[np.ndarray, "n d h w"],
    score_of: ScoreOf,
    steps: int,
    seed: int,
) -> Float64[np.ndarray, " n"]:
    """Return the area under the score from one image to another, the most relevant pixels first."""
    check_at_least(1, steps=steps)
    ranks = np.stack([_rank(-map, seed) for map in maps])[:, None]
    count = maps[0].size
    variants = (np.where(ranks < round(step / steps * count), end, begin) for step in range(steps + 1))
    scores = np.stack([*score_of(variants)])
    return _drop_constant(maps, (scores.sum(0) - (scores[0] + scores[-1]) / 2) / steps)


def _drop_constant(maps: Float32[np.ndarray, "n h w"], values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return the values, NaN for maps that put the pixels in no order."""
    return np.where([is_constant(map) for map in maps], np.nan, values)


def _rank(values: Float32[np.ndarray, "h w"], seed: int) -> Int64[np.ndarray, "h w"]:
    """Return each pixel's place in ascending order, those of equal value at random."""
    ranks = np.empty(values.size, np.int64)
    draws = np.random.default_rng(seed).random(values.size)
    ranks[np.lexsort((draws, values.ravel()))] = np.arange(values.size)
    return ranks.reshape(values.shape)


def _score_masked(
    maps: Float32[np.ndarray, "n h w"], images: Float32[np.ndarray, "n d h w"], score_of: ScoreOf
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the scores of the images, and of those times their maps; NaN where these cannot be compared."""
    greatest = maps.max((1, 2), keepdims=True)
    masks = np.maximum(maps, 0) / np.where(greatest > 0, greatest, 1)
    whole, masked = score_of(iter([images, images * masks[:, None]]))
    defined = (greatest[:, 0, 0] > 0) & (whole > 0)
    return np.where(defined, whole, np.nan), np.where(defined, masked, np.nan)
