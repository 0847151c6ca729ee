"""The heat alone."""

from camcli import render
from camcli.job import Explanation
from camcli.pictures import Picture
from camcli.render import Style


def heatmap(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A PNG of the picture's own size with the map's colours alone; hatched where the model did not see."""
    heat = picture.view.onto_picture(render.unit(explanation.map, style))
    coloured = render.colours(heat, style.colormap)
    return render.png(render.stamp_untrained(coloured) if style.untrained else coloured)
