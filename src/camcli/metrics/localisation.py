"""Metrics that compare a map with the pixels of an object."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from camcli.base.option_checks import check_above, check_at_least
from camcli.metrics.similarity import topk_mask


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


def _divide(part: np.ndarray, whole: np.ndarray, region: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " n"]:
    defined = (whole > 0) & region.any()
    return np.where(defined, part / np.where(defined, whole, 1), np.nan)
