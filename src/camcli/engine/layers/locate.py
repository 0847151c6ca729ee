"""Positions of each layer's cells in the model's input, measured on noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from camcli.engine.layers.strides import MODULUS, ComputeCells, MakeNoise, find_strides, is_power_of_two
from camcli.images.placement import Placement

# The number of lines of cells measured at a time along each axis, and at most.
LINES, MAX_LINES = 4, 12
# Offsets are rounded to this many pixels of the input.
OFFSET_STEP = 0.5
# The smallest offset that counts, in strides and in pixels; and the precision in strides that is enough.
MIN_OFFSET_STRIDES, MIN_OFFSET_PIXELS, ENOUGH_PRECISION = 1 / 32, 1.0, 1 / 16
# Small inputs are tried first, with this many lines; and their least side.
BRIEF_LINES, MIN_SIDE = 3, 96
# Student's t at 99.5 % by the number of lines: the standard errors that an offset must exceed to be significant.
STUDENT_T = {3: 9.92, 4: 5.84, 8: 3.50, 12: 3.11}
# The quantile of a line's profile that is its floor, since global branches add a constant everywhere.
FLOOR_QUANTILE = 0.02
# Inputs of more pixels are measured at a smaller size; and the least side of that.
MAX_PIXELS, REDUCED_SIDE = 2**18, 224
# The offset in strides from which on the layout of tokens is taken to be wrong.
MISREAD_OFFSET = 0.75
MISREAD = "the receptive fields of its tokens are off by about a cell, as with a wrong layout"


@dataclass(frozen=True, slots=True)
class GridLocation:
    """Positions of a layer's cells in inputs of one size; all pairs are down and across, in pixels of the input.

    Attributes:
        grid: rows and columns of cells.
        offset: a cell's centre in a grid centred in the input, minus its receptive field's centre; 0 where that is
            not significant.
        error: the standard error of the offset.
        stride: the distance from each cell to the next.
        placement: the placement that follows; None where the cells share the input evenly.
        unknown_reason: why nothing could be measured; empty if it could.
    """

    grid: tuple[int, int]
    offset: tuple[float, float] = (0.0, 0.0)
    error: tuple[float, float] = (0.0, 0.0)
    stride: tuple[float, float] = (0.0, 0.0)
    placement: Placement | None = None
    unknown_reason: str = ""


@dataclass(slots=True)
class _Axis:
    """Measurements along one axis of a layer.

    Attributes:
        cells: the number of cells.
        pixels: the number of pixels of the input.
        stride: the distance from each cell to the next.
        lines: the number of each line measured, and its squared gradient by each row or column of pixels.
        offset: the offset estimated from the lines.
        error: the standard error of the offset.
    """

    cells: int
    pixels: int
    stride: float
    lines: list[tuple[int, np.ndarray]] = field(default_factory=list)
    offset: float = 0.0
    error: float = 0.0

    def centre(self, line: int) -> float:
        """Return the centre of a line in pixels if the grid is centred in the input."""
        return self.pixels / 2 + (line - (self.cells - 1) / 2) * self.stride

    def fit_offset(self) -> None:
        """Find the offset of the lines measured, and its standard error by leaving each out in turn."""
        self.offset = self._estimate_offset(self.lines)
        without = [
            self._estimate_offset([*self.lines[:turn], *self.lines[turn + 1 :]]) for turn in range(len(self.lines))
        ]
        count = len(self.lines)
        self.error = float(np.sqrt((count - 1) / count * np.square(np.array(without) - np.mean(without)).sum()))

    @property
    def is_significant(self) -> bool:
        """True if there is an offset beyond the error of the measurement."""
        return abs(self.offset) > max(
            STUDENT_T[len(self.lines)] * self.error, MIN_OFFSET_STRIDES * self.stride, MIN_OFFSET_PIXELS
        )

    @property
    def is_settled(self) -> bool:
        """True if more lines would not help: the offset is significant, precise enough, or too uncertain for them."""
        reached = STUDENT_T[MAX_LINES] * self.error * (len(self.lines) / MAX_LINES) ** 0.5
        return self.is_significant or self._is_precise or abs(self.offset) < reached

    @property
    def is_clear(self) -> bool:
        """True if a few lines leave no doubt: the offset is precise, and is significant or negligible."""
        return self._is_precise and (
            self.is_significant or abs(self.offset) <= max(MIN_OFFSET_STRIDES * self.stride, MIN_OFFSET_PIXELS)
        )

    @property
    def _is_precise(self) -> bool:
        return STUDENT_T[len(self.lines)] * self.error < ENOUGH_PRECISION * self.stride

    def _estimate_offset(self, lines: Sequence[tuple[int, np.ndarray]]) -> float:
        """Estimate the offset: the lines' centres in a centred grid, minus the centres of their receptive fields.

        The centre is taken within a window that is symmetric about each line and lies within the input; the windows are
        moved to the centre until they stay, so that receptive fields cut off by the border do not bias the estimate.
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
            if abs(step) < OFFSET_STEP / 100:
                break
        return offset


