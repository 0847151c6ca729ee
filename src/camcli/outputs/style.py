"""From a map's values to 0..1, and the colours of concepts."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from camcli.base.errors import PictureError
from camcli.outputs import Normalize

# Single pixels dominate a gradient: the value that 99.5 % of them stay below is drawn as the strongest.
ROBUST = 99.5
# Over a photograph a gradient's pixels are lost one by one. An overlay spreads them with a Gaussian whose standard
# deviation is this share of the input's shorter side: 3.4 of 224 pixels, where eye and nose of a cat are still apart.
SPREAD = 0.015

# The colours of concepts: those of Okabe and Ito (2008), which colour-blind people can tell apart, without black;
# beyond the seventh they come again darker, and then lighter.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0))
SHADES = ((0, 0.0), (0, 0.5), (255, 0.55))


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


def full_scale(map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"], style: Style) -> float:
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
    scale = full_scale(map, style)
    least = float(shown.min()) if style.normalize == "range" else 0.0
    # What is the same everywhere is as strong everywhere.
    if scale <= least:
        return np.full_like(shown, float(scale > 0))
    drawn: np.ndarray = np.clip((shown - np.float32(least)) / np.float32(scale - least), 0, 1)
    return drawn


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
    scale = full_scale(most, style)
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


def _spread(shown: Float32[np.ndarray, "h w"], strength: float) -> Float32[np.ndarray, "h w"]:
    """Smoothed, with ``strength`` where 99.5 % of its values stay below.

    But at most twice that: of a gradient of few pixels nearly all is zero, smoothed too, and its percentile would draw
    the last traces of each pixel at full strength.
    """
    smooth = np.asarray(cv2.GaussianBlur(shown, (0, 0), SPREAD * min(shown.shape), borderType=cv2.BORDER_REFLECT))
    top = max(float(np.percentile(smooth, ROBUST)), float(smooth.max()) / 2)
    return np.asarray(smooth * np.float32(strength / top)) if top > 0 else smooth
