"""Drawing of maps with values in 0..1, alone or over an image. Pixels are RGB throughout."""

import functools

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16

from camcli.images.view import View
from camcli.outputs import Outside
from camcli.outputs.style import Style, peak_value

# Where the model did not see the image: greys of hatching and opacity of the hatching over the image; the grey in place
# of a colour; what is left of the image's light and of its colours where it is dimmed, and width of the frame around
# what the model saw, as a share of the image's longer side.
HATCH_GROUND, HATCH_LINE, FOG_OPACITY = 150, 124, 0.55
UNSEEN_GREY = 72
DIM_LIGHT, DIM_COLOUR = 0.5, 0.25
FRAME_COLOUR, FRAME_SHARE = (255, 255, 255), 1 / 500
# Below the heat the image is muted, by alpha times these: its colours, and its light below maps of cells and below
# those of single pixels, which are fine and need a darker ground.
MUTED_COLOUR, MUTED_LIGHT, MUTED_LIGHT_FINE = 0.5, 0.25, 0.5
# Rate at which the image's own colours fade further below the heat, in units of the heat's opacity.
FADING = 1.5
# Colours from -1 to 1: ColorBrewer's RdBu of nine, from blue to red (Harrower and Brewer 2003).
DIVERGING = (
    *((33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240), (247, 247, 247)),
    *((253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43)),
)
# Number of pixels blended at a time, so that intermediate results stay in the processor's cache.
STRIP_PIXELS = 2**18


def apply_colormap(
    heat: Float32[np.ndarray, "h w"], colormap: str, outside: Outside = "dim"
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour values in 0..1 by a colour map; NaN, where the model did not see, is grey, or hatched if asked for."""
    levels, seen = _to_levels(heat)
    coloured = cv2.applyColorMap(levels, _colormap_table(colormap))
    return coloured if seen.all() else _composite(seen, coloured, _draw_unseen_ground(heat.shape, outside))


def apply_diverging(values: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colour values in -1..1: blue below zero, white at zero, red above."""
    place = np.clip((values + 1) / 2, 0, 1) * (len(DIVERGING) - 1)
    channels = [np.interp(place, np.arange(len(DIVERGING)), column) for column in zip(*DIVERGING, strict=True)]
    return np.asarray(np.rint(np.stack(channels, -1)), np.uint8)


def shade(
    heat: Float32[np.ndarray, "h w"], colours: UInt8[np.ndarray, "h w 3"], outside: Outside = "dim"
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw colours on black, as strong as the heat; NaN is grey, or hatched if asked for."""
    levels, seen = _to_levels(heat)
    lit = _mix(np.zeros_like(colours), colours, cv2.LUT(levels, (np.arange(256) / 255).astype(np.float32)))
    return lit if seen.all() else _composite(seen, lit, _draw_unseen_ground(heat.shape, outside))


def blend(
    pixels: UInt8[np.ndarray, "h w 3"],
    heat: Float32[np.ndarray, "h w"],
    style: Style,
    colours: UInt8[np.ndarray, "h w 3"] | None = None,
    fine: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a map over its image.

    The colour's opacity is ``style.alpha`` times heat to the power 3/4. Below it the image is muted a little, so that
    the heat is what one sees first, and as the heat grows the image loses its own colours, so that an orange is not
    taken for heat. Pixels that the model did not see are NaN in ``heat``, and drawn as ``style.outside`` says.

    Args:
        pixels: the image.
        heat: the map, from 0 to 1.
        style: colour map, opacity, and what is done with pixels that the model did not see.
        colours: colours of concepts, drawn over the image in grey so that they stand out; None for the colour map.
        fine: True for a map of single pixels, whose ground is darker.
    """
    drawn = np.empty_like(pixels)
    height, width = heat.shape
    strip = max(1, STRIP_PIXELS // max(1, width))
    own, grey, colour = _blend_weights(style.alpha, keep=colours is None, fine=fine)
    for top in range(0, height, strip):
        rows = slice(top, top + strip)
        levels, seen = _to_levels(heat[rows])
        below = cv2.cvtColor(pixels[rows], cv2.COLOR_RGB2GRAY)
        over = cv2.applyColorMap(levels, _colormap_table(style.colormap)) if colours is None else colours[rows]
        # Products of two bytes, with weights that sum to at most 255: no sum overflows two bytes.
        mixed = _to_rgb(np.multiply(below, cv2.LUT(levels, grey), dtype=np.uint16))
        mixed += np.multiply(over, _to_rgb(cv2.LUT(levels, colour)), dtype=np.uint16)
        if colours is None:
            mixed += np.multiply(pixels[rows], _to_rgb(cv2.LUT(levels, own)), dtype=np.uint16)
        drawn[rows] = cv2.convertScaleAbs(mixed, alpha=1 / 255)
        if not seen.all():
            drawn[rows] = _composite(seen, drawn[rows], _draw_unseen(pixels[rows], below, style.outside, rows, height))
    return drawn


def frame(pixels: UInt8[np.ndarray, "h w 3"], view: View) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a thin frame around the part that the model saw, just outside of it, in place, and return the pixels.

    Args:
        pixels: the image, of the view's size.
        view: its view.
    """
    rows, columns, _ = view.crop()
    line = max(1, round(max(view.picture) * FRAME_SHARE))
    top, left = max(0, rows.start - line), max(0, columns.start - line)
    down, across = slice(top, rows.stop + line), slice(left, columns.stop + line)
    for side in (
        (slice(top, rows.start), across),
        (slice(rows.stop, rows.stop + line), across),
        (down, slice(left, columns.start)),
        (down, slice(columns.stop, columns.stop + line)),
    ):
        pixels[side] = FRAME_COLOUR
    return pixels


def draw_gradient(gradient: Float32[np.ndarray, "d h w"], outside: Outside = "dim") -> UInt8[np.ndarray, "h w 3"]:
    """Draw a signed gradient in RGB around mid-grey, on a symmetric scale; NaN is dark grey, or hatched if asked for.

    The 99.5th percentile of its magnitude becomes black or white. A single channel is drawn in grey.
    """
    if len(gradient) == 1:
        gradient = gradient.repeat(3, 0)
    seen = ~np.isnan(gradient[0])
    known = gradient[:, seen]
    scale = peak_value(known[:, np.newaxis], fine=True) if known.size else 0.0
    shares = np.clip(np.moveaxis(np.nan_to_num(gradient), 0, 2) / (scale or 1), -1, 1)
    return _composite(seen, np.rint(127.5 + 127.5 * shares).astype(np.uint8), _draw_unseen_ground(seen.shape, outside))


def _to_levels(heat: Float32[np.ndarray, "h w"]) -> tuple[UInt8[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Return values in 0..1 as 0..255, and a mask that is False at NaN."""
    seen = ~np.isnan(heat)
    return cv2.convertScaleAbs(heat if seen.all() else cv2.patchNaNs(heat.copy(), 0), alpha=255), seen


@functools.cache
def _blend_weights(
    alpha: float, keep: bool, fine: bool
) -> tuple[UInt8[np.ndarray, " 256"], UInt8[np.ndarray, " 256"], UInt8[np.ndarray, " 256"]]:
    """Return a blended pixel's weights, in 255ths by level of heat, of its own colour, its grey and the heat's colour.

    Args:
        alpha: opacity of the heat's colour at its strongest.
        keep: True to keep the image's own colours where there is little heat.
        fine: True for a darker ground.
    """
    opacity = alpha * (np.arange(256) / 255) ** 0.75
    light = (1 - opacity) * (1 - alpha * (MUTED_LIGHT_FINE if fine else MUTED_LIGHT))
    saturation = keep * (1 - alpha * MUTED_COLOUR) * (1 - np.minimum(FADING * opacity, 1))
    colour = np.rint(255 * opacity)
    both = np.minimum(np.rint(255 * light), 255 - colour)
    own = np.minimum(np.rint(255 * light * saturation), both)
    return own.astype(np.uint8), (both - own).astype(np.uint8), colour.astype(np.uint8)


def _to_rgb(grey: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]) -> np.ndarray:
    """Return grey values as RGB."""
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))


