"""A tiny CLIP, and ``camcli prompts`` on it."""

import json
import logging

import open_clip
import pytest
import torch
from prompt_runs import TOWERS, Ask
from shared import BLUE, GREEN, RED, Paint
from typer.testing import CliRunner, Result

from camcli.cli import app


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP of a few thousand weights, but for its vocabulary, whose maps have 4 x 4 cells."""
    folder = tmp_path_factory.mktemp("clip")
    config = {"model_cfg": TOWERS, "preprocess_cfg": {"resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    logging.disable(logging.WARNING)  # that the weights are random
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    logging.disable(logging.NOTSET)
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    return f"open_clip:local-dir:{folder}"


@pytest.fixture
def three(paint: Paint) -> None:
    """Three images below ``in``."""
    paint("in/a.png", RED, box=(4, 4, 20, 20), ground=BLUE)
    paint("in/b.png", GREEN, box=(10, 16, 30, 30), ground=RED, size=(48, 32))
    paint("in/c.png", BLUE, box=(0, 0, 9, 32), ground=GREEN)


@pytest.fixture
def ask(clip: str) -> Ask:
    """``camcli prompts`` on the tiny CLIP."""

    def ask(*words: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, ["prompts", "-m", clip, "--out", "out", "--device", "cpu", *words], input=stdin)

    return ask
