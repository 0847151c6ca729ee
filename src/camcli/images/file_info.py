"""Colour space and resolution of an image file, which say how its pixels are shown."""

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

# Where an ICC profile names the colour space of the pixels that it is for (ICC.1:2022, section 7.2), and that of RGB.
COLOUR_SPACE, RGB = slice(16, 20), b"RGB "
# A JPEG holds a density of up to two bytes.
MAX_DPI = 2**16 - 1


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Properties of an image file that files drawn over the image keep.

    Attributes:
        icc_profile: the ICC profile of its RGB pixels, which are never converted: without it those of a photograph in
            Display P3 or Adobe RGB would look dull. None if there is none, or one of other colours (grey, CMYK).
        dpi: pixels per inch across and down; None if not known.
    """

    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None


NO_INFO = FileInfo()


def read_file_info(image: Image.Image, turned: bool = False) -> FileInfo:
    """Read the properties of an opened image.

    Args:
        image: the image as it is stored.
        turned: True if its width is the upright image's height.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or profile[COLOUR_SPACE] != RGB:
        profile = None
    return FileInfo(profile, _read_dpi(image.info.get("dpi"), turned))


def _read_dpi(given: Any, turned: bool) -> tuple[float, float] | None:
    try:
        across, down = (float(one) for one in given)
    except (TypeError, ValueError, ArithmeticError):  # none, or a damaged one
        return None
    if not all(math.isfinite(one) and 1 <= one <= MAX_DPI for one in (across, down)):
        return None
    return (down, across) if turned else (across, down)
