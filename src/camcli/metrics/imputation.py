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
# Channels that are solved together, last in memory: as many as OpenCV takes.
CHANNELS = 4


def impute(
    image: Float32[np.ndarray, "d h w"], removed: Bool[np.ndarray, "h w"], noise: Float32[np.ndarray, "d h w"]
) -> Float32[np.ndarray, "d h w"]:
    """Replace the removed pixels: each the weighted mean of its neighbours, which may be removed too, and some noise.

    The sparse system of these means is solved by conjugate gradients, preconditioned by multigrid, from a guess at half
    the size, which is solved in the same way.

    Args:
        image: the image.
        removed: pixels to replace; not all.
        noise: what is added to those that are replaced.
    """
    known = np.where(removed, np.float32(0), image)
    filled = np.empty_like(known)
    for first in range(0, len(image), CHANNELS):
        some = slice(first, first + CHANNELS)
        filled[some] = _solve(np.stack([*known[some]], -1), removed, MAX_CYCLES).transpose(2, 0, 1)
    return np.asarray(np.add(filled, noise, out=filled, where=removed))


@dataclass(frozen=True, slots=True)
class _Grid:
    """System of a grid: each pixel inside times the weights of its neighbours, less their weighted sum.

    Attributes:
        inside: 1 for the unknown pixels, 0 for others; the same in each channel.
        sums: sums of the weights, of unknown pixels: neighbours outside of the image do not count.
        steps: what a sweep multiplies the target and the neighbours by.
    """

    inside: Float32[np.ndarray, "h w d"]
    sums: Float32[np.ndarray, "h w d"]
    steps: Float32[np.ndarray, "h w d"]

    def apply(self, values: Float32[np.ndarray, "h w d"]) -> Float32[np.ndarray, "h w d"]:
        """Return the left-hand side for values, which are 0 outside."""
        neighbours = _add_neighbours(values)
        neighbours *= self.inside
        return np.asarray(np.subtract(self.sums * values, neighbours, out=neighbours))

    def subtract(
        self, target: Float32[np.ndarray, "h w d"], values: Float32[np.ndarray, "h w d"]
    ) -> Float32[np.ndarray, "h w d"]:
        """Return what is left of the right-hand side for values."""
        applied = self.apply(values)
        return np.asarray(np.subtract(target, applied, out=applied))

    def smooth(
        self, values: Float32[np.ndarray, "h w d"] | None, target: Float32[np.ndarray, "h w d"]
    ) -> Float32[np.ndarray, "h w d"]:
        """Return values closer to the solution where they vary from pixel to pixel, by sweeps of damped Jacobi."""
        added = self.steps * target
        for _ in range(SWEEPS):
            if values is None:  # zeros
                values = added
                continue
            found = _add_neighbours(values)
            found *= self.steps
            found += added
            values = _add_scaled(found, float(1 - DAMPING), values)
        assert values is not None
        return values


def _solve(
    known: Float32[np.ndarray, "h w d"], removed: Bool[np.ndarray, "h w"], max_cycles: int
) -> Float32[np.ndarray, "h w d"]:
    """Fill an image whose removed pixels are 0, in at most so many cycles."""
    if not removed.any():
        return known
    grids = _make_grids(removed, known.shape[2])
    target = grids[0].inside * _add_neighbours(known)
    limit = TOLERANCE * cv2.norm(target, cv2.NORM_INF)
    found = _guess(known, removed)
    found *= grids[0].inside
    left = grids[0].subtract(target, found)
    direction, before, size = np.zeros_like(left), left, 1.0
    for _ in range(max_cycles):
        if cv2.norm(left, cv2.NORM_INF) <= limit:
            break
        step = _cycle(left, grids)
        # The flexible form (Polak and Ribiere), since a cycle is only nearly symmetric.
        direction = _add_scaled(step.copy(), float(np.vdot(step, left - before)) / size, direction)
        change = grids[0].apply(direction)
        length = float(np.vdot(left, direction) / np.vdot(direction, change))
        before, size = left, float(np.vdot(step, left))
        found = _add_scaled(found, length, direction)
        left = _add_scaled(left.copy(), -length, change)
    found += known
    return found


def _make_grid(inside: Float32[np.ndarray, "h w"], channels: int) -> _Grid:
    sums = _add_neighbours(np.ones((*inside.shape, 1), np.float32))[:, :, 0] * inside
    each = (inside, sums, DAMPING * inside / np.where(sums > 0, sums, 1))
    return _Grid(*(np.repeat(one[:, :, None], channels, 2) for one in each))


def _make_grids(removed: Bool[np.ndarray, "h w"], channels: int) -> list[_Grid]:
    """Return the grid, and coarser ones of the cells that lie wholly inside."""
    inside, grids = removed.astype(np.float32), list[_Grid]()
    while inside.any():
        grids.append(_make_grid(inside, channels))
        if min(inside.shape) < MIN_SIDE:
            break
        height, width = inside.shape
        shares = cv2.resize(inside, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        inside = (shares > WHOLE_SHARE).astype(np.float32)
    return grids


def _cycle(target: Float32[np.ndarray, "h w d"], grids: Sequence[_Grid]) -> Float32[np.ndarray, "h w d"]:
    """Return values near the solution: a V-cycle of multigrid, from zeros."""
    grid, *coarser = grids
    values = grid.smooth(None, target)
    if coarser:
        # A pixel twice as wide: the same second derivative is four times the difference.
        left = _resize(grid.subtract(target, values), coarser[0].inside.shape, cv2.INTER_AREA)
        left *= 4 * coarser[0].inside
        correction = _resize(_cycle(left, coarser), grid.inside.shape, cv2.INTER_LINEAR)
        correction *= grid.inside
        correction += values
        values = correction
    return grid.smooth(values, target)


def _guess(known: Float32[np.ndarray, "h w d"], removed: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w d"]:
    """Return the image filled at half its size, enlarged."""
    height, width = removed.shape
    if min(height, width) < MIN_SIDE:
        return np.asarray(known + known.sum((0, 1), keepdims=True) / max(1, int((~removed).sum())))
    half = height // 2, width // 2
    weight = cv2.resize((~removed).astype(np.float32), half[::-1], interpolation=cv2.INTER_AREA)
    gone = weight <= 0
    coarse = _resize(known, half, cv2.INTER_AREA) / np.where(gone, 1, weight)[:, :, None]
    return _resize(_solve(coarse, gone, 1), (height, width), cv2.INTER_LINEAR)


def _add_neighbours(values: Float32[np.ndarray, "h w d"]) -> Float32[np.ndarray, "h w d"]:
    # OpenCV drops a single channel.
    found = cv2.filter2D(values, -1, NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(found).reshape(values.shape)


def _add_scaled(
    values: Float32[np.ndarray, "h w d"], factor: float, added: Float32[np.ndarray, "h w d"]
) -> Float32[np.ndarray, "h w d"]:
    """Add an array times a factor to values, in place and in one pass; return them."""
    cv2.scaleAdd(added, factor, values, dst=values)
    return values


def _resize(
    values: Float32[np.ndarray, "h w d"], shape: tuple[int, ...], interpolation: int
) -> Float32[np.ndarray, "h2 w2 d"]:
    found = cv2.resize(values, (shape[1], shape[0]), interpolation=interpolation)
    return np.asarray(found).reshape(*shape[:2], values.shape[2])