def locate(compute_cells: ComputeCells, noise: MakeNoise, images: int = 0) -> dict[str, GridLocation]:
    """Locate the cells of each layer in the model's input.

    A cell's position is the centre of its squared input gradient on noise, with random signs over the channels. Whole
    lines (a column of cells for x, a row for y) near the middle are measured. An offset counts only if it exceeds its
    standard error significantly.

    Args:
        compute_cells: from images to each layer's cells.
        noise: makes the images.
        images: the batch size that the network requires; 0 for any.

    Raises:
        Exception: any error of a network that has no backward.
    """
    count = images or LINES
    with torch.no_grad():
        given = noise(images or 1, 0, 0)
        size = (given.shape[2], given.shape[3])
        axes = {
            name: list(map(_Axis, cells.shape[2:], size, find_strides(compute_cells, name, cells, given, noise)))
            for name, cells in compute_cells(given).items()
        }
    open_ = dict(axes)
    unknown: dict[str, str] = {}
    for turn in range(0, MAX_LINES, LINES):
        unknown |= _measure(compute_cells, open_, noise, count, turn)
        for some in (some for name, some in open_.items() if name not in unknown):
            for axis in some:
                axis.fit_offset()
        open_ = {
            name: some for name, some in open_.items() if name not in unknown and not all(a.is_settled for a in some)
        }
        if not open_:
            break
    return {name: _make_location(some, size, unknown.get(name, "")) for name, some in axes.items()}


def locate_briefly(compute_cells: ComputeCells, noise: MakeNoise) -> dict[str, GridLocation]:
    """Locate the cells by a few lines of small inputs, for those layers alone where these leave no doubt.

    Args:
        compute_cells: from images to each layer's cells.
        noise: makes the images, small ones.

    Raises:
        Exception: any error of a network that does not take such images, or has no backward.
    """
    given = noise(BRIEF_LINES, 1, 0).requires_grad_()
    found, size = compute_cells(given), (given.shape[2], given.shape[3])
    axes = {
        name: [_Axis(count, side, side / count) for count, side in zip(cells.shape[2:], size, strict=True)]
        for name, cells in found.items()
        if all(
            count >= BRIEF_LINES and is_power_of_two(side / count)
            for count, side in zip(cells.shape[2:], size, strict=True)
        )
    }
    unknown = _measure_lines(given, found, axes, range(BRIEF_LINES), _seed_signs(axes, 0))
    some = {name: axes[name] for name in axes if name not in unknown}
    for axis in (axis for both in some.values() for axis in both):
        axis.fit_offset()
    return {name: _make_location(both, size, "") for name, both in some.items() if all(axis.is_clear for axis in both)}


def even_location(grid: tuple[int, int], size: tuple[int, int], slices: int = 0) -> GridLocation:
    """Return the location of cells that share the input evenly; of ``slices`` of them, if they are of a volume."""
    even = Placement.even(grid, size)
    return GridLocation(grid, stride=even.stride, placement=replace(even, slices=slices) if slices else None)


def reduce_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size to measure at: for large inputs a smaller one with the same remainder by every stride."""
    return size if size[0] * size[1] <= MAX_PIXELS else find_smallest_size(size, REDUCED_SIDE)


def find_smallest_size(size: tuple[int, int], side: int = MIN_SIDE) -> tuple[int, int]:
    """Find the smallest size with the same remainder by every stride whose sides are at least ``side``."""
    height, width = (own - max(0, own - side) // MODULUS * MODULUS for own in size)
    return height, width


def transfer_location(
    found: GridLocation, before: tuple[int, int], grid: tuple[int, int], size: tuple[int, int]
) -> GridLocation:
    """Transfer a location from inputs of the size ``before`` to inputs of another size with a known grid.

    The first cell stays in place, since the padding before it does not depend on the input's size.
    """
    if found.unknown_reason or size == before:
        return found
    here = found.placement or Placement.even(found.grid, before)
    steps = zip(size, before, grid, found.grid, here.stride, strict=True)
    if any(side - old != (cells - fewer) * stride for side, old, cells, fewer, stride in steps):
        return GridLocation(
            grid,
            stride=Placement.even(grid, size).stride,
            unknown_reason=("its grid changes irregularly with the input size"),
        )
    y, x = (
        (side - (cells - 1) * stride) / 2 - first
        for side, cells, stride, first in zip(size, grid, here.stride, here.first, strict=True)
    )
    placement = None if here == Placement.even(grid, size) else here
    return GridLocation(grid, (y, x), found.error, here.stride, placement)


def reject_misread_tokens(found: GridLocation) -> GridLocation:
    """Reject a location of tokens that are off by about a cell, since their layout is then probably wrong."""
    if all(abs(offset) < MISREAD_OFFSET * stride for offset, stride in zip(found.offset, found.stride, strict=True)):
        return found
    return GridLocation(found.grid, error=found.error, stride=found.stride, unknown_reason=MISREAD)


def describe_locations(found: Mapping[str, GridLocation], size: tuple[int, int]) -> list[str]:
    """Describe the layers' locations in notes for the reader of their maps."""
    words = []
    for name, one in found.items():
        rows, columns = one.grid
        if one.unknown_reason == MISREAD:
            continue  # an uncertain layout of tokens has a note of its own
        if one.unknown_reason:
            words.append(
                f"the receptive fields of the layer {name!r} cannot be located ({one.unknown_reason}): its cells are "
                "drawn evenly spread over the input"
            )
        elif one.placement and one.stride == Placement.even(one.grid, size).stride:
            (y, x), (down, across) = one.offset, one.stride
            words.append(
                f"the receptive fields of the layer {name!r} are shifted by {_describe_offset(x, 'left', 'right')} "
                f"and {_describe_offset(y, 'up', 'down')} from an even grid of {across:g}x{down:g} pixels a cell, and "
                "its maps are drawn there (--placement even: on the even grid)"
            )
        elif one.placement:
            x, y, across, down = one.placement.numbers
            words.append(
                f"the {rows}x{columns} cells of {name} do not divide {size[0]}x{size[1]} evenly: they are drawn at "
                f"their receptive fields, {across:g} pixels apart from x {x:g} and {down:g} from y {y:g} on "
                "(--placement even: on an even grid)"
            )
    return words


