"""Placement of a layer's cells in the model's input, and resampling of maps between grids."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# The dimensions of a map that can be mirrored: rows and columns.
SPATIAL_DIMS = (-2, -1)


@dataclass(frozen=True, slots=True)
class Placement:
    """Centres of a grid's cells in pixels of the model's input, vertical before horizontal.

    Coordinates start at the input's upper left corner and refer to the edges (not the centres) of pixels, as in
    :class:`camcli.images.view.View`.

    Attributes:
        first: centre of the first cell; outside of the input where its receptive field lies mostly in the padding.
        stride: distance from each cell to the next.
        slices: number of slices of the cells, which stand one above the other; 1 for those of an image.
    """

    first: tuple[float, float]
    stride: tuple[float, float]
    slices: int = 1

    @classmethod
    def even(cls, grid: tuple[int, ...], size: tuple[int, int]) -> Placement:
        """Return the placement of cells that divide the input evenly, as with ``align_corners=False``."""
        down, across = (side / cells for side, cells in zip(size, grid[-2:], strict=True))
        return cls((down / 2, across / 2), (down, across))

    def mirror(self, grid: tuple[int, ...], size: tuple[int, int], dimensions: Collection[int]) -> Placement:
        """Return the placement for a map and an input that are both mirrored along these dimensions."""
        y, x = (
            side - (first + (cells - 1) * stride) if dimension in dimensions else first
            for side, first, stride, cells, dimension in zip(
                size, self.first, self.stride, grid[-2:], SPATIAL_DIMS, strict=True
            )
        )
        return Placement((y, x), self.stride)

    def scale(self, before: tuple[int, int], after: tuple[int, int]) -> Placement:
        """Return the placement of the same cells in an input resized from ``before`` to ``after``."""
        down, across = (new / old for old, new in zip(before, after, strict=True))
        return Placement(
            (self.first[0] * down, self.first[1] * across), (self.stride[0] * down, self.stride[1] * across)
        )

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """Placement as four numbers: x and y of the first cell's centre, horizontal and vertical stride."""
        return self.first[1], self.first[0], self.stride[1], self.stride[0]

    @classmethod
    def from_numbers(cls, numbers: tuple[float, float, float, float]) -> Placement:
        """Make a placement from the four values of :attr:`numbers`."""
        x, y, across, down = numbers
        return cls((y, x), (down, across))


def resample(
    maps: Float[Tensor, "n c h w"], source: Placement, destination: Placement, grid: tuple[int, int]
) -> Float[Tensor, "n c h2 w2"]:
    """Resample maps at the cell centres of another grid: bilinear between cells, constant beyond the outermost.

    Args:
        maps: maps, of any channels.
        source: placement of their cells.
        destination: placement of the other grid's cells.
        grid: rows and columns of the other grid.
    """
    rows, columns = (
        _bilinear_weights(
            cells, source.first[axis], source.stride[axis], destination.first[axis], destination.stride[axis], count
        ).to(maps)
        for axis, (cells, count) in enumerate(zip(maps.shape[2:], grid, strict=True))
    )
    return rows @ maps @ columns.mT


def upsample(
    maps: Float[Tensor, "n c h w"], size: tuple[int, int], placement: Placement | None = None
) -> Float[Tensor, "n c H W"]:
    """Resample maps at every pixel of an input of this size; without a placement, cells divide it evenly."""
    if placement is None:
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)
    return resample(maps, placement, Placement((0.5, 0.5), (1.0, 1.0)), size)


def _bilinear_weights(
    cells: int, first: float, stride: float, start: float, step: float, count: int
) -> Float[Tensor, "count cells"]:
    """Return the weight of each cell at each of ``count`` positions from ``start`` on."""
    places = ((start + step * torch.arange(count, dtype=torch.float64, device="cpu") - first) / stride).clamp(
        0, cells - 1
    )
    return (1 - (places[:, None] - torch.arange(cells, device="cpu")).abs()).clamp(min=0)
