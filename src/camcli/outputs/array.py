"""Output of the raw map."""

import io

import numpy as np

from camcli.engine.explanation import Explanation
from camcli.images.source import Picture
from camcli.outputs.style import Style


def array(picture: Picture, explanation: Explanation, style: Style) -> bytes:  # noqa: ARG001
    """Encode the map as the method gave it as a NumPy file (``.npy``): signed, float32, at the layer's size.

    That of a volume has its slices first, ``(d, h, w)``.
    """
    file = io.BytesIO()
    np.save(file, picture.view.unfold(explanation.map), allow_pickle=False)
    return file.getvalue()
