"""Strides of a layer's cells in pixels of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# From images to each layer's cells (n, c, h, w), in the graph that starts at the images if these ask for one.
ComputeCells = Callable[[Tensor], Mapping[str, Tensor]]
# Makes noise images from their number, a seed, and the pixels to add to both sides.
MakeNoise = Callable[[int, int, int], Tensor]
# Inputs are made smaller and larger by multiples of this many pixels, which no stride exceeds.
MODULUS = 128
# By how much the correlation of a layer's outputs for an input and a shifted one must exceed that at other shifts for
# the shift to be the stride.
MIN_CORRELATION_GAIN = 0.15
# The number of strides that are tried at most.
MAX_STRIDES = 64


def find_strides(
    compute_cells: ComputeCells, name: str, cells: Float[Tensor, "n c h w"], given: Tensor, noise: MakeNoise
) -> list[float]:
    """Find the strides of a layer's cells, down and across.

    Where the input divided by the number of cells is a power of two, that is the stride. Otherwise it follows from the
    number of cells of a larger input; or, if the network takes none, from the shift of the input that shifts the output
    by one cell.
    """
    found = []
    for dimension, (count, side) in enumerate(zip(cells.shape[2:], given.shape[2:], strict=True), start=2):
        stride = side / count
        if count > 2 and not is_power_of_two(stride):
            tried = [*range(-(-side // (count + 2)), side // (count - 2) + 1)]
            more = _count_cells_of_larger(compute_cells, name, noise, len(given), dimension) - count
            if more > 0 and MODULUS / more in tried:
                stride = MODULUS / more
            elif 2 < len(tried) <= MAX_STRIDES:
                likeness = _shift_correlations(compute_cells, name, cells, given, dimension, tried)
                best = int(np.argmax(likeness))
                stride = float(tried[best]) if likeness[best] - np.median(likeness) > MIN_CORRELATION_GAIN else stride
            elif len(tried) == 1:
                stride = float(tried[0])
        found.append(stride)
    return found


def is_power_of_two(stride: float) -> bool:
    """Return whether a stride is a power of two."""
    return stride.is_integer() and not int(stride) & (int(stride) - 1)


def _count_cells_of_larger(
    compute_cells: ComputeCells, name: str, noise: MakeNoise, images: int, dimension: int
) -> int:
    """Count the cells of an input whose sides are larger by ``MODULUS`` pixels; 0 if the network does not take it."""
    try:
        return compute_cells(noise(images, 0, MODULUS))[name].shape[dimension]
    except Exception:  # any error means that the network takes no such input
        return 0


def _shift_correlations(
    compute_cells: ComputeCells,
    name: str,
    cells: Float[Tensor, "n c h w"],
    given: Tensor,
    dimension: int,
    shifts: Sequence[int],
) -> list[float]:
    """Correlate a layer's output with that of the shifted input, one cell on, for each of the shifts in pixels."""
    count, images = cells.shape[dimension], len(given)
    one = cells[:1].narrow(dimension, 0, count - 1).float()
    one = one - one.mean((2, 3), keepdim=True)
    found: list[float] = []
    for start in range(0, len(shifts), images):
        some = [*shifts[start : start + images]]
        # The network may take this batch size only.
        rolled = [given[:1].roll(shift, dimension) for shift in (some + some[-1:] * images)[:images]]
        shifted = compute_cells(torch.cat(rolled))[name].narrow(dimension, 1, count - 1).float()
        shifted = shifted - shifted.mean((2, 3), keepdim=True)
        size = (one.square().sum() * shifted.square().sum((1, 2, 3))).sqrt()
        alike = (one * shifted).sum((1, 2, 3)) / size.where(size > 0, 1)
        found += alike[: len(some)].tolist()
    return found
