"""Similarity of maps: correlation, structural similarity, and overlap of their greatest cells.

Each measure goes from maps of one size to a symmetric matrix. The similarity to a constant map is undefined: its row
and column are NaN in every measure.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float64

# A range below this share of a map's greatest magnitude is rounding of float32: the map is constant.
CONSTANT_TOLERANCE = 1e-6
# Share of cells that counts as the greatest of a map.
TOP_SHARE = 0.2
# Parameters of SSIM as in Wang et al. 2004: side of the window and standard deviation of its Gaussian in pixels, and
# the constants against division by zero in units of the range of values, which is 1 here.
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03

MEASURE_NAMES = {"pearson": "Pearson's r", "ssim": "SSIM", "overlap": f"overlap of the top {TOP_SHARE:.0%}"}
MEASURE_MEANINGS = {
    "pearson": "of the maps as the method gave them, over the cells that show the image",
    "ssim": "of these maps at the model's input size, each from 0 to 1, over the pixels that show the image; Wang et "
    f"al. 2004, window {WINDOW} x {WINDOW}, Gaussian of {SIGMA}, K1 {K1}, K2 {K2}",
    "overlap": f"intersection over union of the {TOP_SHARE:.0%} of the cells of greatest value; cells that tie for the "
    "last places share them",
}


def is_constant(map: Float[np.ndarray, "h w"]) -> bool:
    """Return whether a map is constant up to rounding."""
    return bool(np.ptp(map) <= CONSTANT_TOLERANCE * np.abs(map).max())


def pearson(maps: Float[np.ndarray, "k h w"]) -> Float64[np.ndarray, "k k"]:
    """Compute Pearson's r of each two maps over their cells."""
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1)
    lengths[[is_constant(map) for map in maps]] = np.nan
    return np.clip(rows @ rows.T / np.outer(lengths, lengths), -1, 1)


def ssim(maps: Float[np.ndarray, "k h w"]) -> Float64[np.ndarray, "k k"]:
    """Compute the structural similarity of each two maps (Wang et al. 2004, Image quality assessment, eq. 13).

    Each map is first scaled to 0..1, from its least value to its greatest, as by Adebayo et al. 2018,
    arXiv:1810.03292. Means, variances and covariance are those under a Gaussian window (``WINDOW``, ``SIGMA``); the
    index is averaged over all positions where the window lies wholly inside. NaN if there are none.
    """
    indices = np.full((len(maps), len(maps)), np.nan)
    varying = [number for number, map in enumerate(maps) if not is_constant(map)]
    if min(maps.shape[1:]) < WINDOW:
        return indices
    scaled = {number: _rescale_to_unit(maps[number].astype(np.float64)) for number in varying}
    means = {number: _window_mean(map) for number, map in scaled.items()}
    variances = {number: _window_mean(map * map) - means[number] ** 2 for number, map in scaled.items()}
    for place, one in enumerate(varying):
        indices[one, one] = 1
        for other in varying[place + 1 :]:
            product = means[one] * means[other]
            covariance = _window_mean(scaled[one] * scaled[other]) - product
            brightness = (2 * product + K1**2) / (means[one] ** 2 + means[other] ** 2 + K1**2)
            structure = (2 * covariance + K2**2) / (variances[one] + variances[other] + K2**2)
            indices[one, other] = indices[other, one] = (brightness * structure).mean()
    return indices


def topk_iou(maps: Float[np.ndarray, "k h w"]) -> Float64[np.ndarray, "k k"]:
    """Compute the intersection over union of the greatest cells of each two maps.

    See :func:`topk_mask`; cells that belong to the sets in part count with the smaller and the larger of both parts.
    Two independent sets of a fifth of the cells have an IoU of 1/9.
    """
    sets = np.stack([np.full(map.size, np.nan) if is_constant(map) else topk_mask(map).ravel() for map in maps])
    return np.stack([np.minimum(one, sets).sum(1) / np.maximum(one, sets).sum(1) for one in sets])


def topk_mask(map: Float[np.ndarray, "h w"], share: float = TOP_SHARE) -> Float64[np.ndarray, "h w"]:
    """Return each cell's membership, from 0 to 1, in the given share of cells of greatest value.

    Cells that tie for the last places share them equally, so that the memberships always sum to the share.
    """
    room = share * map.size
    last = np.sort(map, axis=None)[::-1][max(0, int(np.ceil(room)) - 1)]
    above, level = map > last, map == last
    return np.asarray(np.where(level, (room - above.sum()) / level.sum(), above))


def _rescale_to_unit(map: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    return np.asarray((map - map.min()) / np.ptp(map))


def _window_mean(map: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """Return the mean under the window at each position where it lies wholly inside."""
    edge = WINDOW // 2
    return np.asarray(cv2.GaussianBlur(map, (WINDOW, WINDOW), SIGMA)[edge:-edge, edge:-edge])
