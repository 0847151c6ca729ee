"""Images as arrays of numbers: NumPy's files, and TIFFs of any number of bands."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, Any, cast

import numpy as np
from PIL import Image, TiffImagePlugin

from camcli.base.errors import PictureError
from camcli.images import Bands
from camcli.images.decoded import DecodedPicture
from camcli.images.depth import scale_array

NPY_SIGNATURE = b"\x93NUMPY"
# Little and big endian, of 32 and of 64 bits.
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_HINT = "pip install 'camcli-vision[tiff]'"
ORIENTATION_TAG, SAMPLES_TAG = 274, 277
# An image of 8 bits that is grey or RGB is a picture like any other.
PICTURE_BANDS = (1, 3)
# Most bands of a TIFF that Pillow reads all of: CMYK, or colours with transparency.
PILLOW_BANDS = 4


def from_array(values: np.ndarray, value_range: str = "", bands: Bands | None = None) -> DecodedPicture:
    """Return an array ``(h, w)`` or ``(h, w, channels)`` as an image.

    Grey or RGB of 8 bits is an image as any other; other channels, or deeper ones, are kept as they are.

    Args:
        values: the array.
        value_range: the values of black and white: see :func:`camcli.images.depth.scale_values`.
        bands: the channels to take and to show; None for all.

    Raises:
        PictureError: the array is not an image, lacks a band, or the range of its values is unknown.
    """
    if values.ndim not in (2, 3) or not values.size:
        raise PictureError(
            f"an array of shape {_format_shape(values)} is not an image",
            "give (height, width), or (height, width, channels)",
        )
    values = values if values.ndim == 3 else values[..., np.newaxis]
    if values.dtype.kind == "f" and values.dtype.itemsize < 4:  # of half precision, which cannot be summed
        values = values.astype(np.float32)
    chosen, shown = _find_bands(values.shape[2], bands or Bands())
    model = values if chosen == list(range(values.shape[2])) else values[..., chosen]
    planes, levels, notes = scale_array(model, value_range)
    if shown != chosen:
        levels = scale_array(values[..., shown], value_range, known=model)[1]
    image = Image.fromarray(np.ascontiguousarray(levels if len(shown) == 3 else levels[..., [0, 0, 0]]))
    decoded = DecodedPicture.at_full_size(image, notes)
    plain = values.dtype == np.uint8 and len(chosen) in PICTURE_BANDS and shown == chosen
    return decoded if plain else replace(decoded, planes=planes)


def _find_bands(count: int, bands: Bands) -> tuple[list[int], list[int]]:
    """Return the places of the bands to take and to show, from 0."""
    if missing := [one for one in (*bands.chosen, *bands.shown) if one > count]:
        raise PictureError(
            f"has {count} band{'s' * (count != 1)}, and none of number {missing[0]}",
            "--bands and --rgb count bands from 1",
        )
    chosen = [one - 1 for one in bands.chosen] or list(range(count))
    shown = [one - 1 for one in bands.shown] or (chosen[:3] if len(chosen) >= 3 else chosen[:1])
    return chosen, shown


def read_npy(file: IO[bytes] | io.BufferedIOBase, admit: Callable[[int, int], object]) -> np.ndarray:
    """Read the image of a ``.npy`` file, ``(h, w)`` or ``(h, w, bands)``.

    Args:
        file: the file.
        admit: called with the width and height before the values are read.

    Raises:
        PictureError: it is no image.
        Exception: whatever NumPy raises for a damaged file.
    """

    def check(shape: Sequence[int]) -> None:
        if len(shape) not in (2, 3):
            raise PictureError(
                f"is an array of shape {'x'.join(map(str, shape))}, which is no image",
                "save (height, width), (height, width, bands) or (bands, height, width)",
            )
        height, width = shape[1:] if len(shape) == 3 and _has_bands_first(shape) else shape[:2]
        admit(width, height)

    values = read_values(file, check)
    return np.moveaxis(values, 0, 2) if values.ndim == 3 and _has_bands_first(values.shape) else values


def read_values(file: IO[bytes] | io.BufferedIOBase, check: Callable[[Sequence[int]], object]) -> np.ndarray:
    """Read the array of a ``.npy`` file, which may be of anything but objects, as they would run code.

    Args:
        file: the file.
        check: called with the shape before the values are read.

    Raises:
        PictureError: its values are no numbers.
        Exception: whatever NumPy raises for a damaged file.
    """
    file.seek(0)
    stream: Any = file
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(stream)
    if kind.hasobject or kind.names:
        raise PictureError(f"is an array of {kind}, which is no image")
    check(shape)
    file.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def read_tiff(
    file: IO[bytes] | io.BufferedIOBase, page: int, admit: Callable[[int, int], object]
) -> tuple[np.ndarray, int]:
    """Read all bands of a TIFF, whatever their number, ``(h, w, bands)``.

    Several pages of one band and the same size are the bands of one image, unless a page is asked for.

    Args:
        file: the file.
        page: number of the page, from 1; 0 for all of it.
        admit: called with the width and height before the values are read.

    Returns:
        The values as they are stored, and the orientation, as of EXIF.

    Raises:
        PictureError: tifffile is not installed, or the file is no image.
        Exception: whatever tifffile raises for a damaged file.
    """
    try:
        import tifffile
    except ImportError as error:
        raise PictureError("is a TIFF of bands that Pillow does not read as such", TIFF_HINT) from error

    file.seek(0)
    stream: Any = file
    with tifffile.TiffFile(stream) as tiff:
        if page > len(tiff.pages):
            raise PictureError(f"has no page {page}")
        given: Any = tiff.pages[page - 1] if page else tiff.series[0]
        axes = dict(zip(given.axes, given.shape, strict=True))
        height, width = axes.pop("Y", 0), axes.pop("X", 0)
        if not height * width or len(axes) > 1:
            raise PictureError(f"is a TIFF of axes {given.axes}, which is no image", "--pages chooses a page")
        admit(width, height)
        values = given.asarray()
        tag = tiff.pages[max(page - 1, 0)].tags.get(ORIENTATION_TAG)
        orientation = int(tag.value) if tag is not None else 1
        at = next((given.axes.index(name) for name in axes), None)
        return (values[..., np.newaxis] if at is None else np.moveaxis(values, at, 2)), orientation


def count_tiff_bands(file: IO[bytes] | io.BufferedIOBase) -> int:
    """Return the number of bands of a TIFF's first page; 0 if it has no directory that can be read."""
    file.seek(0)
    start = file.read(16)
    if not start.startswith(TIFF_SIGNATURES):
        return 0
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(start if start[2:4] in (b"+\0", b"\0+") else start[:8])
        file.seek(directory.next)
        directory.load(cast("IO[bytes]", file))
        return int(directory.get(SAMPLES_TAG, 1))
    except Exception:  # a damaged file can raise anything
        return 0


def take_bands(decoded: DecodedPicture, bands: Bands) -> DecodedPicture:
    """Return an image of grey or of red, green and blue with some of these, in another order.

    Raises:
        PictureError: it lacks a band.
    """
    levels = np.asarray(decoded.image)
    planes = levels.astype(np.float32) / 255 if decoded.planes is None else decoded.planes
    chosen, shown = _find_bands(planes.shape[2], bands)
    image = Image.fromarray(np.ascontiguousarray(levels[..., shown if len(shown) == 3 else shown * 3]))
    return replace(decoded, image=image, planes=planes[..., chosen])


def _has_bands_first(shape: Sequence[int]) -> bool:
    """Return whether the first axis of three is that of the bands: the shorter one of the outer two is."""
    return shape[0] < shape[2]


def turn_upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return an array ``(h, w, ...)`` as its EXIF orientation says that it is shown."""
    if orientation in (5, 6, 7, 8):
        values = np.swapaxes(values, 0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values


def _format_shape(values: np.ndarray) -> str:
    return "x".join(map(str, values.shape))
