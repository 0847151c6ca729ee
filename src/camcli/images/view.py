"""Where the part of a picture that the model sees lies in it, and the way back."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32

from camcli.images.placement import Placement

# A picture that may be shrunk in two steps is so many times as large after the first as it is in the end.
# docs/outputs.md has what was measured: with 2 twice the difference of 3, which leaves photographs of 12 megapixels at
# a half where 2.5 quarters them.
GAP = 2.5
# And its shorter side is no shorter than this before it: on contact sheets pictures have some hundred pixels.
LEAST = 256


@dataclass(frozen=True, slots=True)
class View:
    """Which part of a picture the model saw.

    Attributes:
        picture: height and width of the upright picture, in pixels.
        input: height and width of the model's input.
        box: x0, y0, x1, y1 of what the input covers, in picture pixels, counted from the picture's upper left corner
            to the edges (not the centres) of pixels. It reaches outside the picture where the input was padded.
        placement: where the cells of the maps lie that are brought onto the picture; None: they share the input
            evenly.
    """

    picture: tuple[int, int]
    input: tuple[int, int]
    box: tuple[float, float, float, float]
    placement: Placement | None = None

    def placed(self, placement: Placement | None) -> "View":
        """The same view, for maps whose cells lie there."""
        return self if placement == self.placement else replace(self, placement=placement)

    def onto_picture(self, map: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        """A map over the model's input, brought to the picture's own pixels.

        Bilinear between the centres of the map's cells, constant beyond the outermost centres. The map may have any
        size; its cells lie where :attr:`placement` says, or share the input evenly (``align_corners=False``).

        Returns:
            One value for each pixel of the picture; NaN where the model did not see the pixel's centre.
        """
        x0, y0, x1, y1 = self.box
        height, width = self.picture
        rows, columns = _seen(y0, y1, height), _seen(x0, x1, width)
        onto = np.empty(self.picture, np.float32)
        for beside in (np.s_[: rows.start], np.s_[rows.stop :], np.s_[:, : columns.start], np.s_[:, columns.stop :]):
            onto[beside] = np.nan
        wide = np.empty((map.shape[0], columns.stop - columns.start), np.float32)
        _stretch(map.T, self._cells(columns, 1, map.shape[1]), wide.T)
        _stretch(wide, self._cells(rows, 0, map.shape[0]), onto[rows, columns])
        return onto

    def _cells(self, pixels: slice, axis: int, count: int) -> Float[np.ndarray, " n"]:
        """Where the centres of these pixels lie among ``count`` cells along an axis: 0 is the first cell's centre."""
        low, high = self.box[1 - axis], self.box[3 - axis]
        centres = (np.arange(pixels.start, pixels.stop) + 0.5 - low) / (high - low)
        if self.placement is None:
            return np.clip(centres * count - 0.5, 0, count - 1)
        first, stride = self.placement.first[axis], self.placement.stride[axis]
        return np.clip((centres * self.input[axis] - first) / stride, 0, count - 1)

    @property
    def whole(self) -> bool:
        """Whether the model saw every pixel (its centre) of the picture."""
        x0, y0, x1, y1 = self.box
        height, width = self.picture
        return (_seen(y0, y1, height), _seen(x0, x1, width)) == (slice(0, height), slice(0, width))

    def cut(self) -> tuple[slice, slice, "View"]:
        """Rows and columns of the pixels that the model saw (their centres), and the view of these alone."""
        x0, y0, x1, y1 = self.box
        height, width = self.picture
        rows, columns = _seen(y0, y1, height), _seen(x0, x1, width)
        box = (x0 - columns.start, y0 - rows.start, x1 - columns.start, y1 - rows.start)
        cut = (rows.stop - rows.start, columns.stop - columns.start)
        return rows, columns, replace(self, picture=cut, box=box)

    def position(self, row: int, column: int, shape: tuple[int, int]) -> tuple[float, float]:
        """The centre of one cell of a map of this shape, as x and y in picture pixels."""
        x0, y0, x1, y1 = self.box
        down, across = (row + 0.5) / shape[0], (column + 0.5) / shape[1]
        if self.placement is not None:
            first, stride = self.placement.first, self.placement.stride
            down, across = (first[0] + row * stride[0]) / self.input[0], (first[1] + column * stride[1]) / self.input[1]
        return x0 + across * (x1 - x0), y0 + down * (y1 - y0)

    def peak(self, map: Float32[np.ndarray, "h w"]) -> tuple[float, float]:
        """The centre of the map's strongest cell among those that show any of the picture, as x and y in its pixels.

        A cell of padding is passed over, and a centre in the padding is moved to the picture's edge.
        """
        row, column = np.unravel_index(np.where(self.shown(map.shape), map, -np.inf).argmax(), map.shape)
        x, y = self.position(int(row), int(column), map.shape)
        height, width = self.picture
        return min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))

    def shown(self, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
        """Which cells of a map of this shape show any of the picture, and not padding alone."""
        rows, columns = (
            (edges[1:] > 0) & (edges[:-1] < length)
            for edges, length in ((self._edges(axis, shape[axis]), self.picture[axis]) for axis in (0, 1))
        )
        return np.asarray(rows[:, np.newaxis] & columns)

    def _edges(self, axis: int, count: int) -> Float[np.ndarray, " n"]:
        """Where ``count`` cells begin and end along an axis, in picture pixels; the outermost reach to the input's."""
        low, high = self.box[1 - axis], self.box[3 - axis]
        if self.placement is None:
            return np.linspace(low, high, count + 1)
        first, stride = self.placement.first[axis], self.placement.stride[axis]
        edges = first + (np.arange(count + 1) - 0.5) * stride
        edges[0], edges[-1] = min(edges[0], 0), max(edges[-1], self.input[axis])
        return np.asarray(low + edges / self.input[axis] * (high - low))

    def centres(self) -> tuple[Float[np.ndarray, " w"], Float[np.ndarray, " h"]]:
        """Where the centres of the input's columns lie (x, in picture pixels), and of its rows (y)."""
        x0, y0, x1, y1 = self.box
        down, across = ((np.arange(length) + 0.5) / length for length in self.input)
        return x0 + across * (x1 - x0), y0 + down * (y1 - y0)

    def corners(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box in pixels of the input, in pixels of the picture; cut off where the picture ends."""
        x0, y0, x1, y1 = self.box
        down, across = (y1 - y0) / self.input[0], (x1 - x0) / self.input[1]
        height, width = self.picture
        xs = (min(max(x0 + x * across, 0.0), float(width)) for x in box[::2])
        ys = (min(max(y0 + y * down, 0.0), float(height)) for y in box[1::2])
        (left, right), (top, bottom) = xs, ys
        return left, top, right, bottom

    def window(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """The rows and columns of a map of this shape that show any of the picture."""
        shown = self.shown(shape)
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    def whole_input(self) -> "View":
        """The view of the model's input itself, as if it were a picture."""
        height, width = self.input
        return replace(self, picture=self.input, box=(0.0, 0.0, float(width), float(height)))

    def scaled(self, height: int, width: int) -> "View":
        """The same view of the same picture, drawn at another size."""
        x0, y0, x1, y1 = self.box
        down, across = height / self.picture[0], width / self.picture[1]
        return replace(self, picture=(height, width), box=(x0 * across, y0 * down, x1 * across, y1 * down))


def _seen(low: float, high: float, length: int) -> slice:
    """The pixels of 0..length whose centres lie between two edges."""
    return slice(max(0, math.ceil(low - 0.5)), min(length, math.ceil(high - 0.5)))


def _stretch(
    rows: Float32[np.ndarray, "h w"],
    positions: Float[np.ndarray, " n"],
    onto: Float32[np.ndarray, "n w"],
) -> None:
    """Rows at fractional positions (ascending) between the given rows, linearly.

    All rows between the same two are made at once, so that a large picture costs two passes over its memory.
    """
    if not len(positions):  # of a strip of one pixel, whose centre the model did not see
        return
    below = np.floor(positions).astype(int)
    share = (positions - below).astype(np.float32)[:, np.newaxis]
    starts = np.flatnonzero(np.diff(below, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(below)], strict=True):
        first, second = rows[below[start]], rows[min(below[start] + 1, len(rows) - 1)]
        part = onto[start:stop]
        np.multiply(share[start:stop], second - first, out=part)
        part += first
