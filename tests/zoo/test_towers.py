"""Every kind of open_clip's image towers, by every method that is made for CLIP: a map, or a reason."""

import numpy as np
import pytest
import torch
from networks import pictures, untouched
from typer.testing import CliRunner

from camcli import Explainer, RequestError
from camcli.cli import app
from camcli.models import load
from zoo import OPEN_CLIP

METHODS = ["gradcam", "gscorecam", "gae", "rollout", "legrad", "grad-eclip", "maskclip", "clip-surgery", "m2ib"]
OF_ATTENTION = METHODS[2:]
# The score reads the mean of all patches.
MEAN = {"grad-eclip": "needs a score that reads one token after the last attention"}
# What a tower refuses, and a word of the reason.
REFUSED = {
    "ConvNeXt of timm": dict.fromkeys(OF_ATTENTION, "no attention was found in it"),
    "Swin of timm": dict.fromkeys(OF_ATTENTION, "it has attention in windows") | MEAN,
    "MobileCLIP (FastViT of timm)": MEAN
    | dict.fromkeys(["maskclip", "clip-surgery"], "return maps, not sequences, so single tokens cannot be scored")
    | {"m2ib": "take maps, not sequences"},
    "ViT of timm, mean of patches": MEAN,
    "ViTamin": MEAN,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own, at building
@pytest.mark.parametrize("kind", OPEN_CLIP)
def test_a_tower_gives_a_map_or_a_reason(kind):
    network = load.load(f"open_clip:{OPEN_CLIP[kind]}", weights="random")
    images = pictures(2, network.preprocess.size, dtype=torch.float32)

    def embedded():
        with torch.no_grad():
            found = network.module.visual(images)
        return found[0] if isinstance(found, tuple) else found

    before = embedded()
    for method in METHODS:
        explain = Explainer(network, method=method, options={"top": 4} if method == "gscorecam" else {})
        with untouched(network.module):
            if reason := REFUSED.get(kind, {}).get(method):
                with pytest.raises(RequestError, match=reason):
                    explain(images, 1)
                continue
            for [one] in explain(images, 1):
                assert one.map.shape == explain.grids[one.layer]
                assert np.isfinite(one.map).all()
                assert np.ptp(one.map) > 0
    assert torch.equal(embedded(), before)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("model", ["RN50", "ViT-S-32-alt", "coca_ViT-B-32"])
def test_prompts_from_the_shell(model, sample_images, tmp_path):
    asked = ["explain", "-m", f"open_clip:{model}", "--weights", "random", "--out", str(tmp_path), "--quiet"]
    asked += ["--method", ",".join(OF_ATTENTION), "--text", "a cat", "--text", "a cup of coffee", "--save", "array"]
    run = CliRunner().invoke(app, [*asked, str(sample_images / "coffee.png")])
    assert run.exit_code == 0, run.output
    assert {path.suffixes[-2] for path in tmp_path.rglob("*.npy")}
