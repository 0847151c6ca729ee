"""Metrics that change the image a little, and look at its map again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from camcli.base.errors import PictureError
from camcli.base.option_checks import check_above, check_at_least
from camcli.metrics import similarity

ExplainAgain = Callable[[Iterable[Float32[np.ndarray, "_ d h w"]]], Iterator[Float32[np.ndarray, "n h w"]]]
# The mean similarity of each map, and the similarities that it is the mean of.
Similarities = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n t"]]
Measure = Literal["pearson", "ssim"]

MEASURES: Mapping[Measure, Callable[[Float[np.ndarray, "k h w"]], Float64[np.ndarray, "k k"]]] = {
    "pearson": similarity.pearson,
    "ssim": similarity.ssim,
}
# Where the image goes, down and across.
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def max_sensitivity(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    explain_again: ExplainAgain,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> Float64[np.ndarray, " n"]:
    """Compute the greatest change of the map under little noise, |map' - map| / |map| in Euclidean norm.

    The greatest over samples whose every value differs by at most the radius, uniformly drawn, the same for each map.
    NaN for a map of zeros, or where the map of a sample cannot be made.

    Args:
        radius: greatest difference of a value, in units of the normalised image.
        samples: number of samples.
        seed: of the noise.
    """
    check_at_least(1, samples=samples)
    check_above(0, radius=radius)
    rng = np.random.default_rng(seed)
    changed = (image + rng.uniform(-radius, radius, image.shape).astype(np.float32) for _ in range(samples))
    changes = np.stack([_measure_length(again - maps) for again in explain_again(one[None] for one in changed)])
    lengths = _measure_length(maps)
    return np.where(lengths > 0, changes.max(0) / np.where(lengths > 0, lengths, 1), np.nan)


def shift_robustness(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    explain_again: ExplainAgain,
    *,
    pixels: int = 8,
    measure: Measure = "pearson",
) -> Similarities:
    """Compute the similarity of the map of a shifted image to the shifted map, over the part that both have.

    The mean over shifts to the right, down, to the left and up; pixels that come in repeat the image's edge. NaN where
    a map is constant or cannot be made, or where nothing is left of it.

    Args:
        pixels: pixels of the model's input by which the image is shifted.
        measure: pearson, or ssim.
    """
    check_at_least(1, pixels=pixels)
    if pixels >= min(image.shape[1:]):
        return np.full(len(maps), np.nan), np.full((len(maps), len(DIRECTIONS)), np.nan)
    changed = (_shift(image, down * pixels, across * pixels)[None] for down, across in DIRECTIONS)
    found = []
    for again, (down, across) in zip(explain_again(changed), DIRECTIONS, strict=True):
        new = np.s_[:, *(_keep_left(-way * pixels) for way in (down, across))]
        old = np.s_[:, *(_keep_left(way * pixels) for way in (down, across))]
        found.append(_compare(again[new], maps[old], measure))
    return _average(found)


def noise_robustness(
    maps: Float32[np.ndarray, "n h w"],
    image: Float32[np.ndarray, "d h w"],
    explain_again: ExplainAgain,
    *,
    spread: float = 0.1,
    samples: int = 4,
    measure: Measure = "pearson",
    seed: int = 0,
) -> Similarities:
    """Compute the mean similarity of the map to the maps of noisy copies of the image.

    NaN where a map is constant or cannot be made.

    Args:
        spread: standard deviation of the normal noise, in units of the normalised image.
        samples: number of copies.
        measure: as in shift_robustness.
        seed: of the noise.
    """
    check_at_least(1, samples=samples)
    check_above(0, spread=spread)
    rng = np.random.default_rng(seed)
    changed = (image + np.float32(spread) * rng.standard_normal(image.shape, np.float32) for _ in range(samples))
    return _average([_compare(again, maps, measure) for again in explain_again(one[None] for one in changed)])


def jpeg_robustness(
    maps: Float32[np.ndarray, "n h w"],
    colours: Float32[np.ndarray, "d h w"],
    from_colours: Callable[[Float32[np.ndarray, "d h w"]], Float32[np.ndarray, "d h w"]],
    explain_again: ExplainAgain,
    *,
    quality: int = 50,
    measure: Measure = "pearson",
) -> Similarities:
    """Compute the similarity of the map to that of the model's input after it was a JPEG.

    NaN where a map is constant or cannot be made.

    Args:
        quality: of libjpeg, from 1 to 100; colours have half the resolution.
        measure: as in shift_robustness.

    Raises:
        PictureError: the input has neither one channel nor three.
    """
    check_at_least(1, quality=quality)
    changed = from_colours(_compress(colours, quality))
    return _average([_compare(again, maps, measure) for again in explain_again(iter([changed[None]]))])


# ---- changed images


def _shift(image: Float32[np.ndarray, "d h w"], down: int, across: int) -> Float32[np.ndarray, "d h w"]:
    """Return the image shifted by so many pixels; those that come in repeat its edge."""
    height, width = image.shape[1:]
    rows, columns = (np.clip(np.arange(side) - by, 0, side - 1) for side, by in ((height, down), (width, across)))
    return image[:, rows[:, None], columns]


def _compress(colours: Float32[np.ndarray, "d h w"], quality: int) -> Float32[np.ndarray, "d h w"]:
    """Return colours after they were written as JPEG and read again."""
    if len(colours) not in (1, 3):
        raise PictureError(f"JPEG has one channel or three, and the model's input has {len(colours)}")
    pixels = np.rint(255 * colours).astype(np.uint8)
    # OpenCV takes the channels in reverse, and reads one of them as three unless told.
    _, content = cv2.imencode(".jpg", pixels[::-1].transpose(1, 2, 0), (cv2.IMWRITE_JPEG_QUALITY, min(quality, 100)))
    read = np.asarray(cv2.imdecode(content, cv2.IMREAD_UNCHANGED))
    planes = read.reshape(pixels.shape[1], pixels.shape[2], -1).transpose(2, 0, 1)[::-1]
    return np.asarray(planes / np.float32(255), np.float32)


# ---- maps compared


def _measure_length(maps: Float32[np.ndarray, "n h w"]) -> Float64[np.ndarray, " n"]:
    return np.asarray(np.linalg.norm(maps.reshape(len(maps), -1).astype(np.float64), axis=1))


def _keep_left(by: int) -> slice:
    """Return the places of a row that are still in it when it is shifted by so many."""
    return slice(max(0, -by), -by if by > 0 else None)


def _compare(
    one: Float32[np.ndarray, "n h w"], other: Float32[np.ndarray, "n h w"], measure: Measure
) -> Float64[np.ndarray, " n"]:
    """Return the similarity of each map to the other in its place; NaN where it is undefined."""
    return np.array([MEASURES[measure](np.stack(pair))[0, 1] for pair in zip(one, other, strict=True)])


def _average(similarities: list[Float64[np.ndarray, " n"]]) -> Similarities:
    each = np.stack(similarities, 1)
    return each.mean(1), each
