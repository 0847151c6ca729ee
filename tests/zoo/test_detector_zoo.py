"""The zoo of detectors: every level that boxes are explained at has its place, as docs/architectures.md says."""

import pytest
from detector_zoo import models

from zoo import holds

EVERYDAY = ("hf:detr", "hf:yolos")


@pytest.mark.filterwarnings("default")  # the libraries' own, at building
@pytest.mark.parametrize(
    "model", [one if one in EVERYDAY else pytest.param(one, marks=pytest.mark.slow) for one in models()]
)
def test_every_level_of_a_detector_has_its_place(model):
    if model.startswith("hf:"):
        pytest.importorskip("transformers", reason="transformers is an extra (hf)")
    holds(f"detectors:{model}")
