"""From 0..1 to pixels: colours, and a map over a picture. Pixels are red green blue throughout."""

import functools

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16

from camcli.outputs.style import Style, strongest

# What the model did not see is hatched in these two greys, whatever the colour map and whatever the picture.
GROUND, LINE = 150, 124
FOG = 0.55
# How fast the picture's own colours fade below the heat, in units of the heat's opacity.
FADING = 1.5
# Pixels that are blended at a time, so that what is computed on the way stays in the processor's cache.
STRIP = 2**18


def colours(heat: Float32[np.ndarray, "h w"], colormap: str) -> UInt8[np.ndarray, "h w 3"]:
    """Values in 0..1 through a colour map; NaN, what the model did not see, is hatched grey."""
    levels, seen = _levels(heat)
    coloured = cv2.applyColorMap(levels, _table(colormap))
    return coloured if seen.all() else _where(seen, coloured, _hatched(*heat.shape))


def shaded(heat: Float32[np.ndarray, "h w"], colours: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours as strong as the heat, on black; NaN is hatched grey."""
    levels, seen = _levels(heat)
    lit = _mixed(np.zeros_like(colours), colours, cv2.LUT(levels, (np.arange(256) / 255).astype(np.float32)))
    return lit if seen.all() else _where(seen, lit, _hatched(*heat.shape))


def blend(
    pixels: UInt8[np.ndarray, "h w 3"],
    heat: Float32[np.ndarray, "h w"],
    style: Style,
    colours: UInt8[np.ndarray, "h w 3"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The map over its picture.

    The colour's opacity is ``style.alpha`` times heat to the power 3/4: where the map is zero the picture is
    untouched, where it is strongest the colour has the opacity ``alpha``. As the heat grows the picture below loses
    its own colours, so that an orange is not taken for heat. What the model did not see is grey, dull and hatched.
    ``colours`` are those of concepts, which lie over a picture without colours of its own, or nobody could tell them
    apart from it; otherwise the style's colour map says them.
    """
    drawn = np.empty_like(pixels)
    height, width = heat.shape
    strip = max(1, STRIP // max(1, width))
    own, grey, colour = _shares(style.alpha, keep=colours is None)
    for top in range(0, height, strip):
        rows = slice(top, top + strip)
        levels, seen = _levels(heat[rows])
        below = cv2.cvtColor(pixels[rows], cv2.COLOR_RGB2GRAY)
        over = cv2.applyColorMap(levels, _table(style.colormap)) if colours is None else colours[rows]
        # Products of two bytes, of shares that are 255 together: no sum is too large for two bytes.
        mixed = _rgb(np.multiply(below, cv2.LUT(levels, grey), dtype=np.uint16))
        mixed += np.multiply(over, _rgb(cv2.LUT(levels, colour)), dtype=np.uint16)
        if colours is None:
            mixed += np.multiply(pixels[rows], _rgb(cv2.LUT(levels, own)), dtype=np.uint16)
        drawn[rows] = cv2.convertScaleAbs(mixed, alpha=1 / 255)
        if not seen.all():
            fog = cv2.addWeighted(_rgb(below), 1 - FOG, _hatched(height, width, rows), FOG, 0)
            drawn[rows] = _where(seen, drawn[rows], fog)
    return drawn


def gradient_picture(gradient: Float32[np.ndarray, "d h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A signed gradient of red, green and blue around mid-grey, equally far to both sides; NaN is hatched.

    The 99.5th percentile of its magnitude becomes black or white. Of one channel it is grey.
    """
    if len(gradient) == 1:
        gradient = gradient.repeat(3, 0)
    seen = ~np.isnan(gradient[0])
    known = gradient[:, seen]
    scale = strongest(known[:, np.newaxis]) if known.size else 0.0
    shares = np.clip(np.moveaxis(np.nan_to_num(gradient), 0, 2) / (scale or 1), -1, 1)
    return _where(seen, np.rint(127.5 + 127.5 * shares).astype(np.uint8), _hatched(*seen.shape))


def _levels(heat: Float32[np.ndarray, "h w"]) -> tuple[UInt8[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Values in 0..1 as 0..255, and where they are not NaN."""
    seen = ~np.isnan(heat)
    return cv2.convertScaleAbs(heat if seen.all() else cv2.patchNaNs(heat.copy(), 0), alpha=255), seen


@functools.cache
def _shares(
    alpha: float, keep: bool
) -> tuple[UInt8[np.ndarray, " 256"], UInt8[np.ndarray, " 256"], UInt8[np.ndarray, " 256"]]:
    """Of how much a blended pixel is made at each level of heat, in 255ths: of its own colour, its grey, the heat's.

    Args:
        alpha: the opacity of the heat's colour at its strongest.
        keep: the picture has colours of its own where there is little heat.
    """
    opacity = alpha * (np.arange(256) / 255) ** 0.75
    colour = np.rint(255 * opacity)
    own = np.rint(255 * (1 - opacity) * (1 - np.minimum(FADING * opacity, 1))) * keep
    return own.astype(np.uint8), (255 - colour - own).astype(np.uint8), colour.astype(np.uint8)


def _rgb(grey: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]) -> np.ndarray:
    """The same value for red, green and blue."""
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))


@functools.cache
def _table(colormap: str) -> UInt8[np.ndarray, "256 1 3"]:
    levels = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    blue_first = cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    return np.asarray(cv2.cvtColor(blue_first, cv2.COLOR_BGR2RGB))


def _mixed(
    under: UInt8[np.ndarray, "h w 3"], over: UInt8[np.ndarray, "h w 3"], opacity: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(cv2.blendLinear(under, over, 1 - opacity, opacity))


def _where(
    seen: Bool[np.ndarray, "h w"], pixels: UInt8[np.ndarray, "h w 3"], ground: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """``pixels`` where seen, on ``ground``, which is painted over."""
    return np.asarray(cv2.copyTo(pixels, seen.view(np.uint8), ground))


def _hatched(height: int, width: int, rows: slice = slice(None)) -> UInt8[np.ndarray, "h w 3"]:
    """Diagonal lines whose distance follows the picture's size; all of them, or some rows."""
    period = max(6, round(max(height, width) / 56))
    line = np.where(np.arange(width + period) % period < max(1, period // 5), np.uint8(LINE), np.uint8(GROUND))
    shifted = np.lib.stride_tricks.sliding_window_view(line, width)
    return _rgb(shifted[np.arange(height)[rows] % period])
