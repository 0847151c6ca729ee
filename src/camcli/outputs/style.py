"""Scaling of maps to 0..1, and the colours of concepts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.outputs import Normalize, Outside

# Single pixels dominate a fine map, so that its 99.5th percentile is drawn at full strength.
ROBUST_PERCENTILE = 99.5
# Single pixels are hard to see over a photograph. An overlay smooths a fine map with a Gaussian whose standard
# deviation is this share of the input's shorter side: 1.3 of 224 pixels, so that whiskers and spokes can still be seen.
SMOOTHING = 0.006
# Lines and boxes around single pixels would say nothing. For them a fine map is smoothed more: 5 of 224 pixels.
OUTLINE_SMOOTHING = 0.024

# Colours of concepts: those of Okabe and Ito (2008), which colour-blind people can tell apart, without black; after the
# seventh they repeat in a darker shade, and then in a lighter one.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0))
SHADES = ((0, 0.0), (0, 0.5), (255, 0.55))


@dataclass(frozen=True, slots=True)
class Style:
    """Style of drawn maps.

    Attributes:
        colormap: a name from ``camcli.outputs.COLORMAPS``.
        alpha: opacity of the colour in an overlay where the map is strongest; see :func:`camcli.outputs.draw.blend`.
        normalize: the value that becomes 1: ``image`` for the map's own peak, ``run`` for ``scale``, ``none`` for 1.
            ``range`` is ``image`` with the least value shown as 0.
        scale: the run's peak value, for ``run``.
        outside: what is done with the part of an image that the model did not see: dim it, hatch it, hide it, or keep
            it as it is.
        model: the model's name, for panels.
        noun: what the model calls its classes, for panels: ``class``, ``channel`` or ``prompt``.
        panel_size: longer side of each image in a panel, in pixels; 0 for the usual height.
        untrained: True if the weights are random; every image then has a warning.
    """

    colormap: str
    alpha: float
    normalize: Normalize
    scale: float | None = None
    outside: Outside = "dim"
    model: str = ""
    noun: str = "class"
    panel_size: int = 0
    untrained: bool = False


def rectify(
    map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"],
) -> Float32[np.ndarray, "h w"]:
    """Rectify a signed map for drawing.

    A layer's map is cut off below zero (Selvaraju et al. 2017, arXiv:1610.02391, eq. 2); of a gradient at the input the
    greatest magnitude over the three colours is taken (Simonyan et al. 2013, arXiv:1312.6034, sec. 3.1).

    Raises:
        PictureError: the map has values that are not finite, which must not be drawn as zero.
    """
    if not np.isfinite(map).all():
        raise PictureError("the map has values that are not finite")
    return np.asarray(np.abs(map).max(0) if map.ndim == 3 else np.maximum(map, 0))


def peak_value(map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"], fine: bool = False) -> float:
    """Return the value that becomes 1 when a map is normalized by itself; a run's ``scale`` is the greatest of these.

    It is the greatest value of a rectified map of cells, and the 99.5th percentile of a fine one (or its greatest value
    where the percentile is zero). A fine map without colours may show one small object, so that its peak is at least
    half of the greatest value of the map smoothed as for overlays.

    Args:
        map: the map as the method gave it.
        fine: True for a map of the input's pixels: :func:`camcli.images.view.is_fine`.
    """
    shown = rectify(map)
    robust = float(np.percentile(shown, ROBUST_PERCENTILE)) if fine else 0.0
    if fine and map.ndim == 2:
        robust = max(robust, float(_blur(shown, SMOOTHING).max()) / 2)
    return robust or float(shown.max())


def full_scale(
    map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"], style: Style, fine: bool = False
) -> float:
    """Return the value that becomes 1 when a map, fine or of cells, is drawn in a style."""
    match style.normalize:
        case "image" | "range":
            return peak_value(map, fine)
        case "run":
            if style.scale is None:
                raise ValueError("normalize='run' needs the run's scale")
            return style.scale
        case "none":
            return 1.0


def to_unit_range(
    map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"],
    style: Style,
    fine: bool = False,
    smooth: bool = False,
) -> Float32[np.ndarray, "h w"]:
    """Rectify a map and scale it to 0..1, at its own size. A map without positive values becomes zero.

    Args:
        map: the map as the method gave it.
        style: style that sets the value that becomes 1.
        fine: True for a map of the input's pixels, as for :func:`peak_value`.
        smooth: True to smooth a fine map (by ``SMOOTHING``) for overlays; its strength is kept, so that one scale holds
            for the overlay and the unsmoothed heatmap. A map of cells is not smoothed.
    """
    shown = rectify(map)
    if smooth and fine:
        shown = _smooth(shown, peak_value(map, fine))
    scale = full_scale(map, style, fine)
    least = float(shown.min()) if style.normalize == "range" else 0.0
    # A constant map is all 1, or all 0.
    if scale <= least:
        return np.full_like(shown, float(scale > 0))
    drawn: np.ndarray = np.clip((shown - np.float32(least)) / np.float32(scale - least), 0, 1)
    return drawn


def to_outline_range(
    map: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "d h w"], style: Style, fine: bool
) -> Float32[np.ndarray, "h w"]:
    """Scale a map as :func:`to_unit_range` does, for lines and boxes: a fine one smoothed, with the same peak."""
    if not fine:
        return to_unit_range(map, style)
    wide = _blur(rectify(map), OUTLINE_SMOOTHING)
    top = float(wide.max())
    return to_unit_range(wide * np.float32(peak_value(map, fine) / top) if top > 0 else wide, style)


def concept_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a concept, numbered from 1; colours repeat after 21."""
    turn, place = divmod((number - 1) % (len(PALETTE) * len(SHADES)), len(PALETTE))
    towards, part = SHADES[turn]
    red, green, blue = (round(value + part * (towards - value)) for value in PALETTE[place])
    return red, green, blue


