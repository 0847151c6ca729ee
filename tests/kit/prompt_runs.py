"""Runs of ``camcli prompts``: what they are asked, and what they wrote."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import Result

from camcli.runs.prompts.run import LINES_FILE

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TEXTS = ("a red square", "something blue", "grass")
SAY = [word for text in TEXTS for word in ("--text", text)]
Ask = Callable[..., Result]


def lines(out: str = "out") -> list[dict]:
    return [json.loads(line) for line in Path(out, LINES_FILE).read_text(encoding="utf-8").splitlines()]


def facts(out: str = "out") -> dict:
    return json.loads(Path(out, "prompts.json").read_text(encoding="utf-8"))


def arrays(path: str | Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def written(out: str = "out") -> list[str]:
    found = (path.relative_to(out).as_posix() for path in Path(out).rglob("*") if path.is_file())
    return sorted(set(found) - {".camcli.lock", "camcli.log"})
