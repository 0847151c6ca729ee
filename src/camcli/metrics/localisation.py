"""Metrics that compare a map with the pixels of an object."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from camcli.base.option_checks import check_above, check_at_least
from camcli.metrics.similarity import topk_mask

# Intersections over union at which a box counts as found.
OVERLAPS = (0.3, 0.5, 0.7)


def pointing_game(
    maps: Float32[np.ndarray, "n h w"], region: Bool[np.ndarray, "h w"], *, tolerance: float = 15.0
) -> Float64[np.ndarray, " n"]:
    """Return 1 if the map's peak lies in the region or within ``tolerance`` pixels of the model's input, else 0.

    Where several pixels share the peak, the share of them that do. NaN without a region, or a positive value.

    Args:
        tolerance: how far from the region a peak may be, in pixels of the model's input.
    """
    check_at_least(0, tolerance=tolerance)
    if not region.any():
        return np.full(len(maps), np.nan)
    near = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= tolerance
    return np.array([near[map == map.max()].mean() if map.max() > 0 else np.nan for map in maps])


def energy_in_box(maps: Float32[np.ndarray, "n h w"], region: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " n"]:
    """Compute the share of the map's positive values that lies in the region; NaN if there is neither.

    Of a map without negative values this is the relevance mass accuracy of Arras et al. 2022 too.
    """
    positive = np.maximum(maps, 0).astype(np.float64)
    return _divide((positive * region).sum((1, 2)), positive.sum((1, 2)), region)


def iou(
    maps: Float32[np.ndarray, "n h w"], region: Bool[np.ndarray, "h w"], *, threshold: float = 0.5
) -> Float64[np.ndarray, " n"]:
    """Compute intersection over union of the region and the pixels from ``threshold`` times the greatest value on.

    NaN without a region, or a positive value.

    Args:
        threshold: share of the greatest value from which on pixels count.
    """
    check_above(0, threshold=threshold)
    greatest = maps.max((1, 2), keepdims=True)
    strong = (maps >= threshold * greatest) & (greatest > 0)
    union = np.where(greatest[:, 0, 0] > 0, (strong | region).sum((1, 2)), 0)
    return _divide((strong & region).sum((1, 2)), union, region)


def relevance_rank(maps: Float32[np.ndarray, "n h w"], region: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " n"]:
    """Compute the share of the region's k pixels that is among the k greatest values of the map; NaN without a region.

    Pixels that tie for the last places count in part (relevance rank accuracy).
    """
    room = int(region.sum())
    if not room:
        return np.full(len(maps), np.nan)
    return np.array([(topk_mask(map, room / map.size) * region).sum() / room for map in maps])


def box_accuracy(
    maps: Float32[np.ndarray, "n h w"], boxes: Float64[np.ndarray, "k 4"], *, thresholds: int = 20
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n t"]]:
    """Return the share of three overlaps, of 30, 50 and 70%, that is reached at the map's own best threshold.

    At each threshold a box is put around each connected part of the map that is at least so strong; the greatest
    intersection over union of any of these boxes and of the object's counts. NaN without a box, or a positive value.
    Over several images the threshold is the same for all: see `pool_box_accuracy`.

    Args:
        thresholds: number of thresholds, from 0 on, in equal steps of the greatest value.

    Returns:
        These shares, and a curve for each map: 1 where the overlap is reached, else 0, threshold by threshold, for 30%
        first.
    """
    check_at_least(1, thresholds=thresholds)
    hits = np.full((len(maps), len(OVERLAPS), thresholds), np.nan)
    for map, own in zip(maps, hits, strict=True):
        if len(boxes) and map.max() > 0:
            levels = map.max() * np.arange(thresholds, dtype=np.float32) / thresholds
            best = [_overlap_boxes(_bound_parts(np.maximum(map, 0) >= level), boxes).max() for level in levels]
            own[:] = np.array(best) >= np.array(OVERLAPS)[:, None]
    return hits.max(2).mean(1), hits.reshape(len(maps), -1)


def pool_box_accuracy(curves: Float64[np.ndarray, "m t"]) -> Float64[np.ndarray, " m"]:
    """Return the share of images that reach an overlap at the best threshold for all, averaged over the overlaps."""
    return np.asarray(curves.reshape(len(curves), len(OVERLAPS), -1).max(2).mean(1))


def _bound_parts(strong: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "p 4"]:
    """Return the box around each connected part."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(strong.astype(np.uint8), connectivity=8)
    left, top, width, height = stats[1:, : cv2.CC_STAT_AREA].T.astype(np.float64)
    return np.stack([left, top, left + width, top + height], 1)


def _overlap_boxes(one: Float64[np.ndarray, "p 4"], other: Float64[np.ndarray, "k 4"]) -> Float64[np.ndarray, "p k"]:
    """Return the intersection over union of each two boxes."""
    low, high = np.maximum(one[:, None, :2], other[:, :2]), np.minimum(one[:, None, 2:], other[:, 2:])
    both = np.maximum(high - low, 0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return np.asarray(both / (areas[0][:, None] + areas[1] - both))


def _divide(part: np.ndarray, whole: np.ndarray, region: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " n"]:
    defined = (whole > 0) & region.any()
    return np.where(defined, part / np.where(defined, whole, 1), np.nan)
