"""Where a layer's cells lie in the model's input, and maps brought from one grid to another by that."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# The dimensions of a map that a mirrored pass turns: down and across.
DIMENSIONS = (-2, -1)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the centres of a grid's cells lie, in pixels of the model's input; down before across.

    Counted from the input's upper left corner to the edges (not the centres) of pixels, as a :class:`View` counts.

    Attributes:
        first: of the first cell; outside of the input where its receptive field lies mostly in the padding.
        stride: from each cell to the next.
    """

    first: tuple[float, float]
    stride: tuple[float, float]

    @classmethod
    def even(cls, grid: tuple[int, ...], size: tuple[int, int]) -> Placement:
        """Of cells that share the input evenly, as ``align_corners=False`` has them."""
        down, across = (side / cells for side, cells in zip(size, grid[-2:], strict=True))
        return cls((down / 2, across / 2), (down, across))

    def mirrored(self, grid: tuple[int, ...], size: tuple[int, int], dimensions: Collection[int]) -> Placement:
        """Of the cells of a mirrored map, over the input mirrored likewise."""
        y, x = (
            side - (first + (cells - 1) * stride) if dimension in dimensions else first
            for side, first, stride, cells, dimension in zip(
                size, self.first, self.stride, grid[-2:], DIMENSIONS, strict=True
            )
        )
        return Placement((y, x), self.stride)

    def scaled(self, before: tuple[int, int], after: tuple[int, int]) -> Placement:
        """Of the same cells, where an input of the size ``before`` is stretched to the size ``after``."""
        down, across = (new / old for old, new in zip(before, after, strict=True))
        return Placement(
            (self.first[0] * down, self.first[1] * across), (self.stride[0] * down, self.stride[1] * across)
        )

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """X and y of the first cell's centre, and the strides across and down."""
        return self.first[1], self.first[0], self.stride[1], self.stride[0]

    @classmethod
    def of(cls, numbers: tuple[float, float, float, float]) -> Placement:
        """The inverse of :attr:`numbers`."""
        x, y, across, down = numbers
        return cls((y, x), (down, across))


def moved(
    maps: Float[Tensor, "n c h w"], own: Placement, onto: Placement, grid: tuple[int, int]
) -> Float[Tensor, "n c h2 w2"]:
    """Maps at the centres of another grid's cells: bilinear between their own, constant beyond the outermost.

    Args:
        maps: of some channels.
        own: where their cells lie.
        onto: where the other grid's cells lie.
        grid: rows and columns of that.
    """
    rows, columns = (
        _shares(cells, own.first[axis], own.stride[axis], onto.first[axis], onto.stride[axis], count).to(maps)
        for axis, (cells, count) in enumerate(zip(maps.shape[2:], grid, strict=True))
    )
    return rows @ maps @ columns.mT


def at_pixels(
    maps: Float[Tensor, "n c h w"], size: tuple[int, int], own: Placement | None = None
) -> Float[Tensor, "n c H W"]:
    """Maps at every pixel of an input of this size, likewise; with no placement their cells share it evenly."""
    if own is None:
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)
    return moved(maps, own, Placement((0.5, 0.5), (1.0, 1.0)), size)


def _shares(
    cells: int, first: float, stride: float, start: float, step: float, count: int
) -> Float[Tensor, "count cells"]:
    """What each of ``count`` places, from ``start`` on, has of each cell."""
    places = ((start + step * torch.arange(count, dtype=torch.float64, device="cpu") - first) / stride).clamp(
        0, cells - 1
    )
    return (1 - (places[:, None] - torch.arange(cells, device="cpu")).abs()).clamp(min=0)
