"""Where each layer looks: the places of its cells in the model's input, measured on noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from camcli.engine.layers.strides import MODULUS, Cells, Noise, find_strides, is_power_of_two
from camcli.images.placement import Placement

# Lines of cells that are measured at a time along each axis, and at most.
LINES, MOST_LINES = 4, 12
# Of a pixel of the input: what is found is rounded to so much.
GRAIN = 0.5
# Of a stride, and in pixels, the least that counts as an offset; and what of a stride need not be known better.
LEAST, LEAST_PIXELS, ENOUGH = 1 / 32, 1.0, 1 / 16
# At first small inputs are tried, with so few lines; their least side.
BRIEF, LEAST_SIDE = 3, 96
# Student's t at 99.5 % by the number of lines: how many standard errors an offset must have to be believed.
STUDENT = {3: 9.92, 4: 5.84, 8: 3.50, 12: 3.11}
# Of a line's profile, the share of pixels that are taken for its floor, as global branches lay one below everything.
FLOOR = 0.02
# Inputs of more pixels are measured at a smaller size; and its least side.
MOST_PIXELS, SIDE = 2**18, 224
# So many layers are measured at small inputs first, and with more lines where some do not settle it.
FEW = 2
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


@dataclass(slots=True)
class _Axis:
    """What is known along one axis of a layer.

    Attributes:
        cells: how many there are.
        pixels: of the input.
        stride: from each cell to the next.
        lines: of each line measured its number, and the squared gradient by each row or column of pixels.
        offset, error: what follows from these.
    """

    cells: int
    pixels: int
    stride: float
    lines: list[tuple[int, np.ndarray]] = field(default_factory=list)
    offset: float = 0.0
    error: float = 0.0

    def centre(self, line: int) -> float:
        """Where this line lies if the grid is centred in the input."""
        return self.pixels / 2 + (line - (self.cells - 1) / 2) * self.stride

    def settle(self) -> None:
        """Find the offset of the lines measured, and its standard error by leaving each out in turn."""
        self.offset = self._offset(self.lines)
        without = [self._offset([*self.lines[:turn], *self.lines[turn + 1 :]]) for turn in range(len(self.lines))]
        count = len(self.lines)
        self.error = float(np.sqrt((count - 1) / count * np.square(np.array(without) - np.mean(without)).sum()))

    @property
    def believed(self) -> bool:
        """Whether there is an offset, beyond what the lines resolve."""
        return abs(self.offset) > max(STUDENT[len(self.lines)] * self.error, LEAST * self.stride, LEAST_PIXELS)

    @property
    def settled(self) -> bool:
        """Whether more lines would hardly say more: it is believed, or is small, or is too uncertain for them."""
        reached = STUDENT[MOST_LINES] * self.error * (len(self.lines) / MOST_LINES) ** 0.5
        return self.believed or self._known or abs(self.offset) < reached

    @property
    def plain(self) -> bool:
        """Whether so few lines leave no doubt: it is known well, and is believed or is none."""
        return self._known and (self.believed or abs(self.offset) <= max(LEAST * self.stride, LEAST_PIXELS))

    @property
    def _known(self) -> bool:
        return STUDENT[len(self.lines)] * self.error < ENOUGH * self.stride

    def _offset(self, lines: Sequence[tuple[int, np.ndarray]]) -> float:
        """Where the lines are drawn, minus the common centre of what they look at.

        About each line the centre is taken in a window that lies symmetrically about it and within the input, and the
        windows move to it until they stay: so a receptive field that the border cuts off pulls nothing to the middle.
        """
        pixels = np.arange(self.pixels) + 0.5
        offset = 0.0
        for _ in range(100):
            moment = mass = 0.0
            for line, profile in lines:
                centre = self.centre(line) - offset
                reach = min(centre, self.pixels - centre)
                inside = np.clip(reach + 0.5 - np.abs(pixels - centre), 0, 1) * profile
                moment += float((inside * (pixels - centre)).sum())
                mass += float(inside.sum())
            if not mass:
                break
            step = moment / mass
            offset -= step
            if abs(step) < GRAIN / 100:
                break
        return offset


def locate(cells_of: Cells, noise: Noise, images: int = 0) -> dict[str, Located]:
    """Where the cells of each layer lie in the model's input.

    A cell looks where the score's gradient could come from: at the centre of its squared input gradient, of random
    signs over the channels, on noise. Measured are whole lines (a column of cells for x, a row for y) near the middle.
    What is found counts only beyond its own standard error.

    Args:
        cells_of: from images to each layer's cells.
        noise: gives the images.
        images: how many the network must be given at once; 0 if that is free.

    Raises:
        Exception: whatever the network says that cannot go back.
    """
    count = images or LINES
    with torch.no_grad():
        given = noise(images or 1, 0, 0)
        size = (given.shape[2], given.shape[3])
        axes = {
            name: list(map(_Axis, cells.shape[2:], size, find_strides(cells_of, name, cells, given, noise)))
            for name, cells in cells_of(given).items()
        }
    open_ = dict(axes)
    unknown: dict[str, str] = {}
    for turn in range(0, MOST_LINES, LINES):
        unknown |= _measure(cells_of, open_, noise, count, turn)
        for some in (some for name, some in open_.items() if name not in unknown):
            for axis in some:
                axis.settle()
        open_ = {name: some for name, some in open_.items() if name not in unknown and not all(a.settled for a in some)}
        if not open_ or len(axes) > FEW:
            break
    return {name: _located(some, size, unknown.get(name, "")) for name, some in axes.items()}


def locate_briefly(cells_of: Cells, noise: Noise) -> dict[str, Located]:
    """Likewise by a few lines of small inputs: of those layers alone where these leave no doubt.

    Args:
        cells_of: from images to each layer's cells.
        noise: gives the images, small ones.

    Raises:
        Exception: whatever the network says that takes no such images, or cannot go back.
    """
    given = noise(BRIEF, 1, 0).requires_grad_()
    found, size = cells_of(given), (given.shape[2], given.shape[3])
    axes = {
        name: [_Axis(count, side, side / count) for count, side in zip(cells.shape[2:], size, strict=True)]
        for name, cells in found.items()
        if all(
            count >= BRIEF and is_power_of_two(side / count) for count, side in zip(cells.shape[2:], size, strict=True)
        )
    }
    unknown = _measure_lines(given, found, axes, range(BRIEF), torch.Generator().manual_seed(0))
    some = {name: axes[name] for name in axes if name not in unknown}
    for axis in (axis for both in some.values() for axis in both):
        axis.settle()
    return {name: _located(both, size, "") for name, both in some.items() if all(axis.plain for axis in both)}


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


def _located(axes: Sequence[_Axis], size: tuple[int, int], unknown: str) -> Located:
    down, across = axes
    grid, stride = (down.cells, across.cells), (down.stride, across.stride)
    even = Placement.even(grid, size)
    if unknown:
        return Located(grid, stride=even.stride, unknown=unknown)
    y, x = (round(axis.offset / GRAIN) * GRAIN if axis.believed else 0.0 for axis in axes)
    placement = Placement((down.centre(0) - y, across.centre(0) - x), stride)
    error = (round(down.error, 2), round(across.error, 2))
    return Located(grid, (y, x), error, stride, None if (y, x) == (0, 0) and stride == even.stride else placement)


def _measure(
    cells_of: Cells,
    layers: Mapping[str, Sequence[_Axis]],
    noise: Noise,
    images: int,
    turn: int,
) -> dict[str, str]:
    """Measure more lines of each layer; of which nothing can be measured, the reasons."""
    signs = torch.Generator().manual_seed(turn)
    unknown: dict[str, str] = {}
    for start in range(turn, turn + LINES, images):
        given = noise(images, start + 1, 0).requires_grad_()
        turns = range(start, min(start + images, turn + LINES))
        unknown |= _measure_lines(given, cells_of(given), layers, turns, signs)
        layers = {name: axes for name, axes in layers.items() if name not in unknown}
    return unknown


def _measure_lines(
    given: Tensor,
    found: Mapping[str, Tensor],
    layers: Mapping[str, Sequence[_Axis]],
    turns: range,
    signs: torch.Generator,
) -> dict[str, str]:
    """Measure one line of each layer and axis in each of these images; of which nothing can be, the reasons."""
    unknown: dict[str, str] = {}
    for name, axes in layers.items():
        for dimension, axis in enumerate(axes):
            lines = [_line(axis.cells, turn) for turn in turns]
            total = sum(_signed(found[name][row], dimension, line, signs) for row, line in enumerate(lines))
            assert isinstance(total, Tensor)
            back = None
            if total.requires_grad:
                (back,) = torch.autograd.grad(total, [given], retain_graph=True, allow_unused=True)
            if back is None or not bool(back.any()):
                unknown[name] = "no gradient goes back from it to the input"
                break
            squared = back.detach().double().square().sum((1, 3 - dimension)).cpu().numpy()
            axis.lines += [(line, _profile(squared[row])) for row, line in enumerate(lines)]
    return unknown


def _signed(cells: Float[Tensor, "c h w"], dimension: int, line: int, signs: torch.Generator) -> Tensor:
    """The sum over a row (0) or column (1) of cells, of all channels, with random signs."""
    values = cells.select(dimension + 1, line)
    drawn = torch.randint(0, 2, values.shape, generator=signs, device="cpu") * 2 - 1
    return (values * drawn.to(values)).sum()


def _line(cells: int, turn: int) -> int:
    """Lines near the middle, symmetrically about it, one after the other."""
    middle = (cells - 1) // 2
    near = [middle, middle + 1] if cells % 2 == 0 else [middle, middle - 1, middle, middle + 1]
    return min(max(near[turn % len(near)], 0), cells - 1)


def _profile(squared: np.ndarray) -> np.ndarray:
    """What stands above the floor, its sum 1."""
    above = np.clip(squared - np.quantile(squared, FLOOR), 0, None)
    total = above.sum()
    return np.asarray(above / total if total else above)
