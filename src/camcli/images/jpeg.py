"""Decoding of JPEGs with a check for damage, which Pillow does not report."""

import importlib
import io
from contextlib import suppress
from typing import IO, Any

from PIL import Image

simplejpeg: Any = None
with suppress(ImportError):  # there is a wheel for nearly every machine; on others damage is not noticed
    simplejpeg = importlib.import_module("simplejpeg")

COLOUR_SPACES = {"RGB": "RGB", "L": "GRAY"}
# Prefixes of libjpeg's warnings of damaged pixels. Other errors are left to Pillow.
DAMAGE_WARNINGS = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")


def load(image: Image.Image, file: IO[bytes] | io.BufferedIOBase) -> str:
    """Decode the pixels of an opened JPEG in place; for a damaged one return a note and leave decoding to Pillow.

    Both use libjpeg-turbo with the same settings, so the pixels equal Pillow's to the bit. Anything but a plain colour
    or grey JPEG is left to Pillow.

    Args:
        image: an image at its full size that is not loaded yet.
        file: the file that it was opened from.
    """
    colours = COLOUR_SPACES.get(image.mode)
    if simplejpeg is None or image.format != "JPEG" or colours is None:
        return ""
    file.seek(0)
    try:
        pixels = simplejpeg.decode_jpeg(file.read(), colorspace=colours, strict=True)
    except ValueError as error:
        said = str(error)
        return (
            f"the file is damaged, and parts of the image are wrong ({said})"
            if said.startswith(DAMAGE_WARNINGS)
            else ""
        )
    height, width = pixels.shape[:2]
    if (width, height) == image.size:
        own: Any = image
        # Pillow takes an image without tiles for loaded.
        own.im, own.tile = Image.fromarray(pixels if colours == "RGB" else pixels[:, :, 0]).im, []
    return ""
