"""A decoded image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from PIL import Image

from camcli.images.file_info import NO_INFO, FileInfo


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A decoded image, perhaps at a fraction of its size.

    Attributes:
        image: upright, RGB.
        size: width and height of the whole upright image, in the file's pixels.
        box: x0, y0, x1, y1 of the whole image in ``image``, whose last pixels stand for fewer of the file's where the
            size is not a multiple of the divisor.
        notes: remarks on how the image was read.
        planes: the values in 0..1, ``(h, w, channels)``, where 8 bits are not enough for them, or where they are not
            colours; ``image`` shows them, or three of their channels. None: ``image`` is all there is.
        info: what the file says about how the pixels are shown.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    notes: tuple[str, ...] = ()
    planes: Float32[np.ndarray, "h w d"] | None = None
    info: FileInfo = NO_INFO

    @classmethod
    def at_full_size(cls, image: Image.Image, notes: tuple[str, ...] = (), info: FileInfo = NO_INFO) -> DecodedPicture:
        """Return an image that was decoded at its full size."""
        return cls(image, image.size, (0.0, 0.0, float(image.width), float(image.height)), notes, info=info)
