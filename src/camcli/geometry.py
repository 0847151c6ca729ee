"""From a picture to the model's input, and where each part of that input lies in the picture."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from PIL import Image
from torch import Tensor

from camcli.job import Crop
from camcli.placement import Placement

Fit = Literal["shorter", "longer", "squash"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

# A picture that may be shrunk in two steps is so many times as large after the first as it is in the end.
# docs/outputs.md has what was measured: with 2 twice the difference of 3, which leaves photographs of 12 megapixels at
# a half where 2.5 quarters them.
GAP = 2.5
# And its shorter side is no shorter than this before it: on contact sheets pictures have some hundred pixels.
LEAST = 256

# Of how many channels a picture can be made: grey, and red, green and blue.
PICTURES = (1, 3)

# A resized picture of more pixels than this is not built whole: a strip of 100,000 x 1 pixels, its shorter side
# brought to 256, would take 20 GB.
WHOLE = 2**26


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


@dataclass(frozen=True, slots=True)
class Prepare:
    """From an upright RGB picture to the model's input: resize, cut out the centre, scale the values.

    For one channel the picture is first brought to grey, by Pillow's ``L`` (ITU-R 601-2: 0.299 of red, 0.587 of green,
    0.114 of blue), as timm's data sets do it. For other numbers of channels than 1 and 3 there are no pictures, but
    arrays: :meth:`planes`.

    Equal to the last bit to timm's ``create_transform`` (evaluation; crop modes center, squash, border), to
    torchvision's ``weights.transforms()`` on PIL pictures and to open_clip's ``image_transform`` (shortest, squash,
    longest; not square and shortest, it is always bicubic there). Only of a strip so long and thin that those would
    build a picture of more than ``WHOLE`` pixels is the kept part made alone, which differs by rounding.

    Attributes:
        size: height and width of the model's input.
        mean: what is subtracted from values in 0..1, for red, green and blue; or for each of the model's channels.
        std: what they are then divided by, likewise.
        resize: height and width before the centre is cut out.
        fit: how ``resize`` is reached: ``shorter`` keeps the picture's proportions and covers it, ``longer`` keeps
            them and stays inside it, ``squash`` stretches the picture to it.
        interpolation: Pillow's filter of this name.
        fill: the value 0..255, one for all or for each channel, where the input reaches beyond the resized picture.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, int]
    fit: Fit = "shorter"
    interpolation: Interpolation = "bicubic"
    fill: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        """Raises ValueError if it is not said of each channel alike what is done to it."""
        counts = {len(self.mean), len(self.std)} | (set() if isinstance(self.fill, int) else {len(self.fill)})
        if len(counts) > 1 or not self.mean:
            raise ValueError(f"mean, std and fill are of one number a channel each, and here of {sorted(counts)}")

    @property
    def channels(self) -> int:
        """How many the model's input has."""
        return len(self.mean)

    def __call__(self, picture: Image.Image) -> tuple[Float[Tensor, "d h w"], View]:
        """The picture as the model's input (float32), and which part of it that is.

        Raises:
            ValueError: the picture is not RGB, or the model wants other channels than a picture has.
        """
        if picture.mode != "RGB":
            raise ValueError(f"an RGB picture is needed, not {picture.mode}")
        return self._values(self._cut(self._coloured(picture))), self.view(picture.width, picture.height)

    def planes(self, values: Float32[np.ndarray, "H W d0"]) -> tuple[Float[Tensor, "d h w"], View]:
        """Likewise of an array with values in 0..1, each channel by itself, without rounding to 255 levels.

        Raises:
            ValueError: it has other channels than the model's input.
        """
        height, width, channels = values.shape
        if channels != self.channels:
            raise ValueError(f"it has {channels} channels, and the model takes {self.channels}")
        fills = (self.fill,) * channels if isinstance(self.fill, int) else self.fill
        cut = [
            np.asarray(self._cut(Image.fromarray(np.ascontiguousarray(values[..., at]) * np.float32(255)), fill=fill))
            for at, fill in enumerate(fills)
        ]
        return self._scaled(torch.from_numpy(np.stack(cut))), self.view(width, height)

    def reduced(
        self, picture: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
    ) -> tuple[Float[Tensor, "d h w"], View]:
        """Likewise of a picture that was perhaps decoded at a part of its size, and faster, in two steps.

        It is first shrunk by the whole number that leaves it at least ``GAP`` times as large as it will be, each pixel
        the mean of those it stands for.

        Args:
            picture: RGB.
            size: width and height of the whole picture.
            box: x0, y0, x1, y1 of where that lies in ``picture``.

        Returns:
            Input and view; the view is in pixels of the whole.
        """
        return self._values(self._cut(self._coloured(picture), size, box, GAP)), self.view(*size)

    def spare(self, width: int, height: int) -> float:
        """By how much a picture of this size may be divided and still be ``GAP`` times as large as it will be."""
        if self.interpolation == "nearest":  # single pixels are picked, and no mean may stand for them
            return 1.0
        resized_height, resized_width = self._resized(width, height)
        return min(width / resized_width / GAP, height / resized_height / GAP, min(width, height) / LEAST)

    def changed(self, size: tuple[int, int] | None = None, crop: Crop = "model") -> "Prepare":
        """The same preparation for another input size, or for another part of the picture.

        Args:
            size: height and width of the input; None leaves it. ``resize`` goes along in proportion, rounded down, so
                that the same share of a picture is cut away (timm keeps its ``crop_pct`` likewise).
            crop: ``model`` leaves the way that ``resize`` is reached; ``center`` covers it in the picture's
                proportions; ``none`` fits the whole picture into the input, in its proportions, and pads with the mean
                colour on both sides alike; ``squash`` stretches the whole picture to the input.
        """
        changed = self
        if size is not None and size != self.size:
            height, width = (now * before // own for now, before, own in zip(size, self.resize, self.size, strict=True))
            changed = replace(changed, size=size, resize=(height, width))
        if crop == "center":
            return replace(changed, fit="shorter")
        if crop == "squash":
            return replace(changed, fit="squash", resize=changed.size)
        if crop == "none":
            fill = self.fill if self.fit == "longer" else tuple(round(255 * value) for value in self.mean)
            return replace(changed, fit="longer", resize=changed.size, fill=fill)
        return changed

    def view(self, width: int, height: int) -> View:
        """Which part of a picture of this size the model sees."""
        (resized_height, resized_width), (top, left) = self._plan(width, height)
        across, down = width / resized_width, height / resized_height
        bottom, right = top + self.size[0], left + self.size[1]
        return View((height, width), self.size, (left * across, top * down, right * across, bottom * down))

    def _plan(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the resized picture, and top and left of the input in it."""
        resized = self._resized(width, height)
        return resized, (_offset(resized[0], self.size[0]), _offset(resized[1], self.size[1]))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        target_height, target_width = self.resize
        if self.fit == "squash":
            return self.resize
        if self.fit == "shorter" and target_height == target_width:
            # torchvision's rule for a square, which timm and open_clip share: the longer side is rounded down.
            shorter = min(width, height)
            return int(target_height * height / shorter), int(target_width * width / shorter)
        # timm's rule for the rest: rounded to the nearest.
        choose = min if self.fit == "shorter" else max
        ratio = choose(height / target_height, width / target_width)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _cut(
        self,
        picture: Image.Image,
        size: tuple[int, int] | None = None,
        box: tuple[float, float, float, float] | None = None,
        gap: float | None = None,
        fill: int | tuple[int, ...] | None = None,
    ) -> Image.Image:
        (height, width), (top, left) = self._plan(*(size or picture.size))
        fill = self.fill if fill is None else fill
        bands = len(picture.getbands())
        fills = (fill,) * bands if isinstance(fill, int) else fill
        cut = Image.new(picture.mode, (self.size[1], self.size[0]), fills if bands > 1 else fills[0])
        filter_ = Image.Resampling[self.interpolation.upper()]
        if height * width <= WHOLE:
            cut.paste(picture.resize((width, height), filter_, box, gap), (-left, -top))
            return cut
        begin, above, end, below = box or (0.0, 0.0, float(picture.width), float(picture.height))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + self.size[1], width), min(top + self.size[0], height)
        across, down = (end - begin) / width, (below - above) / height
        kept = (begin + x0 * across, above + y0 * down, min(begin + x1 * across, end), min(above + y1 * down, below))
        cut.paste(picture.resize((x1 - x0, y1 - y0), filter_, kept, gap), (x0 - left, y0 - top))
        return cut

    def _coloured(self, picture: Image.Image) -> Image.Image:
        """The picture in as many channels as the model takes.

        Raises:
            ValueError: these are neither grey nor red, green and blue.
        """
        if self.channels not in PICTURES:
            raise ValueError(f"a picture has 3 channels, and the model takes {self.channels}")
        return picture if self.channels == 3 else picture.convert("L")

    def _values(self, cut: Image.Image) -> Float[Tensor, "d h w"]:
        levels = np.array(cut)
        values = torch.from_numpy(levels if levels.ndim == 3 else levels[..., np.newaxis])
        return self._scaled(values.permute(2, 0, 1).contiguous())

    def _scaled(self, levels: Tensor) -> Float[Tensor, "d h w"]:
        """Values of 0..255 as the model wants them."""
        mean, std = (
            torch.tensor(each, dtype=torch.float32, device="cpu").view(-1, 1, 1) for each in (self.mean, self.std)
        )
        return levels.to(torch.float32).div_(255).sub_(mean).div_(std)


def _offset(outer: int, inner: int) -> int:
    """Where the centred ``inner`` begins in ``outer``; negative where it is the larger. torchvision's rounding."""
    return round((outer - inner) / 2) if outer >= inner else -((inner - outer) // 2)


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
