"""Whole jobs on a pretended GPU: nothing mixes devices between an image's file and its map."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_gpu import Pretending
from readback import files
from shared import Go, Paint


@pytest.mark.parametrize(
    "options",
    [
        {"layers": ("stem", "body"), "target": ("top:2",), "fuse": "mean"},
        {"target": ("channels:top:2",)},
        {"method": "gradcam,layercam,scorecam,saliency", "batch_size": 2, "recompute": True},
        {"method": "dff", "options": ("concepts=2", "iterations=5")},
        {"precision": "bf16", "score": "margin", "counterfactual": True},
        {"precision": "tf32", "group": "2", "scales": "1,1.5", "augment": ("flip",)},
    ],
    ids="-".join,
)
def test_the_maps_of_a_job_are_the_cpus(go: Go, paint: Paint, options: dict, monkeypatch) -> None:
    for number in range(4):
        paint(f"in/{number}.png", (250, 10 * number, 90), box=(number, 4, number + 16, 20), ground=(40, 10, 90))
    given = {"save": ("array",), "layers": ("stem",), **options}
    go("in", **given, out="one")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with Pretending():
        outcomes = go("in", **given, out="two", device="auto")
    assert not [one.error for ones in outcomes for one in ones if one.error]
    assert files("one") == files("two") != []
    for name in files("one"):
        if name.endswith(".npy"):
            np.testing.assert_allclose(np.load(Path("one", name)), np.load(Path("two", name)), rtol=1e-4, atol=1e-6)
