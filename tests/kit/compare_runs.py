"""Runs of ``camcli compare`` on the small network of colour: images whose maps can be worked out; what is written."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from commands import do
from PIL import Image
from typer.testing import Result

STEPS = np.arange(16) * 16


def write_gradients(name: str = "a.png") -> Path:
    """Write an image of 16 x 16 pixels: red grows to the right, green downwards, blue to the left."""
    right, down = np.broadcast_to(STEPS, (16, 16)), np.broadcast_to(STEPS[:, np.newaxis], (16, 16))
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([right, down, right[:, ::-1]], -1).astype(np.uint8)).save(path)
    return path


def compare(model: str, *words: str, out: str = "out", stdin: bytes | None = None) -> Result:
    return do("compare", "--model", model, "--device", "cpu", "--out", out, *words, stdin=stdin)


def table(result: Result) -> list[list[str]]:
    """Return the cells of the table that a run printed, below its headings."""
    return [re.split(" {2,}", line.strip()) for line in result.stdout.splitlines()[1:]]


def lines(out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "compare.jsonl").read_text(encoding="utf-8").splitlines()]


def facts(out: str = "out") -> dict[str, Any]:
    return json.loads(Path(out, "compare.json").read_text(encoding="utf-8"))


def written(out: str = "out") -> list[str]:
    return sorted({path.name for path in Path(out).iterdir()} - {".camcli.lock", "camcli.log"})
