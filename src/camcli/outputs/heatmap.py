"""The heat alone."""

from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.outputs import draw, encode, warn
from camcli.outputs.style import Style, by_concept, unit


def heatmap(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """A PNG of the picture's own size with the map's colours alone; hatched where the model did not see.

    Of concepts the colour of the strongest, on black.
    """
    if explanation.concepts:
        coloured = draw.shaded(*by_concept(explanation.map, style, picture.view.onto_picture))
    else:
        coloured = draw.colours(picture.view.onto_picture(unit(explanation.map, style)), style.colormap)
    return encode.png(warn.stamp_untrained(coloured) if style.untrained else coloured)
