"""Half precision changes the network's arithmetic, and the maps of gradients at a layer hardly."""

from pathlib import Path

import numpy as np
import pytest

import camcli
from camcli.methods import METHODS

AT_A_LAYER = [row.name for row in METHODS.builtin_rows if row.kind == "gradient"]


@pytest.mark.slow
def test_maps_in_bf16_are_those_in_fp32_for_every_gradient_method(sample_images):
    maps = {}
    for precision in ("fp32", "bf16"):
        # The noise of Smooth Grad-CAM++ is the same in both.
        for one in camcli.explain(sample_images, method=AT_A_LAYER, precision=precision):
            maps[precision, one.method, Path(one.source).name] = one
    assert len(maps) == 2 * 7 * len(AT_A_LAYER)
    for (precision, method, picture), one in maps.items():
        if precision == "bf16":
            exact = maps["fp32", method, picture]
            assert one.index == exact.index
            alike = np.corrcoef(one.map.ravel(), exact.map.ravel())[0, 1]
            assert alike >= 0.99, f"{method} on {picture}: {alike:.4f}"
