"""What ``camcli.explain`` takes for images: paths, and images in memory of all kinds."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.images import Bands, parse_bands
from camcli.images.arrays import from_array
from camcli.images.decode import from_file, from_image
from camcli.images.decoded import DecodedPicture
from camcli.images.source import PictureSource
from camcli.images.transform import PICTURE_CHANNELS
from camcli.runs.job.job import Job
from camcli.runs.worker.item import Item

# One image, or a path that may stand for several.
ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | bytes | BinaryIO | io.IOBase
# An array or tensor of images, the first dimension being theirs.
IMAGES_DIMENSIONS = 4
NORMALISED_HINT = (
    "a batch that is normalised already is explained by camcli.Explainer(model)(batch); range='0,255' says what is "
    "black and white"
)


def is_path(given: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether an input is a path."""
    return isinstance(given, str | os.PathLike)


def as_several(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """Return the inputs, a list of one if there is one only; a batch of arrays or tensors as a list."""
    if is_path(images) or isinstance(images, Image.Image | bytes | bytearray | memoryview) or hasattr(images, "read"):
        return [images]  # type: ignore[list-item]  # a buffer is as good as bytes
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == IMAGES_DIMENSIONS else [images]
    if not isinstance(images, Iterable):
        raise _no_image_error(images)
    return images


def make_item(given: Any, name: str, job: Job, channels: int) -> Item:
    """Return the item of an image in memory, or of the reason why it cannot be read.

    It is converted at once, since the caller may then close or change it.

    Args:
        given: the image.
        name: its name in messages.
        job: says what is black, white and behind transparent pixels.
        channels: number of channels that the model takes.
    """
    try:
        return Item(PictureSource(name, name), decoded=_decode(given, job, channels))
    except PictureError as error:
        return Item(PictureSource(name, name, error.message), error=error)


def _decode(given: Any, job: Job, channels: int) -> DecodedPicture:
    if isinstance(given, Image.Image):
        return from_image(given, job.background, job.range)
    if isinstance(given, Tensor):
        given = _to_array(given, channels)
    if isinstance(given, np.ndarray):
        return _decode_array(given, job, channels)
    if isinstance(given, bytes | bytearray | memoryview):
        return from_file(io.BytesIO(given), job.background, job.range, _parse_bands(job, channels))
    if hasattr(given, "read"):
        content = given.read()
        if isinstance(content, str):
            raise RequestError("a file was opened as text", "open it as bytes: open(path, 'rb')")
        return from_file(io.BytesIO(content), job.background, job.range, _parse_bands(job, channels))
    raise _no_image_error(given)


def _parse_bands(job: Job, channels: int) -> Bands | None:
    return parse_bands(job.bands, job.rgb) or (None if channels in PICTURE_CHANNELS else Bands())


def _decode_array(values: np.ndarray, job: Job, channels: int) -> DecodedPicture:
    """Decode an array ``(h, w)`` or ``(h, w, channels)``; of four channels the last is transparency for most models."""
    shape = "x".join(map(str, values.shape))
    if values.ndim == 3 and values.shape[0] == channels != values.shape[2] and values.shape[2] not in (1, 3, 4):
        raise PictureError(
            f"an array of {shape} has its channels first", "put them last: array.transpose(1, 2, 0); or give a tensor"
        )
    if values.shape[2:] == (4,) and channels in PICTURE_CHANNELS:
        if values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1:  # as matplotlib reads a PNG
            values = np.rint(values * 255).astype(np.uint8)
        if values.dtype == np.uint8:
            return from_image(Image.fromarray(np.ascontiguousarray(values)), job.background, job.range)
    try:
        return from_array(values, job.range, parse_bands(job.bands, job.rgb))
    except PictureError as error:
        raise PictureError(error.message, NORMALISED_HINT if "floating" in error.message else error.hint) from error


def _to_array(values: Tensor, channels: int) -> np.ndarray:
    """Return a tensor ``(h, w)`` or ``(channels, h, w)`` as an array with its channels last."""
    if values.ndim not in (2, 3):
        raise PictureError(
            f"a tensor of {'x'.join(map(str, values.shape))} is no image", "give (channels, height, width)"
        )
    if values.ndim == 3 and values.shape[0] not in (1, 3, 4, channels):
        raise PictureError(
            f"a tensor of {'x'.join(map(str, values.shape))} has its channels last",
            "put them first, as torch does: tensor.permute(2, 0, 1); or give an array",
        )
    plain = values.detach().cpu()
    if plain.dtype in (torch.bfloat16, torch.float16):
        plain = plain.float()
    array: np.ndarray = (plain.permute(1, 2, 0) if plain.ndim == 3 else plain).numpy()
    return array


def _no_image_error(given: Any) -> RequestError:
    return RequestError(
        f"a value of type {type(given).__name__} is no image",
        "give a path, a Pillow image, an array (height, width, channels), a tensor (channels, height, width), bytes or "
        "an open file; batches that are preprocessed already are explained by camcli.Explainer",
    )
