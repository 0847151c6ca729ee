"""By how many pixels of the input a layer's cells lie apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# From images to each layer's cells (n, c, h, w), in the graph that starts at the images if these ask for one.
Cells = Callable[[Tensor], Mapping[str, Tensor]]
# From a number, a seed, and by how much larger both sides are to be, to so many images of noise.
Noise = Callable[[int, int, int], Tensor]
# Inputs are made smaller and larger by multiples of so many pixels, which no stride exceeds.
MODULUS = 128
# By how much more alike than at other shifts a layer's output and that of a shifted input must be where the shift is
# its stride: of noise nothing else is alike.
ALIKE = 0.15
# How many strides are tried at most.
MOST_STRIDES = 64


def find_strides(
    cells_of: Cells, name: str, cells: Float[Tensor, "n c h w"], given: Tensor, noise: Noise
) -> list[float]:
    """From each cell to the next, down and across.

    Where cells share the input by a power of two, that is their stride. Else it follows from how many more a larger
    input has; or, where the network takes none, it is the shift of the input that shifts them by one, if one does.
    """
    found = []
    for dimension, (count, side) in enumerate(zip(cells.shape[2:], given.shape[2:], strict=True), start=2):
        stride = side / count
        if count > 2 and not is_power_of_two(stride):
            tried = [*range(-(-side // (count + 2)), side // (count - 2) + 1)]
            more = _more(cells_of, name, noise, len(given), dimension) - count
            if more > 0 and MODULUS / more in tried:
                stride = MODULUS / more
            elif 2 < len(tried) <= MOST_STRIDES:
                likeness = _likenesses(cells_of, name, cells, given, dimension, tried)
                best = int(np.argmax(likeness))
                stride = float(tried[best]) if likeness[best] - np.median(likeness) > ALIKE else stride
            elif len(tried) == 1:
                stride = float(tried[0])
        found.append(stride)
    return found


def is_power_of_two(stride: float) -> bool:
    """Whether it is a power of two."""
    return stride.is_integer() and not int(stride) & (int(stride) - 1)


def _more(cells_of: Cells, name: str, noise: Noise, images: int, dimension: int) -> int:
    """How many cells an input has whose sides are so much larger as every stride divides; 0 where it cannot be had."""
    try:
        return cells_of(noise(images, 0, MODULUS))[name].shape[dimension]
    except Exception:  # whatever it is, the network takes no such input
        return 0


def _likenesses(
    cells_of: Cells,
    name: str,
    cells: Float[Tensor, "n c h w"],
    given: Tensor,
    dimension: int,
    shifts: Sequence[int],
) -> list[float]:
    """The correlation of a layer's output with that of the input shifted by so many pixels, one cell on."""
    count, images = cells.shape[dimension], len(given)
    one = cells[:1].narrow(dimension, 0, count - 1).float()
    one = one - one.mean((2, 3), keepdim=True)
    found: list[float] = []
    for start in range(0, len(shifts), images):
        some = [*shifts[start : start + images]]
        # A network may take so many images and no fewer.
        rolled = [given[:1].roll(shift, dimension) for shift in (some + some[-1:] * images)[:images]]
        shifted = cells_of(torch.cat(rolled))[name].narrow(dimension, 1, count - 1).float()
        shifted = shifted - shifted.mean((2, 3), keepdim=True)
        size = (one.square().sum() * shifted.square().sum((1, 2, 3))).sqrt()
        alike = (one * shifted).sum((1, 2, 3)) / size.where(size > 0, 1)
        found += alike[: len(some)].tolist()
    return found
