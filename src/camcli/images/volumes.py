"""Preprocessing of volumes and clips of videos, slice by slice, and the picture of their slices side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from camcli.images import Crop
from camcli.images.transform import Preprocess
from camcli.images.view import View

# Most pixels of the picture of all slices.
MAX_SHOWN_PIXELS = 2**24
# Orders of a NIfTI's axes.
AXES = ("zyx", "zxy", "yzx", "yxz", "xzy", "xyz")


@dataclass(frozen=True, slots=True)
class VolumePreprocess(Preprocess):
    """Preprocessing of volumes or clips to inputs ``(c, d, h, w)``: that of images, for each of ``d`` slices.

    Made by :meth:`of`. ``size`` is that of all slices one above the other, in which form
    :class:`camcli.engine.volumes.VolumeModule` takes them.

    Attributes:
        each: the preprocessing of a slice.
        slices: number of slices.
        step: frames of a video from one slice to the next.
        axes: the axes of a NIfTI in the order of slices, rows and columns.
    """

    each: Preprocess | None = None
    slices: int = 1
    step: int = 1
    axes: str = "zyx"

    @classmethod
    def of(cls, each: Preprocess, slices: int, step: int = 1, axes: str = "zyx") -> VolumePreprocess:
        """Return the preprocessing of volumes whose slices are prepared as images are.

        Args:
            each: preprocessing of a slice or frame.
            slices: number of slices that the model takes. Of a volume of more or fewer, those in the middle of as many
                equal parts are taken.
            step: of a video every so many frames one is taken.
            axes: of a NIfTI, whose array is stored as ``xyz``, the axes that are slices, rows and columns.

        Raises:
            ValueError: a number is less than 1, or the axes are not three.
        """
        if slices < 1 or step < 1 or axes not in AXES:
            raise ValueError(f"slices and step are numbers from 1 on, and axes one of {', '.join(AXES)}")
        height, width = each.size
        return cls(
            size=(slices * height, width),
            mean=each.mean,
            std=each.std,
            resize=(slices * each.resize[0], each.resize[1]),
            fit=each.fit,
            interpolation=each.interpolation,
            fill=each.fill,
            arithmetic=each.arithmetic,
            bgr=each.bgr,
            each=each,
            slices=slices,
            step=step,
            axes=axes,
        )

    def adapt(self, size: tuple[int, int] | None = None, crop: Crop = "model") -> VolumePreprocess:
        """Return the same preprocessing with another part of each slice.

        Raises:
            ValueError: another size is wanted.
        """
        assert self.each is not None
        if size not in (None, self.size):
            raise ValueError("volumes have the size that their model's own preprocessing says")
        return VolumePreprocess.of(self.each.adapt(None, crop), self.slices, self.step, self.axes)


@dataclass(frozen=True, slots=True)
class VolumeView(View):
    """Slices that the model saw, side by side in one picture: rows of tiles, the first at the upper left.

    Attributes:
        tile: the view of one slice, of the part that the model saw.
        slices: number of slices.
        columns: number of tiles in a row.
        whole: the view of one slice, of all of its pixels.
        axes: the axes of a NIfTI that are slices, rows and columns.
    """

    tile: View | None = None
    slices: int = 1
    columns: int = 1
    whole: View | None = None
    axes: str = "zyx"

    def unfold(self, map: Float32[np.ndarray, "*c h w"]) -> Float32[np.ndarray, "*c d h2 w"]:
        """Return a map as that of a volume."""
        return map.reshape(*map.shape[:-2], self._count(map), -1, map.shape[-1])

    def onto_picture(self, map: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        """Resample a map to the tiles' pixels: bilinear within slices, linear between them."""
        return self._compose(map, "onto_picture")

    def enlarge(self, map: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        """Resample a map as :meth:`onto_picture` does, but smoothly within slices."""
        return self._compose(map, "enlarge")

    @property
    def sees_whole_picture(self) -> bool:
        """True: only what the model saw is in the picture."""
        return True

    def crop(self) -> tuple[slice, slice, View]:
        """Return all rows and columns, and this view."""
        return slice(0, self.picture[0]), slice(0, self.picture[1]), self

    def cell_centre(self, row: int, column: int, shape: tuple[int, ...]) -> tuple[float, float]:
        """Return the centre of a cell of a map of this shape in the tile of the slice nearest to it."""
        assert self.tile is not None
        deep = self._count_of(shape[-2])
        part, rows = divmod(row, shape[-2] // deep)[0], shape[-2] // deep
        at = min(self.slices - 1, int((part + 0.5) * self.slices / deep))
        x, y = self.tile.cell_centre(row % rows, column, (rows, shape[-1]))
        (height, width), (down, across) = self.tile.picture, self._shrinkage
        x, y = min(max(x, 0.0), width - 1e-3), min(max(y, 0.0), height - 1e-3)
        return (x + at % self.columns * width) * across, (y + at // self.columns * height) * down

    def visible_cells(self, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
        """Return a mask of the cells, in a map of this shape, that show any of the slices."""
        assert self.tile is not None
        deep = self._count_of(shape[-2])
        return np.tile(self.tile.visible_cells((shape[-2] // deep, shape[-1])), (deep, 1))

    def view_of_input(self) -> View:
        """Return the view of the model's input itself, as if it were an image."""
        return View(self.input, self.input, (0.0, 0.0, float(self.input[1]), float(self.input[0])))

    def scale(self, height: int, width: int) -> VolumeView:
        """Return the same view of the picture drawn at another size."""
        return replace(self, picture=(height, width))

    def split(self, picture: Shaped[np.ndarray, "H W *c"]) -> list[Shaped[np.ndarray, "h w *c"]]:
        """Return the tiles of a picture of this view, slice by slice."""
        assert self.tile is not None
        height, width = self.tile.picture
        places = (divmod(at, self.columns) for at in range(self.slices))
        return [
            picture[down * height : (down + 1) * height, across * width : (across + 1) * width]
            for down, across in places
        ]

    @property
    def _shrinkage(self) -> tuple[float, float]:
        assert self.tile is not None
        rows = math.ceil(self.slices / self.columns)
        height, width = self.tile.picture
        return self.picture[0] / (rows * height), self.picture[1] / (self.columns * width)

    def _count(self, map: np.ndarray) -> int:
        return self._count_of(map.shape[-2])

    def _count_of(self, rows: int) -> int:
        """Return the number of slices of a map with this many rows."""
        return self.placement.slices if self.placement is not None and rows != self.input[0] else self.slices

    def _compose(self, map: Float32[np.ndarray, "h w"], way: str) -> Float32[np.ndarray, "H W"]:
        assert self.tile is not None
        planes = self.unfold(map)
        deep, (height, width) = len(planes), self.tile.picture
        rows = math.ceil(self.slices / self.columns)
        onto = np.full((rows * height, self.columns * width), np.nan, np.float32)
        for at in range(self.slices):
            place = min(max((at + 0.5) * deep / self.slices - 0.5, 0.0), deep - 1.0)
            below = int(place)
            share = np.float32(place - below)
            plane = planes[below] + share * (planes[min(below + 1, deep - 1)] - planes[below])
            down, across = divmod(at, self.columns)
            onto[down * height : (down + 1) * height, across * width : (across + 1) * width] = getattr(self.tile, way)(
                plane
            )
        return (
            onto if onto.shape == self.picture else cv2.resize(onto, self.picture[::-1], interpolation=cv2.INTER_AREA)
        )


def lay_out(
    pixels: Sequence[UInt8[np.ndarray, "H W 3"]], preprocess: VolumePreprocess
) -> tuple[UInt8[np.ndarray, "h w 3"], VolumeView]:
    """Lay slices side by side, each cut to what the model saw of it, and smaller if they are too many pixels.

    Args:
        pixels: of each slice, all of one size.
        preprocess: the preprocessing of the model.
    """
    assert preprocess.each is not None
    height, width = pixels[0].shape[:2]
    whole = preprocess.each.view(width, height)
    rows, columns, tile = whole.crop()
    cut = [one[rows, columns] for one in pixels]
    height, width = cut[0].shape[:2]
    shrink = math.sqrt(min(1.0, MAX_SHOWN_PIXELS / (len(cut) * height * width)))
    if shrink < 1:
        height, width = max(1, int(height * shrink)), max(1, int(width * shrink))
        cut = [cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in cut]
        tile = tile.scale(height, width)
    across = max(1, min(len(cut), round(math.sqrt(len(cut) * height / width))))
    down = math.ceil(len(cut) / across)
    picture = np.zeros((down * height, across * width, 3), np.uint8)
    for at, one in enumerate(cut):
        row, column = divmod(at, across)
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width] = one
    box = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
    shape: Any = picture.shape[:2]
    view = VolumeView(
        shape,
        preprocess.size,
        box,
        tile=tile,
        slices=len(cut),
        columns=across,
        whole=whole,
        axes=preprocess.axes,
    )
    return picture, view
