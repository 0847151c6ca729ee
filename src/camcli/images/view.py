"""View of an image that the model sees, and the mapping of maps back onto the image."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from camcli.base.deprecated import with_old_names
from camcli.images.placement import Placement

# An image that is reduced in two steps keeps at least this multiple of its final size after the first. Measurements
# are in docs/outputs.md: 2 gives twice the error of 3, but 3 leaves photographs of 12 megapixels at a half where 2.5
# quarters them.
REDUCING_GAP = 2.5
# The shorter side after the first step is at least this, since contact sheets show images of some hundred pixels.
MIN_REDUCED_SIDE = 256
# Number of pixels that are resampled and clipped at a time, so that they are still in the processor's cache.
STRIP_PIXELS = 2**17


# Names of the last release.
OLD_NAMES = {
    "whole": "sees_whole_picture",
    "cut": "crop",
    "position": "cell_centre",
    "shown": "visible_cells",
    "centres": "pixel_centres",
    "window": "visible_window",
    "whole_input": "view_of_input",
    "scaled": "scale",
}


@with_old_names(attributes=OLD_NAMES)
@dataclass(frozen=True, slots=True)
class View:
    """Part of an image that the model saw.

    Attributes:
        picture: height and width of the upright image, in pixels.
        input: height and width of the model's input.
        box: x0, y0, x1, y1 of the input in image pixels, counted from the image's upper left corner to the edges
            (not the centres) of pixels. It extends outside the image where the input was padded.
        placement: placement of the maps' cells in the input; None where they divide it evenly.
    """

    picture: tuple[int, int]
    input: tuple[int, int]
    box: tuple[float, float, float, float]
    placement: Placement | None = None

    def placed(self, placement: Placement | None) -> "View":
        """Return the same view for maps of another placement."""
        return self if placement == self.placement else replace(self, placement=placement)

    def onto_picture(self, map: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        """Resample a map over the model's input to the pixels of the image.

        Bilinear between the centres of the map's cells, constant beyond the outermost centres. The map may have any
        size; :attr:`placement` gives its cells, or they divide the input evenly (``align_corners=False``).

        Returns:
            One value for each pixel of the image; NaN where the model did not see the pixel's centre.
        """
        return _resample(self, map, _interpolate_rows)

    def enlarge(self, map: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        """Resample a map as :meth:`onto_picture` does, but smoothly, to be looked at: bilinear cells look like stars.

        Catmull and Rom's cubic passes through the cells' values (Keys 1981, doi:10.1109/TASSP.1981.1163711, with a =
        -1/2). It is clipped to the map's own least and greatest values, so that nothing is stronger than the strongest
        cell and a constant map stays constant. A map as fine as the input has no cells to see and is bilinear.
        """
        if is_fine(map, self):
            return self.onto_picture(map)
        return _resample(self, map, partial(_interpolate_rows_smoothly, low=float(map.min()), high=float(map.max())))

    def unfold(self, map: Float32[np.ndarray, "*c h w"]) -> Float32[np.ndarray, "*d h2 w"]:
        """Return a map in the shape in which it is saved: as it is; of a volume, by slices."""
        return map

    def _cell_positions(self, pixels: slice, axis: int, count: int) -> Float[np.ndarray, " n"]:
        """Return the pixel centres in units of ``count`` cells along an axis: 0 is the first cell's centre."""
        low, high = self.box[1 - axis], self.box[3 - axis]
        centres = (np.arange(pixels.start, pixels.stop) + 0.5 - low) / (high - low)
        if self.placement is None:
            return np.asarray(centres * count - 0.5)
        first, stride = self.placement.first[axis], self.placement.stride[axis]
        return np.asarray((centres * self.input[axis] - first) / stride)

    @property
    def sees_whole_picture(self) -> bool:
        """True if the model saw (the centre of) every pixel of the image."""
        x0, y0, x1, y1 = self.box
        height, width = self.picture
        return (_visible_pixels(y0, y1, height), _visible_pixels(x0, x1, width)) == (slice(0, height), slice(0, width))

    def crop(self) -> tuple[slice, slice, "View"]:
        """Return rows and columns of the pixels whose centres the model saw, and the view of these alone."""
        x0, y0, x1, y1 = self.box
        height, width = self.picture
        rows, columns = _visible_pixels(y0, y1, height), _visible_pixels(x0, x1, width)
        box = (x0 - columns.start, y0 - rows.start, x1 - columns.start, y1 - rows.start)
        cut = (rows.stop - rows.start, columns.stop - columns.start)
        return rows, columns, replace(self, picture=cut, box=box)

    def cell_centre(self, row: int, column: int, shape: tuple[int, int]) -> tuple[float, float]:
        """Return the centre of a cell of a map of this shape, as x and y in image pixels."""
        x0, y0, x1, y1 = self.box
        down, across = (row + 0.5) / shape[0], (column + 0.5) / shape[1]
        if self.placement is not None:
            first, stride = self.placement.first, self.placement.stride
            down, across = (first[0] + row * stride[0]) / self.input[0], (first[1] + column * stride[1]) / self.input[1]
        return x0 + across * (x1 - x0), y0 + down * (y1 - y0)

    def peak(self, map: Float32[np.ndarray, "h w"]) -> tuple[float, float]:
        """Return the centre of the strongest cell that shows any of the image, as x and y in image pixels.

        Cells of padding alone are ignored, and a centre in the padding is moved to the image's edge.
        """
        row, column = np.unravel_index(np.where(self.visible_cells(map.shape), map, -np.inf).argmax(), map.shape)
        x, y = self.cell_centre(int(row), int(column), map.shape)
        height, width = self.picture
        return min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))

    def visible_cells(self, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
        """Return a mask of the cells, in a map of this shape, that show any of the image."""
        rows, columns = (
            (edges[1:] > 0) & (edges[:-1] < length)
            for edges, length in ((self._cell_edges(axis, shape[axis]), self.picture[axis]) for axis in (0, 1))
        )
        return np.asarray(rows[:, np.newaxis] & columns)

    def _cell_edges(self, axis: int, count: int) -> Float[np.ndarray, " n"]:
        """Return the edges of ``count`` cells along an axis in image pixels, the outermost at the input's edges."""
        low, high = self.box[1 - axis], self.box[3 - axis]
        if self.placement is None:
            return np.linspace(low, high, count + 1)
        first, stride = self.placement.first[axis], self.placement.stride[axis]
        edges = first + (np.arange(count + 1) - 0.5) * stride
        edges[0], edges[-1] = min(edges[0], 0), max(edges[-1], self.input[axis])
        return np.asarray(low + edges / self.input[axis] * (high - low))

    def pixel_centres(self) -> tuple[Float[np.ndarray, " w"], Float[np.ndarray, " h"]]:
        """Return x of the input's columns and y of its rows, at their centres, in image pixels."""
        x0, y0, x1, y1 = self.box
        down, across = ((np.arange(length) + 0.5) / length for length in self.input)
        return x0 + across * (x1 - x0), y0 + down * (y1 - y0)

    def visible_window(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the rows and columns of a map of this shape that show any of the image."""
        shown = self.visible_cells(shape)
        rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    def view_of_input(self) -> "View":
        """Return the view of the model's input itself, as if it were an image."""
        height, width = self.input
        return replace(self, picture=self.input, box=(0.0, 0.0, float(width), float(height)))

    def scale(self, height: int, width: int) -> "View":
        """Return the same view of the image drawn at another size."""
        x0, y0, x1, y1 = self.box
        down, across = height / self.picture[0], width / self.picture[1]
        return replace(self, picture=(height, width), box=(x0 * across, y0 * down, x1 * across, y1 * down))


def is_fine(map: Float32[np.ndarray, "*d h w"], view: View) -> bool:
    """Return whether a map has a value for each pixel of the view's input, and so no cells to see."""
    return map.shape[-2:] == view.input


def _visible_pixels(low: float, high: float, length: int) -> slice:
    """Return the pixels of 0..length whose centres lie between two edges."""
    return slice(max(0, math.ceil(low - 0.5)), min(length, math.ceil(high - 0.5)))


def _resample(
    view: View, map: Float32[np.ndarray, "h w"], interpolate: Callable[..., None]
) -> Float32[np.ndarray, "H W"]:
    rows, columns, _ = view.crop()
    onto = np.empty(view.picture, np.float32)
    for beside in (np.s_[: rows.start], np.s_[rows.stop :], np.s_[:, : columns.start], np.s_[:, columns.stop :]):
        onto[beside] = np.nan
    wide = np.empty((map.shape[0], columns.stop - columns.start), np.float32)
    interpolate(map.T, view._cell_positions(columns, 1, map.shape[1]), wide.T)
    interpolate(wide, view._cell_positions(rows, 0, map.shape[0]), onto[rows, columns])
    return onto


def _interpolate_rows(
    rows: Float32[np.ndarray, "h w"],
    positions: Float[np.ndarray, " n"],
    onto: Float32[np.ndarray, "n w"],
) -> None:
    """Interpolate linearly between rows at ascending fractional positions, into ``onto``.

    All rows between the same two are computed at once, so that a large image costs two passes over its memory.
    """
    positions = np.clip(positions, 0, len(rows) - 1)
    below = np.floor(positions).astype(int)
    share = (positions - below).astype(np.float32)[:, np.newaxis]
    for start, stop in _find_equal_runs(below):
        first, second = rows[below[start]], rows[min(below[start] + 1, len(rows) - 1)]
        part = onto[start:stop]
        np.multiply(share[start:stop], second - first, out=part)
        part += first


def _interpolate_rows_smoothly(
    rows: Float32[np.ndarray, "h w"],
    positions: Float[np.ndarray, " n"],
    onto: Float32[np.ndarray, "n w"],
    low: float,
    high: float,
) -> None:
    """Interpolate between rows as :func:`_interpolate_rows` does, by a cubic of four rows, clipped to two values.

    Beyond the outermost rows these are repeated, so that there is no bend at their centres.
    """
    positions = np.clip(positions, -1, len(rows))
    below = np.floor(positions).astype(int)
    weights = _cubic_weights(positions - below)
    padded = np.pad(rows, ((2, 3), (0, 0)), "edge")
    strip = max(1, STRIP_PIXELS // max(1, rows.shape[1]))
    for start, stop in _find_equal_runs(below):
        four = padded[below[start] + 1 : below[start] + 5]
        for top in range(start, stop, strip):
            part = onto[top : min(top + strip, stop)]
            np.matmul(weights[top : top + len(part)], four, out=part)
            np.clip(part, low, high, out=part)


def _find_equal_runs(values: Int[np.ndarray, " n"]) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each run of equal values; none of no values."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return zip(starts.tolist(), [*starts[1:].tolist(), len(values)], strict=False)


def _cubic_weights(share: Float[np.ndarray, " n"]) -> Float32[np.ndarray, "n 4"]:
    """Return the weights of the four rows around positions, each a share of the way from the second to the third."""
    t = share[:, np.newaxis]
    return np.hstack(
        [((2 - t) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((4 - 3 * t) * t + 1) * t / 2, (t - 1) * t * t / 2]
    ).astype(np.float32)
