"""Division of an image into regions of like colour: SLIC (Achanta et al. 2012, doi:10.1109/TPAMI.2012.120)."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

ROUNDS = 10


def divide(colours: Float32[np.ndarray, "d h w"], count: int, compactness: float) -> Int64[np.ndarray, "h w"]:
    """Divide an image into about so many regions, nearly all connected, numbered from 0 on.

    Clusters begin on a grid of cells of S x S pixels. In each round, a pixel goes to the nearest of the nine clusters
    of its cell and those around it, by the distance sqrt(colour^2 + (compactness place / S)^2) (eq. 3), and each
    cluster to the mean of its pixels. Of a cluster in several parts the largest stays, and the pixels of the others go
    to the cluster of the nearest pixel.

    Args:
        colours: its colours in 0..1, red first.
        count: number of regions.
        compactness: weight of the place beside colours in CIELAB (of images without three channels: percent).
    """
    height, width = colours.shape[1:]
    side = max(1.0, (height * width / count) ** 0.5)
    rows, columns = (max(1, round(length / side)) for length in (height, width))
    down, across = np.mgrid[:height, :width]
    home = np.stack([down * rows // height, across * columns // width])
    points = np.stack([*_to_lab(colours), *(compactness / side * np.stack([down, across]))], -1)
    regions = home[0] * columns + home[1]
    for _ in range(ROUNDS):
        centres = _find_means(points, regions, rows * columns)
        nearest = np.full((height, width), np.inf)
        for step_down, step_across in product((-1, 0, 1), repeat=2):
            row, column = home[0] + step_down, home[1] + step_across
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            cluster = np.where(inside, row * columns + column, 0)
            distance = np.where(inside, ((points - centres[cluster]) ** 2).sum(-1), np.inf)
            regions = np.where(distance < nearest, cluster, regions)
            nearest = np.minimum(nearest, distance)
    return _connect(regions)


def _to_lab(colours: Float32[np.ndarray, "d h w"]) -> Float32[np.ndarray, "d h w"]:
    """Return colours in CIELAB; in percent if there are not three channels."""
    if len(colours) != 3:
        return np.asarray(100 * colours)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(colours.transpose(1, 2, 0)), cv2.COLOR_RGB2Lab)).transpose(
        2, 0, 1
    )


def _find_means(
    points: Float64[np.ndarray, "h w p"], regions: Int64[np.ndarray, "h w"], count: int
) -> Float64[np.ndarray, "k p"]:
    """Return the mean of each region's points; infinitely far away if it has none."""
    flat = regions.ravel()
    sizes = np.bincount(flat, minlength=count)
    sums = [np.bincount(flat, values.ravel(), count) for values in np.moveaxis(points, -1, 0)]
    return np.where(sizes[:, None] > 0, np.stack(sums, -1) / np.maximum(sizes, 1)[:, None], np.inf)


def _connect(regions: Int64[np.ndarray, "h w"]) -> Int64[np.ndarray, "h w"]:
    """Return the regions with one part each, numbered from 0 on."""
    kept = np.zeros(regions.shape, bool)
    for number in np.unique(regions):
        kept |= _find_largest_part(regions == number)
    # Labels of the nearest kept pixel: each of these has one of its own.
    _, owners = cv2.distanceTransformWithLabels(
        (~kept).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    numbers = np.zeros(int(owners.max()) + 1, np.int64)
    numbers[owners[kept]] = regions[kept]
    return np.unique(numbers[owners], return_inverse=True)[1].reshape(regions.shape)


def _find_largest_part(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    _, parts, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return np.asarray(parts == 1 + facts[1:, cv2.CC_STAT_AREA].argmax())
