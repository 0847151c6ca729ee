"""The heat over the picture."""

import numpy as np
from jaxtyping import UInt8

from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.outputs import draw, encode, warn
from camcli.outputs.style import Style, by_concept, unit


def overlay(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A JPEG of the picture's own size with the map drawn over it."""
    return encode.jpeg(drawn(picture, explanation, style))


def overlay_png(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """The same as PNG: every pixel as it was drawn, in a file six times as large that takes six times as long."""
    return encode.png(drawn(picture, explanation, style))


def drawn(picture: Picture, explanation: Explanation, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with the map over it; ``render.blend`` says how.

    A gradient at the input is smoothed for it; ``render.unit`` says how. Of concepts each place has the colour of the
    strongest.
    """
    if explanation.concepts:
        heat, colours = by_concept(explanation.map, style, picture.view.onto_picture)
        blended = draw.blend(picture.pixels, heat, style, colours)
    else:
        heat = picture.view.onto_picture(unit(explanation.map, style, spread=True))
        blended = draw.blend(picture.pixels, heat, style)
    return warn.stamp_untrained(blended) if style.untrained else blended
