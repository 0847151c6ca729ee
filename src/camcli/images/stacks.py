"""Reading of volumes and clips: NIfTI, NumPy's arrays, files of several pages, and videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from camcli.base.errors import PictureError
from camcli.images import parse_percentiles
from camcli.images.arrays import NPY_SIGNATURE, PICTURE_BANDS, read_values
from camcli.images.decode import as_picture_error, check_pixels, decode_reduced, never_reduce
from camcli.images.decoded import DecodedPicture
from camcli.images.depth import scale_array
from camcli.images.files import open_file, read_stamp
from camcli.images.formats import NIFTI_SUFFIXES, suffix_of
from camcli.images.pages import count_file_pages
from camcli.images.videos import index_video, is_video
from camcli.images.volumes import VolumePreprocess

NIFTI_HINT = "pip install 'camcli-vision[medical]'"


def read_stack(
    path: Path,
    preprocess: VolumePreprocess,
    background: str,
    value_range: str,
    start: int,
    admit: Callable[[int], object],
) -> list[DecodedPicture]:
    """Read the slices of a volume that a model takes, or the frames of a clip.

    Args:
        path: a NIfTI file, a ``.npy`` file ``(d, h, w)``, ``(d, h, w, c)`` or ``(c, d, h, w)``, a video, or a file of
            several pages.
        preprocess: says how many slices, and which frames.
        background, value_range: see :func:`camcli.images.decode.decode`; one range is of all slices.
        start: the frame of a video that the clip begins with, from 1; 0 for the first. A clip that would end after the
            video is moved back.
        admit: called with the number of pixels of all slices before they are read.

    Raises:
        PictureError: the file is no volume, has too few frames, or cannot be read.
    """
    try:
        if is_video(path.name):
            pages = _choose_frames(path, preprocess, start)
        elif (values := _read_values(path, preprocess.axes, admit)) is not None:
            return _split(values[_choose_slices(len(values), preprocess.slices)], value_range)
        else:
            pages = _choose_pages(path, preprocess, value_range)
        admitted = _once(admit, len(pages))
        return [decode_reduced(path, never_reduce, background, value_range, page, admit=admitted) for page in pages]
    except PictureError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise as_picture_error(error, path) from error


def _choose_slices(count: int, wanted: int) -> list[int]:
    """Return the slices in the middle of as many equal parts as are wanted."""
    return [int((at + 0.5) * count / wanted) for at in range(wanted)]


def _choose_frames(path: Path, preprocess: VolumePreprocess, start: int) -> list[int]:
    count = len(index_video(path, read_stamp(path)).times)
    reach = (preprocess.slices - 1) * preprocess.step
    if reach >= count:
        every = f", each {preprocess.step}th" if preprocess.step > 1 else ""
        raise PictureError(f"has {count} frames, and the model takes {preprocess.slices}{every}")
    first = min(max(start, 1), count - reach)
    return list(range(first, first + reach + 1, preprocess.step))


def _choose_pages(path: Path, preprocess: VolumePreprocess, value_range: str) -> list[int]:
    count = count_file_pages(path, read_stamp(path))
    if isinstance(count, str):
        raise PictureError(count)
    if count < 2:
        raise PictureError(
            f"is no volume, and the model takes volumes of {preprocess.slices} slices",
            "volumes are read from NIfTI, NPY, videos, and files of several pages",
        )
    if parse_percentiles(value_range):
        raise PictureError(
            f"has pages, of which each has its own {value_range}, which is no range of the volume",
            "give the values of black and white: --range LOW,HIGH",
        )
    return [at + 1 for at in _choose_slices(count, preprocess.slices)]


def _read_values(path: Path, axes: str, admit: Callable[[int], object]) -> np.ndarray | None:
    """Read the values of a volume, ``(d, h, w, c)``; None of a file of another kind."""

    def check(shape: Sequence[int]) -> None:
        if len(shape) not in (3, 4):
            raise PictureError(
                f"is of shape {'x'.join(map(str, shape))}, which is no volume",
                "volumes have three axes, or four with channels",
            )
        check_pixels(int(np.prod(shape[1:])), int(shape[0]))
        admit(int(np.prod(shape)))

    if suffix_of(path.name) in NIFTI_SUFFIXES:
        return _read_nifti(path, axes, check)
    with open_file(path) as file:
        if file.read(len(NPY_SIGNATURE)) != NPY_SIGNATURE:
            return None
        values = read_values(file, check)
    if values.ndim == 3:
        return values[..., np.newaxis]
    return np.moveaxis(values, 0, 3) if values.shape[0] < values.shape[3] else values


def _read_nifti(path: Path, axes: str, check: Callable[[Sequence[int]], None]) -> np.ndarray:
    """Read a NIfTI file in the order of its axes that is wanted; time or channels stay last."""
    try:
        import nibabel
    except ImportError as error:
        raise PictureError("NIfTI files need nibabel, which is not installed", NIFTI_HINT) from error

    given = nibabel.load(str(path))
    check(given.shape)
    values = np.asanyarray(given.dataobj)
    values = values if values.ndim == 4 else values[..., np.newaxis]
    return np.transpose(values, (*("xyz".index(axis) for axis in axes), 3))


def _split(values: np.ndarray, value_range: str) -> list[DecodedPicture]:
    """Return the slices ``(d, h, w, c)`` of a volume as images of one range."""
    if not values.size:
        raise PictureError("has no pixels")
    planes, levels, notes = scale_array(values, value_range)
    shown = slice(0, 3) if values.shape[3] >= 3 else [0, 0, 0]
    plain = values.dtype == np.uint8 and values.shape[3] in PICTURE_BANDS
    found = []
    for at, one in enumerate(levels):
        decoded = DecodedPicture.at_full_size(Image.fromarray(np.ascontiguousarray(one[..., shown])), notes)
        found.append(decoded if plain else replace(decoded, planes=planes[at]))
    return found


def _once(admit: Callable[[int], object], count: int) -> Callable[[int], object]:
    """Return a function that admits all slices when it is called for the first."""
    left = [count]

    def admit_all(pixels: int) -> None:
        if left:
            admit(pixels * left.pop())

    return admit_all
