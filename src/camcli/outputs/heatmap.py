"""The heat alone."""

from camcli import render
from camcli.job import Explanation
from camcli.pictures import Picture
from camcli.render import Style


def heatmap(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A PNG of the picture's own size with the map's colours alone; hatched where the model did not see.

    Of concepts the colour of the strongest, on black.
    """
    if explanation.concepts:
        coloured = render.shaded(*render.by_concept(explanation.map, style, picture.view.onto_picture))
    else:
        coloured = render.colours(picture.view.onto_picture(render.unit(explanation.map, style)), style.colormap)
    return render.png(render.stamp_untrained(coloured) if style.untrained else coloured)
