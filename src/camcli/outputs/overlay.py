"""The heat over the picture."""

import numpy as np
from jaxtyping import UInt8

from camcli import render
from camcli.job import Explanation
from camcli.pictures import Picture
from camcli.render import Style


def overlay(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A JPEG of the picture's own size with the map drawn over it."""
    return render.jpeg(drawn(picture, explanation, style))


def overlay_png(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """The same as PNG: every pixel as it was drawn, in a file six times as large that takes six times as long."""
    return render.png(drawn(picture, explanation, style))


def drawn(picture: Picture, explanation: Explanation, style: Style) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with the map over it; ``render.blend`` says how.

    A gradient at the input is smoothed for it; ``render.unit`` says how. Of concepts each place has the colour of the
    strongest.
    """
    if explanation.concepts:
        heat, colours = render.by_concept(explanation.map, style, picture.view.onto_picture)
        blended = render.blend(picture.pixels, heat, style, colours)
    else:
        heat = picture.view.onto_picture(render.unit(explanation.map, style, spread=True))
        blended = render.blend(picture.pixels, heat, style)
    return render.stamp_untrained(blended) if style.untrained else blended
