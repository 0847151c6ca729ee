"""Pictures of untrained models say that they mean nothing."""

import functools

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

BANNER = (255, 196, 0)
WARNINGS = ("random weights: this map means nothing", "random weights: means nothing", "random weights", "random")
SMALLEST_TEXT = 9


def stamp_untrained(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A banner along the lower edge, painted onto these pixels: the weights are random, and the map means nothing.

    It says as much as fits; a picture too small for any word keeps the banner's colour.
    """
    banner = _banner(*pixels.shape[:2])
    pixels[-len(banner) :] = banner
    return pixels


@functools.lru_cache(4)
def _banner(height: int, width: int) -> UInt8[np.ndarray, "rows w 3"]:
    text, size = _fitting(width * 0.94, max(SMALLEST_TEXT, min(width // 24, height // 8)))
    band = min(height, max(3, round(size * 1.7)) if text else max(1, height // 5))
    banner = Image.new("RGB", (width, band), BANNER)
    ImageDraw.Draw(banner).text((width / 2, band / 2), text, (0, 0, 0), ImageFont.load_default(size), anchor="mm")
    return np.asarray(banner)


def _fitting(width: float, wanted: int) -> tuple[str, int]:
    """The longest warning that fits, and the largest size at which it does."""
    for text in WARNINGS:
        for size in range(wanted, SMALLEST_TEXT - 1, -1):
            if ImageFont.load_default(size).getlength(text) <= width:
                return text, size
    return "", SMALLEST_TEXT
