"""The heat over the picture."""

from camcli import render
from camcli.job import Explanation
from camcli.pictures import Picture
from camcli.render import Style


def overlay(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A PNG of the picture's own size with the map drawn over it; ``render.blend`` says how.

    A gradient at the input is smoothed for it; ``render.unit`` says how. Of concepts each place has the colour of the
    strongest.
    """
    if explanation.concepts:
        heat, colours = render.by_concept(explanation.map, style, picture.view.onto_picture)
        blended = render.blend(picture.pixels, heat, style, colours)
    else:
        heat = picture.view.onto_picture(render.unit(explanation.map, style, spread=True))
        blended = render.blend(picture.pixels, heat, style)
    return render.png(render.stamp_untrained(blended) if style.untrained else blended)
