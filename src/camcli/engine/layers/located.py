"""The places of a layer's cells: evenly, at other sizes of inputs, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from camcli.images.placement import Placement

# Inputs of more pixels are measured at a smaller size, by multiples of so much, which no stride exceeds; and its least
# side.
MOST_PIXELS, MODULUS, SIDE = 2**18, 128, 224
# The least side of the small inputs that are tried at first.
LEAST_SIDE = 96
# Of a stride, from which offset on tokens are taken to be read wrongly.
MISPLACED = 0.75
MISREAD = "its tokens look elsewhere by about a cell, as do tokens that are read wrongly"


@dataclass(frozen=True, slots=True)
class Located:
    """Where a layer's cells lie in inputs of one size; all pairs are down and across, in pixels of the input.

    Attributes:
        grid: rows and columns of cells.
        offset: where a cell lies if the grid is centred in the input, minus where it looks; 0 where no offset is
            beyond what the measurement resolves.
        error: the standard error of that.
        stride: from each cell to the next.
        placement: what follows from these; None where the cells share the input evenly.
        unknown: why nothing could be measured; empty if it could.
    """

    grid: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)
    error: tuple[float, float] = (0.0, 0.0)
    stride: tuple[float, float] = (0.0, 0.0)
    placement: Placement | None = None
    unknown: str = ""


def evenly(grid: tuple[int, int], size: tuple[int, int]) -> Located:
    """Cells that share the input evenly, as the network's steps say."""
    return Located(grid, stride=Placement.even(grid, size).stride)


def smaller(size: tuple[int, int]) -> tuple[int, int]:
    """The size at which inputs of this one are measured: of large ones one of the same rest by every stride."""
    return size if size[0] * size[1] <= MOST_PIXELS else least(size, SIDE)


def least(size: tuple[int, int], side: int = LEAST_SIDE) -> tuple[int, int]:
    """The least size of the same rest by every stride whose sides are no smaller than this one."""
    height, width = (own - max(0, own - side) // MODULUS * MODULUS for own in size)
    return height, width


def carried(found: Located, before: tuple[int, int], grid: tuple[int, int], size: tuple[int, int]) -> Located:
    """What was found for inputs of the size ``before``, for those of another ``size``, whose grid is known.

    The first cell lies where it did, since the padding before it does not depend on how much comes behind.
    """
    if found.unknown or size == before:
        return found
    here = found.placement or Placement.even(found.grid, before)
    steps = zip(size, before, grid, found.grid, here.stride, strict=True)
    if any(side - old != (cells - fewer) * stride for side, old, cells, fewer, stride in steps):
        return Located(grid, stride=Placement.even(grid, size).stride, unknown="its cells are others at other sizes")
    y, x = (
        (side - (cells - 1) * stride) / 2 - first
        for side, cells, stride, first in zip(size, grid, here.stride, here.first, strict=True)
    )
    placement = None if here == Placement.even(grid, size) else here
    return Located(grid, (y, x), found.error, here.stride, placement)


def of_tokens(found: Located) -> Located:
    """What was found of a sequence that is read as a grid: what looks a cell away is read wrongly, and is not moved."""
    if all(abs(offset) < MISPLACED * stride for offset, stride in zip(found.offset, found.stride, strict=True)):
        return found
    return Located(found.grid, error=found.error, stride=found.stride, unknown=MISREAD)


def words_of(found: Mapping[str, Located], size: tuple[int, int]) -> list[str]:
    """What a reader of all maps must know of where layers look."""
    words = []
    for name, one in found.items():
        rows, columns = one.grid
        if one.unknown == MISREAD:
            continue  # how tokens are read is said where it is not sure
        if one.unknown:
            words.append(
                f"where the layer {name!r} looks cannot be measured ({one.unknown}): its cells are drawn as if they "
                "shared the input evenly"
            )
        elif one.placement and one.stride == Placement.even(one.grid, size).stride:
            (y, x), (down, across) = one.offset, one.stride
            words.append(
                f"the layer {name!r} looks {_way(x, 'left', 'right')} and {_way(y, 'up', 'down')} of where its cells "
                f"of {across:g}x{down:g} pixels would lie evenly, and its maps are drawn where it looks "
                "(--placement even: not)"
            )
        elif one.placement:
            x, y, across, down = one.placement.numbers
            words.append(
                f"the {rows}x{columns} cells of {name} do not divide {size[0]}x{size[1]} evenly: they are drawn where "
                f"they look, {across:g} pixels apart from x {x:g} and {down:g} from y {y:g} on (--placement even: not)"
            )
    return words


def _way(offset: float, before: str, behind: str) -> str:
    return f"{abs(offset):g} pixels {before if offset > 0 else behind}" if offset else "0 pixels aside"
