"""Output of the map as grey values, for other programs."""

import numpy as np

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.file_info import FileInfo
from camcli.images.source import Picture
from camcli.images.view import is_fine
from camcli.outputs import encode
from camcli.outputs.style import Style, to_unit_range


def grey(picture: Picture, explanation: Explanation, style: Style) -> bytes:
    """Write the map as a PNG of one channel of the image's own size, from 0 (none, or not seen) to 255 (full strength).

    Values are those of the heatmap before they are coloured, rounded. Nothing is written over them; for random weights
    the file's name says so.

    Raises:
        PictureError: the map is of several concepts.
    """
    if explanation.concepts:
        raise PictureError("concepts have no grey values: they are several maps", "--save array has them all")
    view = picture.view
    heat = view.enlarge(to_unit_range(explanation.map, style, is_fine(explanation.map, view)))
    return encode.png(np.rint(np.nan_to_num(heat) * 255).astype(np.uint8), FileInfo(dpi=picture.info.dpi))
