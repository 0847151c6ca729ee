"""Output of the heatmap alone."""

import numpy as np
from jaxtyping import UInt8

from camcli.engine.explanation import Explanation
from camcli.images.file_info import FileInfo
from camcli.images.source import Picture
from camcli.images.view import is_fine
from camcli.outputs import draw, encode
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.style import Style, draw_concepts, to_unit_range


def heatmap(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the map in colours as a PNG of the image's own size; see :func:`draw_heatmap`."""
    # The colours are the colour map's own, so the image's profile is not theirs.
    return encode.png(draw_heatmap(picture, explanation, style), FileInfo(dpi=picture.info.dpi))


def draw_heatmap(picture: Picture, explanation: Explanation, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the map in colours; grey where the model did not see.

    Of concepts each place has the colour of the strongest, on black.
    """
    view = picture.view
    if explanation.concepts:
        coloured = draw.shade(*draw_concepts(explanation, style, view.enlarge), style.outside)
    else:
        heat = view.enlarge(to_unit_range(explanation.map, style, is_fine(explanation.map, view)))
        coloured = draw.apply_colormap(heat, style.colormap, style.outside)
    return stamp_untrained(coloured) if style.untrained else coloured
