"""How alike maps are: their correlation, their structure, and whether they are greatest in the same cells.

Each measure goes from maps of one size to a symmetric matrix. A map that is the same everywhere has no shape, so
nothing is like it or unlike it: its row and column are NaN, in every measure.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float64

# What differs by less than this part of a map's greatest magnitude is float32's rounding, and no shape.
FLAT = 1e-6
# Which part of its cells a map is greatest in.
TOP = 0.2
# Of SSIM, as Wang et al. 2004 have it: the window's side and its Gaussian's standard deviation in pixels, and the
# constants against division by nothing, in units of the range of values, which is 1 here.
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03

NAMES = {"pearson": "Pearson's r", "ssim": "SSIM", "overlap": f"overlap of the top {TOP:.0%}"}
MEANINGS = {
    "pearson": "of the maps as the method gave them, over the cells that show the picture",
    "ssim": "of these maps at the model's input size, each from 0 to 1, over the pixels that show the picture; Wang et "
    f"al. 2004, window {WINDOW} x {WINDOW}, Gaussian of {SIGMA}, K1 {K1}, K2 {K2}",
    "overlap": f"intersection over union of the {TOP:.0%} of the cells of greatest value; cells that tie for the last "
    "places share them",
}


def flat(map: Float[np.ndarray, "h w"]) -> bool:
    """Whether a map is the same everywhere, but for rounding."""
    return bool(np.ptp(map) <= FLAT * np.abs(map).max())


def pearson(maps: Float[np.ndarray, "k h w"]) -> Float64[np.ndarray, "k k"]:
    """Pearson's r of each two maps over their cells."""
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1)
    lengths[[flat(map) for map in maps]] = np.nan
    return np.clip(rows @ rows.T / np.outer(lengths, lengths), -1, 1)


def ssim(maps: Float[np.ndarray, "k h w"]) -> Float64[np.ndarray, "k k"]:
    """The structural similarity of each two maps (Wang et al. 2004, Image quality assessment, eq. 13).

    Each map is brought to 0..1, from its least value to its greatest, as Adebayo et al. 2018, arXiv:1810.03292, do
    before they compare maps. Means, variances and covariance are those under a Gaussian window (``WINDOW``, ``SIGMA``);
    the index is averaged over all places where the window lies wholly inside. NaN where it lies so nowhere.
    """
    alike = np.full((len(maps), len(maps)), np.nan)
    shaped = [number for number, map in enumerate(maps) if not flat(map)]
    if min(maps.shape[1:]) < WINDOW:
        return alike
    scaled = {number: _unit(maps[number].astype(np.float64)) for number in shaped}
    means = {number: _windowed(map) for number, map in scaled.items()}
    spreads = {number: _windowed(map * map) - means[number] ** 2 for number, map in scaled.items()}
    for place, one in enumerate(shaped):
        alike[one, one] = 1
        for other in shaped[place + 1 :]:
            product = means[one] * means[other]
            mixed = _windowed(scaled[one] * scaled[other]) - product
            brightness = (2 * product + K1**2) / (means[one] ** 2 + means[other] ** 2 + K1**2)
            structure = (2 * mixed + K2**2) / (spreads[one] + spreads[other] + K2**2)
            alike[one, other] = alike[other, one] = (brightness * structure).mean()
    return alike


def overlap(maps: Float[np.ndarray, "k h w"]) -> Float64[np.ndarray, "k k"]:
    """How far the cells agree in which two maps are greatest: their intersection over their union.

    See :func:`greatest`; cells that belong to a set in part count with the smaller and the larger of their two parts.
    Two sets that have nothing to do with each other overlap by 1/9 where a fifth of the cells is taken.
    """
    sets = np.stack([np.full(map.size, np.nan) if flat(map) else greatest(map).ravel() for map in maps])
    return np.stack([np.minimum(one, sets).sum(1) / np.maximum(one, sets).sum(1) for one in sets])


def greatest(map: Float[np.ndarray, "h w"], share: float = TOP) -> Float64[np.ndarray, "h w"]:
    """How far each cell belongs to the given share of cells in which a map is greatest, from 0 to 1.

    Cells of equal value have equal parts: those that tie for the last places share them, whatever their order. So the
    parts always sum to the share.
    """
    room = share * map.size
    last = np.sort(map, axis=None)[::-1][max(0, int(np.ceil(room)) - 1)]
    above, level = map > last, map == last
    return np.asarray(np.where(level, (room - above.sum()) / level.sum(), above))


def _unit(map: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    return np.asarray((map - map.min()) / np.ptp(map))


def _windowed(map: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """The mean under the window at each place where it lies wholly inside."""
    edge = WINDOW // 2
    return np.asarray(cv2.GaussianBlur(map, (WINDOW, WINDOW), SIGMA)[edge:-edge, edge:-edge])
