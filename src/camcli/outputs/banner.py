"""Warning banner on images of untrained models."""

import functools

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from camcli.outputs.font import load_font

BANNER_COLOUR = (255, 196, 0)
WARNINGS = ("random weights: this map means nothing", "random weights: means nothing", "random weights", "random")
MIN_TEXT_SIZE = 9


def stamp_untrained(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a warning banner onto the lower edge of the pixels, in place, and return them.

    It holds the longest text that fits; in an image too small for any it is a plain stripe.
    """
    banner = draw_banner(*pixels.shape[:2])
    pixels[-len(banner) :] = banner
    return pixels


@functools.lru_cache(4)
def draw_banner(height: int, width: int) -> UInt8[np.ndarray, "rows w 3"]:
    """Draw the banner of an image of this size."""
    text, size = fit_text(width * 0.94, max(MIN_TEXT_SIZE, min(width // 24, height // 8)))
    band = min(height, max(3, round(size * 1.7)) if text else max(1, height // 5))
    banner = Image.new("RGB", (width, band), BANNER_COLOUR)
    ImageDraw.Draw(banner).text((width / 2, band / 2), text, (0, 0, 0), load_font(size), anchor="mm")
    return np.asarray(banner)


def fit_text(width: float, wanted: int) -> tuple[str, int]:
    """Return the longest warning that fits, and the largest size at which it does."""
    for text in WARNINGS:
        for size in range(wanted, MIN_TEXT_SIZE - 1, -1):
            if load_font(size).getlength(text) <= width:
                return text, size
    return "", MIN_TEXT_SIZE
