"""Drawing of signed maps in diverging colours: blue where they are below zero, red above."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.images.view import is_fine
from camcli.outputs import draw
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.style import Style, peak_value


def sum_colours(map: Float32[np.ndarray, "*d h w"]) -> Float32[np.ndarray, "h w"]:
    """Return a signed map, that of an input summed over its colours.

    Raises:
        PictureError: the map has values that are not finite.
    """
    if not np.isfinite(map).all():
        raise PictureError("the map has values that are not finite")
    return map if map.ndim == 2 else np.asarray(map.sum(0, dtype=np.float32))


def signed_peak(map: Float32[np.ndarray, "*d h w"], fine: bool = False) -> float:
    """Return the magnitude that is drawn at full strength; see :func:`camcli.outputs.style.peak_value`."""
    return peak_value(np.abs(sum_colours(map)), fine)


def draw_signed(picture: Picture, explanation: Explanation, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a signed map over the image in grey, in diverging colours from ``-style.scale`` to ``style.scale``.

    The colours' opacity is that of an overlay, by the map's magnitude.
    """
    view, map = picture.view, sum_colours(explanation.map)
    scale = np.float32(style.scale or 1.0)
    shares = view.enlarge(np.clip(map / scale, -1, 1))
    colours = draw.apply_diverging(np.nan_to_num(shares))
    blended = draw.blend(picture.pixels, np.abs(shares), style, colours, fine=is_fine(map, view))
    if style.outside == "dim":
        draw.frame(blended, view)
    return stamp_untrained(blended) if style.untrained else blended
