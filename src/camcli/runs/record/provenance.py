"""What made the files of a run: ``run.json``, everything needed to repeat it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from camcli import __version__
from camcli.base.errors import OutputError
from camcli.images.placement import Placement
from camcli.models.adapters.templates import templates
from camcli.runs.record.folder import Folder
from camcli.runs.worker.worker import Worker

FILE = "run.json"
VERSIONS_OF = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "pillow", "opencv-python-headless")


def facts(worker: Worker) -> dict[str, Any]:
    """The job and what it was resolved to: weights by their hash, preprocessing, layers, versions."""
    network, explainer = worker.network, worker.explainer
    return {
        "camcli": __version__,
        "job": worker.job.as_dict(),
        "fingerprint": worker.fingerprint,
        "counted": worker.counted,
        "model": {
            "name": network.name,
            "weights": network.weights,
            "origin": network.origin,
            "sha256": worker.sha256,
            "classes": len(network.labels),
            "preprocessing": asdict(network.prepare),
            "notes": list(network.notes),
        },
        "methods": [
            {"name": recipe.row.name, "paper": recipe.row.paper, "options": recipe.options}
            for recipe in explainer.recipes
        ],
        **_prompts(worker),
        "layers": list(explainer.layers),
        "placement": _placement(worker),
        "explained": worker.explains,
        "notes": list(worker.notes),
        "precision": worker.job.precision,
        "device": ",".join(map(str, worker.devices)),
        "batch_size": worker.batch_size,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONS_OF},
        },
        "platform": platform.platform(),
    }


def _placement(worker: Worker) -> dict[str, Any]:
    """Of each layer where its cells lie in the model's input, and what was measured of that: x before y, in pixels."""
    found: dict[str, Any] = {}
    for name, one in worker.explainer.located.items():
        placement = one.placement or Placement.even(one.grid, worker.network.prepare.size)
        x, y, across, down = placement.numbers
        found[name] = {"cells": one.grid[::-1], "first": (x, y), "stride": (across, down)}
        measured = {"offset": one.offset[::-1], "error": one.error[::-1]}
        found[name] |= {"unknown": one.unknown} if one.unknown else measured
    return found


def _prompts(worker: Worker) -> dict[str, Any]:
    """What the pictures were compared with, if that is texts: as they were given, and in which templates."""
    if worker.prompts is None:
        return {}
    words, contrast = list(worker.prompts.words), list(worker.prompts.contrast)
    return {"prompts": {"explained": words, "contrast": contrast, "templates": list(templates(worker.job.template))}}


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Folder, content: dict[str, Any], file: str = FILE) -> None:
    """Write ``run.json``, or another such file, into an output folder.

    Raises:
        OutputError: it cannot be written, or the folder is gone.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # File names need not be valid UTF-8; JSON's own escape for what is not is the one that this handler writes.
    try:
        folder.write(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutputError(f"{folder.path / file} cannot be written: {error.strerror}") from error


def read(folder: Path, file: str = FILE) -> dict[str, Any]:
    """What the last run wrote there; empty if there is nothing."""
    try:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
