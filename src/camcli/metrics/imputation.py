"""Noisy linear imputation of missing pixels (Rong et al. 2022, arXiv:2202.00449, sec. 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

# Weights of a pixel's eight neighbours, as in the authors' code: 1/6 beside it, 1/12 across a corner.
NEIGHBOURS = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], np.float32) / 12
# Greatest residual of the system that is left, relative to its right-hand side: errors are below the usual noise.
TOLERANCE = 5e-4
MAX_CYCLES = 12
# Share of a coarser cell that lies inside, up to rounding, if all of it does.
WHOLE_SHARE = 0.999
# Sweeps of damped Jacobi before and after each coarser grid.
SWEEPS, DAMPING = 2, np.float32(0.8)
MIN_SIDE = 4


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
    filled = _solve(np.where(removed, np.float32(0), image), removed, MAX_CYCLES)
    filled += np.float32(noise) * rng.standard_normal(filled.shape, np.float32) * removed
    return filled


@dataclass(frozen=True, slots=True)
class _Grid:
    """System of a grid: each pixel inside times the weights of its neighbours, less their weighted sum.

    Attributes:
        inside: 1 for the unknown pixels, 0 for others.
        sums: sums of the weights, of unknown pixels: neighbours outside of the image do not count.
        steps: what a sweep multiplies the target and the neighbours by.
    """

    inside: Float32[np.ndarray, "h w"]
    sums: Float32[np.ndarray, "h w"]
    steps: Float32[np.ndarray, "h w"]

    def find_residual(
        self, values: Float32[np.ndarray, "d h w"], target: Float32[np.ndarray, "d h w"]
    ) -> Float32[np.ndarray, "d h w"]:
        """Return the target less the left-hand side for values, which are 0 outside."""
        left = _add_neighbours(values)
        left *= self.inside
        left += target
        left -= self.sums * values
        return left

    def smooth(
        self, values: Float32[np.ndarray, "d h w"], target: Float32[np.ndarray, "d h w"]
    ) -> Float32[np.ndarray, "d h w"]:
        """Return values closer to the solution where they vary from pixel to pixel, by sweeps of damped Jacobi."""
        for _ in range(SWEEPS):
            found = _add_neighbours(values)
            found += target
            found *= self.steps
            found += (1 - DAMPING) * values
            values = found
        return values


def _solve(
    known: Float32[np.ndarray, "d h w"], removed: Bool[np.ndarray, "h w"], max_cycles: int
) -> Float32[np.ndarray, "d h w"]:
    """Fill an image whose removed pixels are 0, in at most so many cycles."""
    if not removed.any():
        return known
    grids = _make_grids(removed)
    target = grids[0].inside * _add_neighbours(known)
    limit = TOLERANCE * np.abs(target).max()
    found: Float32[np.ndarray, "d h w"] = grids[0].inside * _guess(known, removed)
    for _ in range(max_cycles):
        found = _cycle(found, target, grids)
        if np.abs(grids[0].find_residual(found, target)).max() <= limit:
            break
    found += known
    return found


def _make_grid(inside: Float32[np.ndarray, "h w"]) -> _Grid:
    sums = _add_neighbours(np.ones_like(inside)[None])[0] * inside
    return _Grid(inside, sums, DAMPING * inside / np.where(sums > 0, sums, 1))


def _make_grids(removed: Bool[np.ndarray, "h w"]) -> list[_Grid]:
    """Return the grid, and coarser ones of the cells that lie wholly inside."""
    inside, grids = removed.astype(np.float32), list[_Grid]()
    while inside.any():
        grids.append(_make_grid(inside))
        if min(inside.shape) < MIN_SIDE:
            break
        height, width = inside.shape
        shares = cv2.resize(inside, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        inside = (shares > WHOLE_SHARE).astype(np.float32)
    return grids


def _cycle(
    values: Float32[np.ndarray, "d h w"], target: Float32[np.ndarray, "d h w"], grids: Sequence[_Grid]
) -> Float32[np.ndarray, "d h w"]:
    """Return values closer to the solution: a V-cycle of multigrid."""
    grid, *coarser = grids
    values = grid.smooth(values, target)
    if coarser:
        # A pixel twice as wide: the same second derivative is four times the difference.
        left = _resize(grid.find_residual(values, target), coarser[0].inside.shape, cv2.INTER_AREA)
        left *= 4 * coarser[0].inside
        change = _cycle(np.zeros_like(left), left, coarser)
        values += grid.inside * _resize(change, grid.inside.shape, cv2.INTER_LINEAR)
    return grid.smooth(values, target)


def _guess(known: Float32[np.ndarray, "d h w"], removed: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "d h w"]:
    """Return the image filled at half its size, enlarged."""
    height, width = removed.shape
    if min(height, width) < MIN_SIDE:
        return np.asarray(known + known.sum((1, 2), keepdims=True) / max(1, int((~removed).sum())))
    half = height // 2, width // 2
    weight = cv2.resize((~removed).astype(np.float32), half[::-1], interpolation=cv2.INTER_AREA)
    gone = weight <= 0
    coarse = _solve(_resize(known, half, cv2.INTER_AREA) / np.where(gone, 1, weight), gone, 1)
    return _resize(coarse, (height, width), cv2.INTER_LINEAR)


def _add_neighbours(values: Float32[np.ndarray, "d h w"]) -> Float32[np.ndarray, "d h w"]:
    found = np.empty_like(values)
    for plane, onto in zip(values, found, strict=True):
        cv2.filter2D(plane, -1, NEIGHBOURS, dst=onto, borderType=cv2.BORDER_CONSTANT)
    return found


def _resize(
    values: Float32[np.ndarray, "d h w"], shape: tuple[int, ...], interpolation: int
) -> Float32[np.ndarray, "d h2 w2"]:
    return np.stack([cv2.resize(plane, shape[::-1], interpolation=interpolation) for plane in values])
