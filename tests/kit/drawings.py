"""An image and its explanation, to draw."""

import io

import numpy as np
from PIL import Image

from camcli.engine.explanation import Explanation
from camcli.images.source import Picture, PictureSource
from camcli.images.transform import Preprocess
from camcli.outputs import OUTPUTS
from camcli.outputs.style import Style

STYLE = Style("inferno", 0.6, "image")
UNTRAINED = Style("inferno", 0.6, "image", untrained=True)
HALF = (0.5, 0.5, 0.5)
PREPARE = Preprocess((224, 224), HALF, HALF, (256, 256))
SQUASH = Preprocess((224, 224), HALF, HALF, (224, 224), "squash")


def picture(width=300, height=200, preprocess=PREPARE):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(PictureSource("in/a.jpg", "in/a.jpg"), pixels, preprocess.view(width, height))


def explanation(map_=None, label="tabby, tabby cat", notes=()):
    if map_ is None:
        map_ = np.random.default_rng(1).standard_normal((7, 7)).astype(np.float32)
    return Explanation(map_, "gradcam", "blocks.6.0.bn3", 281, label, 9.25, 0.391, notes)


GRADIENT = np.random.default_rng(2).standard_normal((3, 224, 224)).astype(np.float32)


def drawn(name, *args):
    return np.asarray(Image.open(io.BytesIO(OUTPUTS.load(name)(*args))))
