"""Every method from the shell, on a trained CNN and on untrained networks of other kinds: a map, or a reason."""

import json

import pytest
from readback import ledger
from typer.testing import CliRunner

from camcli.base.signature import read_options
from camcli.cli import app
from camcli.methods import METHODS

MODELS = [
    "bundled:efficientnet-lite0",
    "timm:test_vit",
    "timm:swin_tiny_patch4_window7_224",
    "timm:test_convnext",
    "open_clip:ViT-S-32-alt",
]
# Fewer samples, masks or steps than the papers', for methods that ask often.
QUICK = {"samples": 2, "top": 4, "steps": 3, "stride": 64, "window": 64, "iterations": 5, "designs": 4}
# Of two masks HSIC is the same in every cell.
MORE = {"hsic": {"samples": 8}}
# A forward for each channel: at a layer with few, where there is one.
EACH_CHANNEL = {"scorecam", "ss-cam", "is-cam"}
FEW_CHANNELS = {"bundled:efficientnet-lite0": "blocks.1", "timm:swin_tiny_patch4_window7_224": "layers.0"}

# What cannot be, and a word of the reason.
OF_ATTENTION = ("rollout", "gae", "attention", "legrad", "maskclip")
NO_PROMPTS = dict.fromkeys(("clip-surgery", "m2ib"), "this network has none")
REFUSED = {
    "bundled:efficientnet-lite0": dict.fromkeys((*OF_ATTENTION, "grad-eclip"), "no attention") | NO_PROMPTS,
    "timm:test_vit": NO_PROMPTS,
    "timm:test_convnext": dict.fromkeys((*OF_ATTENTION, "grad-eclip"), "no attention") | NO_PROMPTS,
    "timm:swin_tiny_patch4_window7_224": dict.fromkeys(OF_ATTENTION, "windows")
    | NO_PROMPTS
    | {"grad-eclip": "needs a score that reads one token"},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own, at building
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS.names())
def test_a_method_gives_a_map_or_a_reason(method, model, sample_images, tmp_path):
    random = [] if model.startswith("bundled:") else ["--weights", "random"]
    row = METHODS.find(method)
    known = {name for part in row.parts or (method,) for name in read_options(METHODS.load(part))}
    quick = [
        word
        for name, value in (QUICK | MORE.get(method, {})).items()
        if name in known
        for word in ("-o", f"{name}={value}")
    ]
    quick += ["--layer", FEW_CHANNELS[model]] if model in FEW_CHANNELS and method in EACH_CHANNEL else []
    quick += ["-t", "channels:top:1"] if method == "activation" else []
    asked = ["explain", "-m", model, *random, "--method", method, *quick, "--out", str(tmp_path), "--quiet"]
    run = CliRunner().invoke(app, [*asked, "--save", "overlay,array", str(sample_images / "coffee.png")])
    if run.exit_code == 0:
        for found in ledger(tmp_path):
            assert found["method"] == method
            assert found["low"] < found["high"]
    else:
        assert run.exit_code in (1, 2), run.output
        assert not isinstance(run.exception, Exception) or isinstance(run.exception, SystemExit), run.exception
        reason = run.stderr + json.dumps(ledger(tmp_path) if run.exit_code == 1 else [])
        assert "error" in reason
        assert REFUSED.get(model, {}).get(method, "") in reason
    assert (method in REFUSED.get(model, {})) <= (run.exit_code != 0)