def _describe_offset(offset: float, before: str, behind: str) -> str:
    return f"{abs(offset):g} pixels {before if offset > 0 else behind}" if offset else "0 pixels"


def _make_location(axes: Sequence[_Axis], size: tuple[int, int], unknown: str) -> GridLocation:
    down, across = axes
    grid, stride = (down.cells, across.cells), (down.stride, across.stride)
    even = Placement.even(grid, size)
    if unknown:
        return GridLocation(grid, stride=even.stride, unknown_reason=unknown)
    y, x = (round(axis.offset / OFFSET_STEP) * OFFSET_STEP if axis.is_significant else 0.0 for axis in axes)
    placement = Placement((down.centre(0) - y, across.centre(0) - x), stride)
    error = (round(down.error, 2), round(across.error, 2))
    return GridLocation(grid, (y, x), error, stride, None if (y, x) == (0, 0) and stride == even.stride else placement)


def _measure(
    compute_cells: ComputeCells,
    layers: Mapping[str, Sequence[_Axis]],
    noise: MakeNoise,
    images: int,
    turn: int,
) -> dict[str, str]:
    """Measure more lines of each layer, and return the reasons for layers that cannot be measured."""
    signs = _seed_signs(layers, turn)
    unknown: dict[str, str] = {}
    for start in range(turn, turn + LINES, images):
        given = noise(images, start + 1, 0).requires_grad_()
        turns = range(start, min(start + images, turn + LINES))
        unknown |= _measure_lines(given, compute_cells(given), layers, turns, signs)
        layers = {name: axes for name, axes in layers.items() if name not in unknown}
    return unknown


def _seed_signs(layers: Iterable[str], seed: int) -> dict[str, torch.Generator]:
    """Return a source of signs for each layer, the same whatever other layers are measured, so that maps are too."""
    return {name: torch.Generator().manual_seed(seed) for name in layers}


def _measure_lines(
    given: Tensor,
    found: Mapping[str, Tensor],
    layers: Mapping[str, Sequence[_Axis]],
    turns: range,
    signs: Mapping[str, torch.Generator],
) -> dict[str, str]:
    """Measure one line of each layer and axis in each image; return the reasons for layers that cannot be measured."""
    unknown: dict[str, str] = {}
    for name, axes in layers.items():
        for dimension, axis in enumerate(axes):
            lines = [_pick_line(axis.cells, turn) for turn in turns]
            total = sum(
                _sum_with_random_signs(found[name][row], dimension, line, signs[name]) for row, line in enumerate(lines)
            )
            assert isinstance(total, Tensor)
            back = None
            if total.requires_grad:
                (back,) = torch.autograd.grad(total, [given], retain_graph=True, allow_unused=True)
            if back is None or not bool(back.any()):
                unknown[name] = "no gradient flows from it to the input"
                break
            squared = back.detach().double().square().sum((1, 3 - dimension)).cpu().numpy()
            axis.lines += [(line, _normalise_profile(squared[row])) for row, line in enumerate(lines)]
    return unknown


def _sum_with_random_signs(cells: Float[Tensor, "c h w"], dimension: int, line: int, signs: torch.Generator) -> Tensor:
    """Sum a row (0) or column (1) of cells over all channels, with random signs."""
    values = cells.select(dimension + 1, line)
    drawn = torch.randint(0, 2, values.shape, generator=signs, device="cpu") * 2 - 1
    return (values * drawn.to(values)).sum()


def _pick_line(cells: int, turn: int) -> int:
    """Pick the line for a turn: lines near the middle, symmetric about it, in rotation."""
    middle = (cells - 1) // 2
    near = [middle, middle + 1] if cells % 2 == 0 else [middle, middle - 1, middle, middle + 1]
    return min(max(near[turn % len(near)], 0), cells - 1)


def _normalise_profile(squared: np.ndarray) -> np.ndarray:
    """Subtract the floor of a profile, and scale its sum to 1."""
    above = np.clip(squared - np.quantile(squared, FLOOR_QUANTILE), 0, None)
    total = above.sum()
    return np.asarray(above / total if total else above)
