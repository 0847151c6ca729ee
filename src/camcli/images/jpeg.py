"""JPEGs decoded by who says what the decoder only warns of: Pillow gives a damaged picture without a word."""

import importlib
import io
from contextlib import suppress
from typing import IO, Any

from PIL import Image

simplejpeg: Any = None
with suppress(ImportError):  # there is a wheel for nearly every machine; on others damage is not noticed
    simplejpeg = importlib.import_module("simplejpeg")

COLOURS = {"RGB": "RGB", "L": "GRAY"}
# How libjpeg's warnings begin that speak of the pixels. What else it says here Pillow knows, or can do without.
DAMAGE = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")


def load(image: Image.Image, file: IO[bytes] | io.BufferedIOBase) -> str:
    """Have the pixels of an opened JPEG decoded; what is to be said if they are damaged, and then Pillow's turn.

    It is the same library, libjpeg-turbo with the same settings, so the pixels are Pillow's to the bit. Anything but a
    plain colour or grey JPEG is left alone.

    Args:
        image: not loaded yet, and at its full size.
        file: where it was opened.
    """
    colours = COLOURS.get(image.mode)
    if simplejpeg is None or image.format != "JPEG" or colours is None:
        return ""
    file.seek(0)
    try:
        pixels = simplejpeg.decode_jpeg(file.read(), colorspace=colours, strict=True)
    except ValueError as error:
        said = str(error)
        return f"the file is damaged, and parts of the picture are wrong ({said})" if said.startswith(DAMAGE) else ""
    height, width = pixels.shape[:2]
    if (width, height) == image.size:
        own: Any = image
        # A picture of Pillow's without tiles to be read is loaded.
        own.im, own.tile = Image.fromarray(pixels if colours == "RGB" else pixels[:, :, 0]).im, []
    return ""