def scale_concepts(maps: Float32[np.ndarray, "k h w"], style: Style) -> Iterator[Float32[np.ndarray, "h w"]]:
    """Yield the map of each concept scaled to 0..1. All share one scale."""
    most = maps.max(0)
    scale = full_scale(most, style)
    least = float(most.min()) if style.normalize == "range" else 0.0
    for map in maps:
        drawn = np.clip((map - least) / (scale - least), 0, 1) if scale > least else np.full_like(map, scale > 0)
        yield drawn.astype(np.float32)


def draw_concepts(
    explanation: Explanation, style: Style, onto: Callable[[np.ndarray], np.ndarray]
) -> tuple[Float32[np.ndarray, "H W"], UInt8[np.ndarray, "H W 3"]]:
    """Combine the maps of concepts: the heat of the strongest at each pixel, and its colour at full strength.

    All concepts share one scale. Segments are equally strong everywhere. Components are mixed as red, green and blue.

    Args:
        explanation: what was found in each cell.
        style: style that sets the value that becomes 1.
        onto: from a map's cells to the pixels of the drawing.
    """
    maps = explanation.map
    if explanation.finds == "components":
        return _draw_components(maps, onto)
    heat: np.ndarray | None = None
    which = np.zeros((0, 0), np.uint8)
    for number, map in enumerate(scale_concepts(maps, style)):
        own = onto(map)
        if heat is None:
            heat, which = own, np.zeros(own.shape, np.int64)
        else:
            # Unseen pixels are NaN, and no comparison with NaN is true.
            which[own > heat] = number
            heat = np.maximum(heat, own)
    assert heat is not None
    colours = np.array([concept_colour(number + 1) for number in range(len(maps))], np.uint8)
    return (np.where(np.isnan(heat), heat, np.float32(1)) if explanation.finds == "segments" else heat), colours[which]


def _draw_components(
    maps: Float32[np.ndarray, "k h w"], onto: Callable[[np.ndarray], np.ndarray]
) -> tuple[Float32[np.ndarray, "H W"], UInt8[np.ndarray, "H W 3"]]:
    """Mix the last three maps z as red, green and blue, sigmoid(2 z); one before them is positive in the foreground."""
    *foreground, red, green, blue = maps
    heat: np.ndarray | None = None
    for map in foreground:
        place = onto(map)
        heat = np.where(np.isnan(place), place, (place > 0).astype(np.float32))
    mixed = np.stack([onto(np.tanh(map)) for map in (red, green, blue)], -1)
    if heat is None:
        heat = np.where(np.isnan(mixed[..., 0]), mixed[..., 0], np.float32(1))
    # sigmoid(2 z) is half of 1 + tanh(z).
    return heat, np.nan_to_num(np.rint(127.5 + 127.5 * mixed)).astype(np.uint8)


def _smooth(shown: Float32[np.ndarray, "h w"], strength: float) -> Float32[np.ndarray, "h w"]:
    """Smooth a map and rescale its 99.5th percentile to ``strength``.

    The greatest value is at most twice that: a gradient of few pixels is nearly all zero even when smoothed, and its
    percentile would draw faint traces of each pixel at full strength.
    """
    smooth = _blur(shown, SMOOTHING)
    top = max(float(np.percentile(smooth, ROBUST_PERCENTILE)), float(smooth.max()) / 2)
    return np.asarray(smooth * np.float32(strength / top)) if top > 0 else smooth


def _blur(shown: Float32[np.ndarray, "h w"], share: float) -> Float32[np.ndarray, "h w"]:
    """Smooth a map by a Gaussian whose standard deviation is a share of its shorter side; mirrored at the border."""
    return np.asarray(cv2.GaussianBlur(shown, (0, 0), share * min(shown.shape), borderType=cv2.BORDER_REFLECT))
