"""Output of the heatmap over the image."""

import numpy as np
from jaxtyping import UInt8

from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.images.view import is_fine
from camcli.outputs import draw, encode
from camcli.outputs.banner import stamp_untrained
from camcli.outputs.explained_box import draw_explained_box
from camcli.outputs.style import Style, draw_concepts, to_unit_range


def overlay(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the map over the image as a JPEG of the image's own size."""
    return encode.jpeg(draw_overlay(picture, explanation, style), picture.info)


def overlay_png(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Draw the overlay as a lossless PNG, six times as large and as slow to write as the JPEG."""
    return encode.png(draw_overlay(picture, explanation, style), picture.info)


def draw_overlay(picture: Picture, explanation: Explanation, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the map over the image; see :func:`camcli.outputs.draw.blend`.

    A map as fine as the input is smoothed first; see :func:`camcli.outputs.style.to_unit_range`. Of concepts each place
    has the colour of the strongest. A detector's box is drawn too; see
    :func:`camcli.outputs.explained_box.draw_explained_box`.
    """
    view = picture.view
    if explanation.concepts:
        heat, colours = draw_concepts(explanation, style, view.enlarge)
        blended = draw.blend(picture.pixels, heat, style, colours)
    else:
        fine = is_fine(explanation.map, view)
        heat = view.enlarge(to_unit_range(explanation.map, style, fine, smooth=True))
        blended = draw.blend(picture.pixels, heat, style, fine=fine)
    if style.outside == "dim":
        draw.frame(blended, view)
    blended = draw_explained_box(blended, explanation, view.picture)
    return stamp_untrained(blended) if style.untrained else blended
