"""Noisy linear imputation of missing pixels (Rong et al. 2022, arXiv:2202.00449, sec. 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

# Weights of a pixel's eight neighbours, as in the authors' code: 1/6 beside it, 1/12 across a corner.
NEIGHBOURS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], np.float32) / 12
# Greatest residual of the system that is left, relative to its right-hand side: errors are a third of the usual noise.
TOLERANCE = 4e-3
MAX_CYCLES = 12
# Share of a coarser cell that lies inside, up to rounding, if all of it does.
WHOLE_SHARE = 0.999
# Sweeps of damped Jacobi before and after each coarser grid.
SWEEPS, DAMPING = 2, np.float32(0.8)


def impute(
    image: Float32[np.ndarray, "d h w"], removed: Bool[np.ndarray, "h w"], noise: float, rng: np.random.Generator
) -> Float32[np.ndarray, "d h w"]:
    """Replace the removed pixels: each the weighted mean of its neighbours, which may be removed too, and some noise.

    The sparse system of these means is solved by multigrid, from a guess at half the size, which is solved in the same
    way.

    Args:
        image: the image.
        removed: pixels to replace; not all.
        noise: standard deviation of the noise.
        rng: source of the noise.
    """
    known = np.where(removed, np.float32(0), image).transpose(1, 2, 0)
    filled = _solve(np.ascontiguousarray(known), removed)
    filled += noise * rng.standard_normal(filled.shape, np.float32) * removed[..., None]
    return np.ascontiguousarray(filled.transpose(2, 0, 1))


def _solve(known: Float32[np.ndarray, "h w d"], removed: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w d"]:
    """Solve the system for an image whose removed pixels are 0."""
    if not removed.any():
        return known
    grids = _make_grids(removed)
    target = grids[0].inside * _add_neighbours(known)
    limit = TOLERANCE * np.abs(target).max()
    found = grids[0].inside * _guess(known, removed)
    for _ in range(MAX_CYCLES):
        found = _cycle(found, target, grids)
        if np.abs(target - grids[0].apply(found)).max() <= limit:
            break
    return known + found


@dataclass(frozen=True, slots=True)
class _Grid:
    """System of a grid: each pixel inside times the weights of its neighbours, less their weighted sum."""

    inside: Float32[np.ndarray, "h w 1"]
    sums: Float32[np.ndarray, "h w 1"]

    def apply(self, values: Float32[np.ndarray, "h w d"]) -> Float32[np.ndarray, "h w d"]:
        """Return the left-hand side for these values, which are 0 outside."""
        return self.inside * (self.sums * values - _add_neighbours(values))


def _make_grids(removed: Bool[np.ndarray, "h w"]) -> list[_Grid]:
    """Return the grid, and coarser ones of the cells that lie wholly inside."""
    inside, grids = removed.astype(np.float32), []
    while inside.any():
        # Neighbours outside of the image do not count.
        grids.append(_Grid(inside[..., None], _add_neighbours(np.ones((*inside.shape, 1), np.float32))))
        if min(inside.shape) < 4:
            break
        height, width = inside.shape
        shares = cv2.resize(inside, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        inside = (shares > WHOLE_SHARE).astype(np.float32)
    return grids


def _cycle(
    values: Float32[np.ndarray, "h w d"], target: Float32[np.ndarray, "h w d"], grids: Sequence[_Grid]
) -> Float32[np.ndarray, "h w d"]:
    """Return values closer to the solution: a V-cycle of multigrid."""
    grid, *coarser = grids
    values = _smooth(values, target, grid)
    if coarser:
        height, width = coarser[0].inside.shape[:2]
        left = cv2.resize(target - grid.apply(values), (width, height), interpolation=cv2.INTER_AREA)
        # A pixel twice as wide: the same second derivative is four times the difference.
        left = 4 * coarser[0].inside * left.reshape(height, width, -1)
        change = _cycle(np.zeros_like(left), left, coarser)
        wide = cv2.resize(change, values.shape[1::-1], interpolation=cv2.INTER_LINEAR).reshape(values.shape)
        values = values + grid.inside * wide
    return _smooth(values, target, grid)


def _smooth(
    values: Float32[np.ndarray, "h w d"], target: Float32[np.ndarray, "h w d"], grid: _Grid
) -> Float32[np.ndarray, "h w d"]:
    for _ in range(SWEEPS):
        values = values + DAMPING * (target - grid.apply(values)) / grid.sums
    return values


def _guess(known: Float32[np.ndarray, "h w d"], removed: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w d"]:
    """Return the image filled at half its size, enlarged."""
    height, width = removed.shape
    half = (max(1, width // 2), max(1, height // 2))
    if min(removed.shape) < 4:
        count = max(1, int((~removed).sum()))
        return np.broadcast_to(known.sum((0, 1)) / count, known.shape).astype(np.float32)
    weight = cv2.resize((~removed).astype(np.float32), half, interpolation=cv2.INTER_AREA)
    less = cv2.resize(known, half, interpolation=cv2.INTER_AREA).reshape(*weight.shape, -1)
    gone = weight <= 0
    coarse = _solve(np.where(gone[..., None], 0, less / np.where(gone, 1, weight)[..., None]), gone)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(known.shape)


def _add_neighbours(values: Float32[np.ndarray, "h w d"]) -> Float32[np.ndarray, "h w d"]:
    return cv2.filter2D(values, -1, NEIGHBOURS, borderType=cv2.BORDER_CONSTANT).reshape(values.shape)

