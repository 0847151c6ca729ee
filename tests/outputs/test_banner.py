"""The banner of untrained weights: there at any size, and legible."""

import numpy as np
import pytest

from camcli.outputs import banner
from camcli.outputs.banner import stamp_untrained


@pytest.mark.parametrize(
    "shape", [(2000, 3000), (300, 450), (64, 64), (224, 40), (32, 32), (10, 500), (500, 8), (1, 1)]
)
def test_the_banner_is_there_at_any_size(shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    stamped = stamp_untrained(pixels)
    assert stamped.shape == pixels.shape
    striped = (stamped == banner.BANNER_COLOUR).all(2)
    assert striped[-1].any()
    if shape[0] > 60:
        assert not striped[: shape[0] // 2].any()


@pytest.mark.parametrize(("width", "says"), [(1000, "means nothing"), (150, "random weights"), (50, "random")])
def test_the_banner_says_as_much_as_fits(width, says):
    text, size = banner.fit_text(float(width), 40)
    assert says in text
    assert size >= banner.MIN_TEXT_SIZE


def test_the_banners_text_is_legible():
    stamped = stamp_untrained(np.full((300, 450, 3), 77, np.uint8))
    dark = (stamped < 40).all(2)
    rows = np.flatnonzero(dark.any(1))
    columns = np.flatnonzero(dark.any(0))
    assert rows.max() - rows.min() >= 8
    assert columns.max() - columns.min() > 200
    assert columns.min() > 5
    assert columns.max() < 445
