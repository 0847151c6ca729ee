"""A map to colours, a map over a picture. Pixels are red green blue throughout."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16
from PIL import Image, ImageDraw, ImageFont

from camcli.errors import PictureError
from camcli.job import Normalize

# Single pixels dominate a gradient: the value that 99.5 % of them stay below is drawn as the strongest.
ROBUST = 99.5
# Over a photograph a gradient's pixels are lost one by one. An overlay spreads them with a Gaussian whose standard
# deviation is this share of the input's shorter side: 3.4 of 224 pixels, where eye and nose of a cat are still apart.
SPREAD = 0.015
# What the model did not see is hatched in these two greys, whatever the colour map and whatever the picture.
GROUND, LINE = 150, 124
FOG = 0.55
# How fast the picture's own colours fade below the heat, in units of the heat's opacity.
FADING = 1.5
# Pixels that are blended at a time, so that what is computed on the way stays in the processor's cache.
STRIP = 2**18

# The colours of concepts: those of Okabe and Ito (2008), which colour-blind people can tell apart, without black;
# beyond the seventh they come again darker, and then lighter.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0))
SHADES = ((0, 0.0), (0, 0.5), (255, 0.55))

QUALITY = 92
JPEG_SIDE = 65_500

BANNER = (255, 196, 0)
WARNINGS = ("random weights: this map means nothing", "random weights: means nothing", "random weights", "random")
SMALLEST_TEXT = 9


@dataclass(frozen=True, slots=True)
class Style:
    """How maps are drawn.

    Attributes:
        colormap: a name from ``camcli.outputs.COLORMAPS``.
        alpha: the opacity of the colour in an overlay where the map is at its strongest; see ``blend``.
        normalize: what becomes 1: ``image`` the map's own strongest value, ``run`` the value ``scale``, ``none`` 1.
            ``range`` is ``image``, and what becomes 0 is the least value shown.
        scale: for ``run``.
        untrained: the weights are random, and every picture says so.
    """

    colormap: str
    alpha: float
    normalize: Normalize
    scale: float | None = None
    untrained: bool = False


def display(
    map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"],
) -> Float32[np.ndarray, "h w"]:
    """What is shown of a signed map: nothing below zero.

    A layer's map is rectified (Selvaraju et al. 2017, arXiv:1610.02391, eq. 2); of a gradient at the input the
    greatest magnitude over the three colours is taken (Simonyan et al. 2013, arXiv:1312.6034, sec. 3.1).

    Raises:
        PictureError: the map has values that are not finite; they are not drawn as if they were zero.
    """
    if not np.isfinite(map).all():
        raise PictureError("the map has values that are not finite")
    return np.asarray(np.abs(map).max(0) if map.ndim == 3 else np.maximum(map, 0))


def strongest(map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"]) -> float:
    """The value that becomes 1 when a map is normalised by itself; the greatest of these is a run's ``scale``.

    Of a layer's map the greatest value shown, of a gradient at the input the 99.5th percentile (or the greatest
    value, where so few are not zero that the percentile is).
    """
    shown = display(map)
    robust = float(np.percentile(shown, ROBUST)) if map.ndim == 3 else 0.0
    return robust or float(shown.max())


def full(map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"], style: Style) -> float:
    """The value that becomes 1 when this map is drawn in this style."""
    match style.normalize:
        case "image" | "range":
            return strongest(map)
        case "run":
            if style.scale is None:
                raise ValueError("normalize='run' needs the run's scale")
            return style.scale
        case "none":
            return 1.0


def unit(
    map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"], style: Style, spread: bool = False
) -> Float32[np.ndarray, "h w"]:
    """What is shown of a map, between 0 and 1, at the map's own size. A map without anything to show stays zero.

    Args:
        map: as the method gave it.
        style: says what becomes 1.
        spread: for overlays: what is shown of a gradient at the input is smoothed (``SPREAD``) and then brought back
            to the strength it had, so that one scale serves it and the unsmoothed heatmap. A layer's map, which is
            smooth already, stays as it is.
    """
    shown = display(map)
    if spread and map.ndim == 3:
        shown = _spread(shown, strongest(map))
    scale = full(map, style)
    least = float(shown.min()) if style.normalize == "range" else 0.0
    # What is the same everywhere is as strong everywhere.
    if scale <= least:
        return np.full_like(shown, float(scale > 0))
    drawn: np.ndarray = np.clip((shown - np.float32(least)) / np.float32(scale - least), 0, 1)
    return drawn


def colours(heat: Float32[np.ndarray, "h w"], colormap: str) -> UInt8[np.ndarray, "h w 3"]:
    """Values in 0..1 through a colour map; NaN, what the model did not see, is hatched grey."""
    levels, seen = _levels(heat)
    coloured = cv2.applyColorMap(levels, _table(colormap))
    return coloured if seen.all() else _where(seen, coloured, _hatched(*heat.shape))


def hue(number: int) -> tuple[int, int, int]:
    """The colour of a concept, from 1 on; after 21 they come again."""
    turn, place = divmod((number - 1) % (len(PALETTE) * len(SHADES)), len(PALETTE))
    towards, part = SHADES[turn]
    red, green, blue = (round(value + part * (towards - value)) for value in PALETTE[place])
    return red, green, blue


def by_concept(
    maps: Float32[np.ndarray, "k h w"], style: Style, onto: Callable[[np.ndarray], np.ndarray]
) -> tuple[Float32[np.ndarray, "H W"], UInt8[np.ndarray, "H W 3"]]:
    """Concepts on one sheet: the heat of the strongest at each place, and its colour there at full strength.

    All have one scale, so that they compare.

    Args:
        maps: of each concept how much of it every cell has.
        style: says what becomes 1.
        onto: from a map's cells to the sheet's pixels.
    """
    most = maps.max(0)
    scale = full(most, style)
    least = float(most.min()) if style.normalize == "range" else 0.0
    heat: np.ndarray | None = None
    which = np.zeros((0, 0), np.uint8)
    for number, map in enumerate(maps):
        drawn = np.clip((map - least) / (scale - least), 0, 1) if scale > least else np.full_like(map, scale > 0)
        own = onto(drawn.astype(np.float32))
        if heat is None:
            heat, which = own, np.zeros(own.shape, np.int64)
        else:
            # What is not seen is NaN, and greater than nothing.
            which[own > heat] = number
            heat = np.maximum(heat, own)
    assert heat is not None
    colours = np.array([hue(number + 1) for number in range(len(maps))], np.uint8)
    return heat, colours[which]


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


def png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An encoded PNG file.

    By OpenCV at its own setting: measured on a photograph of 12 megapixels 0.30 s, where Pillow's quickest takes
    0.53 s; files are a quarter larger than Pillow's.

    Raises:
        OSError: it cannot be encoded.
    """
    done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels cannot be encoded as PNG")
    return bytes(encoded)


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An encoded JPEG file, its colours as fine as its brightness, since the heat is in them.

    Measured on photographs: of 640 x 480 pixels 1.0 ms against 7.7 ms for PNG, of 4000 x 3000 38 ms against 270 ms, in
    files a sixth as large.

    Raises:
        OSError: it cannot be encoded: JPEG holds 65,500 pixels a side.
    """
    height, width = pixels.shape[:2]
    if max(height, width) <= JPEG_SIDE:
        settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)
        if done:
            return bytes(encoded)
    raise OSError(f"a picture of {width} x {height} pixels cannot be encoded as JPEG: --save overlay-png")


def _spread(shown: Float32[np.ndarray, "h w"], strength: float) -> Float32[np.ndarray, "h w"]:
    """Smoothed, with ``strength`` where 99.5 % of its values stay below.

    But at most twice that: of a gradient of few pixels nearly all is zero, smoothed too, and its percentile would draw
    the last traces of each pixel at full strength.
    """
    smooth = np.asarray(cv2.GaussianBlur(shown, (0, 0), SPREAD * min(shown.shape), borderType=cv2.BORDER_REFLECT))
    top = max(float(np.percentile(smooth, ROBUST)), float(smooth.max()) / 2)
    return np.asarray(smooth * np.float32(strength / top)) if top > 0 else smooth


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


def _fitting(width: float, wanted: int) -> tuple[str, int]:
    """The longest warning that fits, and the largest size at which it does."""
    for text in WARNINGS:
        for size in range(wanted, SMALLEST_TEXT - 1, -1):
            if ImageFont.load_default(size).getlength(text) <= width:
                return text, size
    return "", SMALLEST_TEXT
