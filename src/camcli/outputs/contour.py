"""Output of the image with lines of equal heat."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, UInt8

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.images.view import is_fine
from camcli.outputs import draw, encode
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.style import Style, concept_colour, scale_concepts, to_outline_range

# Shares of the peak at which lines are drawn: of a map, and of each concept.
LEVELS: Sequence[float] = (0.25, 0.5, 0.75)
CONCEPT_LEVELS: Sequence[float] = (0.5,)
# Width of a line, and of the dark outline on each side of it, as shares of the image's longer side and at least.
LINE, OUTLINE = (1 / 250, 1.5), (1 / 500, 1.0)
OUTLINE_OPACITY = 0.7
# Lines have colours of the colour map's brighter part, which stand out from their outline: the place there of level 0,
# and how far level 1 is from it.
FIRST_COLOUR, COLOUR_RANGE = 0.4, 0.7
# Slopes below this, in units of the peak for each pixel, are those of flat heat, which has no line.
LEAST_SLOPE = 1e-7
# Number of pixels drawn at a time, so that intermediate results stay small.
STRIP_PIXELS = 2**18


def contour(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw lines at quarters of the map's peak over the image, as a JPEG of the image's own size.

    The image itself is as it is, so that what is inside can be seen. Each concept has one line, in its colour.
    """
    return encode.jpeg(draw_contours(picture, explanation, style), picture.info)


def draw_contours(picture: Picture, explanation: Explanation, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the lines over the image; see :func:`contour`. What the model did not see is as in an overlay."""
    view = picture.view
    if explanation.finds == "components":
        raise PictureError("components have no lines: they are mixed as colours", "choose overlay or heatmap")
    if explanation.concepts:
        maps = [*scale_concepts(explanation.map, style)]
        levels, colours = CONCEPT_LEVELS, [[concept_colour(number)] for number in range(1, len(maps) + 1)]
    else:
        maps = [to_outline_range(explanation.map, style, is_fine(explanation.map, view))]
        levels, colours = LEVELS, [choose_line_colours(style.colormap)]
    rows, columns, _ = view.crop()
    drawn: np.ndarray | None = None
    for map, own in zip(maps, colours, strict=True):
        heat = view.enlarge(map)
        if drawn is None:  # as an overlay without any heat
            drawn = draw.blend(picture.pixels, heat, replace(style, alpha=0.0))
        _trace(drawn[rows, columns], heat[rows, columns], levels, own, max(view.picture))
    assert drawn is not None
    if style.outside == "dim":
        draw.frame(drawn, view)
    return stamp_untrained(drawn) if style.untrained else drawn


def choose_line_colours(colormap: str) -> list[tuple[int, int, int]]:
    """Return the colours of the lines at ``LEVELS``."""
    places = np.array([[FIRST_COLOUR + COLOUR_RANGE * level for level in LEVELS]], np.float32)
    return [(red, green, blue) for red, green, blue in draw.apply_colormap(places, colormap)[0].tolist()]


def _trace(
    pixels: UInt8[np.ndarray, "h w 3"],
    heat: Float32[np.ndarray, "h w"],
    levels: Sequence[float],
    colours: Sequence[tuple[int, int, int]],
    side: int,
) -> None:
    """Draw lines where the heat crosses levels, in place.

    A pixel's distance from a line is how far its heat is from the level, divided by the heat's slope there, so that
    lines are smooth at any size. Of two lines the one whose level is nearer counts.

    Args:
        pixels: what is drawn on.
        heat: the heat of each pixel.
        levels: the levels, ascending.
        colours: their colours.
        side: length of the image's longer side, which the width of lines depends on.
    """
    line, outline = (max(least, share * side) for share, least in (LINE, OUTLINE))
    between = [(one + other) / 2 for one, other in pairwise(levels)]
    strip = max(1, STRIP_PIXELS // max(1, heat.shape[1]))
    for top in range(0, len(heat), strip):
        # One more row on each side, for the slope.
        first, rows = max(0, top - 1), slice(top, top + strip)
        inner = slice(top - first, top - first + len(heat[rows]))
        slopes = _measure_slopes(heat[first : top + strip + 1])[inner]
        which = np.digitize(heat[rows], between)
        away = np.abs(heat[rows] - np.asarray(levels, np.float32)[which]) / np.maximum(slopes, LEAST_SLOPE)
        dark = np.clip(line / 2 + outline + 0.5 - away, 0, 1) * np.float32(OUTLINE_OPACITY)
        lit = np.clip(line / 2 + 0.5 - away, 0, 1)[..., np.newaxis]
        under = pixels[rows] * (1 - dark[..., np.newaxis])
        pixels[rows] = np.rint(under + lit * (np.asarray(colours, np.float32)[which] - under))


def _measure_slopes(heat: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Return the length of the gradient at each pixel."""
    down, across = (np.gradient(heat, axis=axis) if heat.shape[axis] > 1 else np.zeros_like(heat) for axis in (0, 1))
    return np.asarray(np.hypot(down, across))
