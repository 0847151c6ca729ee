"""Metrics that change the image where a map is strong or weak, and look at the score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

from camcli.base.option_checks import check_above, check_at_least
from camcli.metrics.imputation import impute
from camcli.metrics.similarity import is_constant, pearson
from camcli.metrics.stability import ExplainAgain

ScoreOf = Callable[[Iterable[Float32[np.ndarray, "_ d h w"]]], Iterator[Float64[np.ndarray, " _"]]]
# The number of each map, and the scores that it is made of.
Curves = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n t"]]
# From a number of regions and their compactness to the regions of the image.
Divide = Callable[[int, float], Int64[np.ndarray, "h w"]]
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
    # The same for each map, whatever else is in the batch.
    noises = np.float32(noise) * np.random.default_rng(seed).standard_normal(image.shape, np.float32)

    def compute(ranks: Int64[np.ndarray, "m h w"]) -> Float64[np.ndarray, "m t"]:
        def remove(share: float) -> Float32[np.ndarray, "m d h w"]:
            removed = ranks < round(share * image[0].size)
            return np.stack([*pool.map(lambda one: impute(image, one, noises), removed)])

        with ThreadPoolExecutor() as pool:
            scores = [*score_of(remove((step + 0.5) / steps) for step in range(steps))]
        return np.stack(scores, 1)

    curves = _compute_ordered(-maps if first == "most" else maps, seed, steps, compute)
    return curves.mean(1), curves


def irof(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    divide: Divide,
    score_of: ScoreOf,
    *,
    segments: int = 100,
    compactness: float = 10.0,
    steps: int = 10,
    seed: int = 0,
) -> Curves:
    """Compute the area over the score while an image loses its regions, those of the greatest mean relevance first.

    The regions, SLIC's, get the image's mean colour. The curve is the score over that of the whole image, at equal
    steps of the number of regions, from none to all; the area is 1 less its integral by the trapezoidal rule. NaN if
    the regions are all equally relevant, or the score of the whole image is not positive.

    Args:
        segments: number of regions, about.
        compactness: how much regions follow a grid instead of colours; see `camcli.metrics.superpixels`.
        steps: number of steps.
        seed: of the order of equally relevant regions.
    """
    check_at_least(1, steps=steps, segments=segments)
    check_above(0, compactness=compactness)
    regions, filled = divide(segments, compactness), fill_image(image, "mean")
    sizes = np.bincount(regions.ravel())
    means = np.stack([np.bincount(regions.ravel(), map.ravel()) for map in maps]) / sizes

    def compute(ranks: Int64[np.ndarray, "m 1 l"]) -> Float64[np.ndarray, "m t"]:
        def change() -> Iterator[Float32[np.ndarray, "_ d h w"]]:
            yield np.stack([image, filled])
            for step in range(1, steps):
                removed = ranks[:, 0] < round(step / steps * len(sizes))
                yield np.where(removed[:, None, regions], filled, image)

        (whole, none), *between = score_of(change())
        scores = np.stack([np.full(len(ranks), whole), *between, np.full(len(ranks), none)], 1)
        return np.asarray(scores / whole if whole > 0 else np.full_like(scores, np.nan))

    curves = _compute_ordered(-means[:, None].astype(np.float32), seed, steps + 1, compute)
    return 1 - (curves[:, 1:] + curves[:, :-1]).mean(1) / 2, curves


def average_drop(
    maps: Float32[np.ndarray, "n h w"], image: Float32[np.ndarray, "d h w"], score_of: ScoreOf
) -> Float64[np.ndarray, " n"]:
    """Compute the share of the score that is lost if the normalised image is multiplied by the map, at least 0.

    Values below zero count as zero, and the greatest as 1. NaN if none is positive, or the image's score is not.
    """
    whole, masked = _score_masked(_make_masks(maps), image, score_of)
    return np.asarray(np.maximum(whole - masked, 0) / whole)


def average_increase(
    maps: Float32[np.ndarray, "n h w"], image: Float32[np.ndarray, "d h w"], score_of: ScoreOf
) -> Float64[np.ndarray, " n"]:
    """Return 1 if the score rises when the normalised image is multiplied by the map, else 0; see `average_drop`."""
    whole, masked = _score_masked(_make_masks(maps), image, score_of)
    return np.where(np.isnan(masked), np.nan, masked > whole * (1 + SCORE_TOLERANCE))


def adcc(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    score_of: ScoreOf,
    explain_again: ExplainAgain,
) -> Curves:
    """Compute the harmonic mean of 1 - average drop, coherency and 1 - complexity (Average DCC, Poppi et al. 2021).

    Coherency is Pearson's r of the map and that of the image times the map, from 0 for -1 to 1; complexity the map's
    mean. Values below zero count as zero, and the greatest as 1. The curve is the three. NaN where `average_drop` is,
    or where one of the maps is constant or cannot be made.
    """
    masks = _make_masks(maps)
    whole, masked = _score_masked(masks, image, score_of)
    (again,) = explain_again(iter([image * masks[:, None]]))
    likeness = [pearson(np.stack(pair))[0, 1] for pair in zip(masks, np.maximum(again, 0), strict=True)]
    kept = np.clip(masked / whole, 0, 1)  # a score that falls below zero is lost as a whole
    parts = np.stack([kept, (1 + np.array(likeness)) / 2, 1 - masks.mean((1, 2), dtype=np.float64)], 1)
    with np.errstate(divide="ignore"):
        return 3 / (1 / parts).sum(1), parts


def saco(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    score_of: ScoreOf,
    *,
    groups: int = 10,
    seed: int = 0,
) -> Float64[np.ndarray, " n"]:
    """Compute how far stronger groups of pixels matter more, each pair weighted by how much stronger it is said to be.

    Pixels are put in equal groups by their value. A group's effect is what the score loses without it, its pixels
    replaced by the image's mean colour. A pair whose stronger group has at least the effect of the other counts for,
    one whose has less against: from 1 to -1, and 0 where the map says nothing of the effects. NaN for a constant map.

    Args:
        groups: number of groups.
        seed: of the order of equal pixels.
    """
    check_at_least(2, groups=groups)

    def compute(ranks: Int64[np.ndarray, "m h w"]) -> Float64[np.ndarray, "m t"]:
        owners, filled = ranks * groups // ranks[0].size, fill_image(image, "mean")
        changed = (np.where((owners == group)[:, None], filled, image) for group in range(groups))
        (whole,), *without = score_of(chain([image[None]], changed))
        return np.asarray(whole - np.stack(without, 1))

    # The strongest group first.
    effects = _compute_ordered(-maps, seed, groups, compute)
    values = -np.sort(-maps.reshape(len(maps), -1).astype(np.float64), axis=1)
    strengths = np.stack([part.sum(1) for part in np.split(values, _split_evenly(values.shape[1], groups), 1)], 1)
    stronger, weaker = np.triu_indices(groups, 1)
    weights = strengths[:, stronger] - strengths[:, weaker]
    signs = np.where(effects[:, stronger] >= effects[:, weaker], 1, -1)
    whole = weights.sum(1)
    defined = (whole > 0) & ~np.isnan(effects[:, 0])
    return np.where(defined, (signs * weights).sum(1) / np.where(defined, whole, 1), np.nan)


def infidelity(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    score_of: ScoreOf,
    *,
    samples: int = 50,
    share: float = 0.1,
    seed: int = 0,
) -> Float64[np.ndarray, " n"]:
    """Compute the mean squared error of the map's sum over a square as a guess of what the score loses without it.

    The guess is scaled by the factor that is best for the map, since maps have no scale. The squares are random, the
    same for each map, and get the image's mean colour. In units of the squared score. NaN for a map of zeros.

    Args:
        samples: number of squares.
        share: share of the pixels in a square.
        seed: of the squares.
    """
    check_at_least(1, samples=samples)
    check_above(0, share=share)
    height, width = image.shape[1:]
    side = max(1, round((min(1.0, share) * height * width) ** 0.5))
    high, wide, rng = min(side, height), min(side, width), np.random.default_rng(seed)
    tops, lefts = rng.integers(height - high + 1, size=samples), rng.integers(width - wide + 1, size=samples)
    squares = np.zeros((samples, height, width), bool)
    for square, top, left in zip(squares, tops, lefts, strict=True):
        square[top : top + high, left : left + wide] = True
    filled = fill_image(image, "mean")
    changed = (np.where(square, filled, image)[None] for square in squares)
    (whole,), *without = score_of(chain([image[None]], changed))
    lost = whole - np.concatenate(without)
    guesses = np.stack([maps[:, square].sum(1, dtype=np.float64) for square in squares], 1)
    sizes = (guesses**2).sum(1)
    defined = (maps != 0).any((1, 2))
    factors = np.where(sizes > 0, guesses @ lost / np.where(sizes > 0, sizes, 1), 0)
    return np.where(defined, ((factors[:, None] * guesses - lost) ** 2).mean(1), np.nan)


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


def _split_evenly(count: int, groups: int) -> list[int]:
    """Return the first place of each group but the first, where place p is of group p * groups // count."""
    return [-(-group * count // groups) for group in range(1, groups)]


def _rank(values: Float32[np.ndarray, "h w"], seed: int) -> Int64[np.ndarray, "h w"]:
    """Return each pixel's place in ascending order, those of equal value at random."""
    ranks = np.empty(values.size, np.int64)
    order = np.random.default_rng(seed).permutation(values.size)
    ranks[order[np.argsort(values.ravel()[order], kind="stable")]] = np.arange(values.size)
    return ranks.reshape(values.shape)


def _make_masks(maps: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n h w"]:
    """Return the positive values, the greatest of each map 1; zeros if there is none."""
    greatest = maps.max((1, 2), keepdims=True)
    return np.asarray(np.maximum(maps, 0) / np.where(greatest > 0, greatest, 1))


def _score_masked(
    masks: Float32[np.ndarray, "n h w"], image: Float32[np.ndarray, "d h w"], score_of: ScoreOf
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the score of the image and those of it times the masks; NaN where these cannot be compared."""
    whole, masked = score_of(iter([image[None], image * masks[:, None]]))
    defined = masks.any((1, 2)) & (whole > 0)
    return np.where(defined, whole, np.nan), np.where(defined, masked, np.nan)