@functools.cache
def _colormap_table(colormap: str) -> UInt8[np.ndarray, "256 1 3"]:
    levels = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    blue_first = cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    return np.asarray(cv2.cvtColor(blue_first, cv2.COLOR_BGR2RGB))


def _mix(
    under: UInt8[np.ndarray, "h w 3"], over: UInt8[np.ndarray, "h w 3"], opacity: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(cv2.blendLinear(under, over, 1 - opacity, opacity))


def _composite(
    seen: Bool[np.ndarray, "h w"], pixels: UInt8[np.ndarray, "h w 3"], ground: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Copy ``pixels`` onto ``ground`` where seen, in place, and return it."""
    return np.asarray(cv2.copyTo(pixels, seen.view(np.uint8), ground))


def _draw_unseen(
    pixels: UInt8[np.ndarray, "h w 3"],
    grey: UInt8[np.ndarray, "h w"],
    outside: Outside,
    rows: slice,
    height: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw some rows of an image of this height as if the model had not seen them; ``grey`` is the image in grey."""
    match outside:
        case "keep":
            return pixels.copy()
        case "hide":
            return np.full_like(pixels, UNSEEN_GREY)
        case "hatch":
            hatch = _hatch(height, pixels.shape[1], rows)
            return np.asarray(cv2.addWeighted(_to_rgb(grey), 1 - FOG_OPACITY, hatch, FOG_OPACITY, 0))
        case "dim":
            shares = DIM_LIGHT * DIM_COLOUR, DIM_LIGHT * (1 - DIM_COLOUR)
            return np.asarray(cv2.addWeighted(pixels, shares[0], _to_rgb(grey), shares[1], 0))


def _draw_unseen_ground(size: tuple[int, ...], outside: Outside) -> UInt8[np.ndarray, "h w 3"]:
    """Draw what stands where there is no image and the model did not see."""
    return _hatch(size[0], size[1]) if outside == "hatch" else np.full((*size, 3), UNSEEN_GREY, np.uint8)


def _hatch(height: int, width: int, rows: slice = slice(None)) -> UInt8[np.ndarray, "h w 3"]:
    """Draw diagonal lines spaced by the image's size, for all rows or some."""
    period = max(6, round(max(height, width) / 56))
    line = np.where(
        np.arange(width + period) % period < max(1, period // 5), np.uint8(HATCH_LINE), np.uint8(HATCH_GROUND)
    )
    shifted = np.lib.stride_tricks.sliding_window_view(line, width)
    return _to_rgb(shifted[np.arange(height)[rows] % period])
