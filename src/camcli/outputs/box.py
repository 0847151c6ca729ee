"""Output of the image with a box around the strongest region, and the numbers of that box."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.images.view import View, is_fine
from camcli.outputs import draw, encode
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.contour import LINE, OUTLINE, choose_line_colours
from camcli.outputs.style import Style, to_outline_range

# The region is where the map is above this share of its maximum (Zhou et al. 2016, arXiv:1512.04150, section 3.2).
THRESHOLD = 0.2
OUTLINE_COLOUR = (0, 0, 0)

# x and y of the upper left corner, width and height, in whole pixels of the upright image.
HeatBox = tuple[int, int, int, int]


def box(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the box of :func:`find_box` on the image, as a JPEG of the image's own size.

    Raises:
        PictureError: the map has no box.
    """
    heat = _enlarge(picture.view, explanation, style)
    x, y, width, height = _measure(heat, style, THRESHOLD)
    drawn = draw.blend(picture.pixels, heat, replace(style, alpha=0.0))
    if style.outside == "dim":
        draw.frame(drawn, picture.view)
    _draw_line(drawn[y : y + height, x : x + width], choose_line_colours(style.colormap)[-1], max(picture.view.picture))
    return encode.jpeg(stamp_untrained(drawn) if style.untrained else drawn, picture.info)


def find_box(view: View, explanation: Explanation, style: Style, threshold: float = THRESHOLD) -> HeatBox:
    """Return the smallest box around the largest region in which a map is above a share of its maximum in the image.

    The map is enlarged to the image's pixels as for the other drawings; its negative part counts as zero, and one as
    fine as the input is smoothed as for contours. The region is the set of pixels, connected by sides or corners, that
    is largest by their number. With ``normalize="range"`` the map counts from its minimum. No other scale matters.

    Args:
        view: the part of the image that the model saw, with the placement of the map's cells.
        explanation: the map.
        style: style that says whether the map counts from zero or from its minimum.
        threshold: the share, from 0 to below 1.

    Raises:
        PictureError: the map has no box: it has no positive values in the image, is above the threshold in all that the
            model saw, or is of several concepts.
    """
    return _measure(_enlarge(view, explanation, style), style, threshold)


def _enlarge(view: View, explanation: Explanation, style: Style) -> Float32[np.ndarray, "h w"]:
    if explanation.concepts:
        raise PictureError("concepts have no box: they are several maps", "--save contour draws a line around each")
    own = replace(style, normalize="range" if style.normalize == "range" else "image")
    return view.enlarge(to_outline_range(explanation.map, own, is_fine(explanation.map, view)))


def _measure(heat: Float32[np.ndarray, "h w"], style: Style, threshold: float) -> HeatBox:
    """Return the box of heat that is NaN where the model did not see."""
    seen = ~np.isnan(heat)
    top = float(heat[seen].max(initial=0))
    if top <= 0:
        raise PictureError("there is no box: no value of the map is above zero in the image")
    inside = seen & (np.nan_to_num(heat) > np.float32(threshold * top))
    if np.array_equal(inside, seen):
        hint = "" if style.normalize == "range" else "--normalize range counts from the map's minimum"
        raise PictureError(
            f"there is no box: the map is above {threshold:.0%} of its maximum in all that the model saw", hint
        )
    _, _, found, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
    largest: Sequence[int] = found[1 + found[1:, cv2.CC_STAT_AREA].argmax()].tolist()
    x, y, width, height, _ = largest
    return x, y, width, height


def _draw_line(inside: UInt8[np.ndarray, "h w 3"], colour: tuple[int, int, int], side: int) -> None:
    """Draw a line with a dark outline along the inner edge, in place.

    Args:
        inside: the pixels of the box.
        colour: colour of the line.
        side: length of the image's longer side, which the width of lines depends on.
    """
    line, dark = (max(1, round(max(least, share * side))) for share, least in (LINE, OUTLINE))
    for inset, width, own in ((0, line + 2 * dark, OUTLINE_COLOUR), (dark, line, colour)):
        height, across = inside.shape[0] - inset, inside.shape[1] - inset
        part = inside[inset:height, inset:across]
        part[:width], part[-width:], part[:, :width], part[:, -width:] = own, own, own, own
