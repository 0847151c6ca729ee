"""Provenance of a run's files: ``run.json``, with everything needed to repeat the run."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli import __version__
from camcli.base.errors import NothingFoundError, OutputError
from camcli.base.versions import collect_versions
from camcli.images import describe_range
from camcli.images.address import show_path, to_url
from camcli.models.adapters.templates import expand_templates
from camcli.runs.record.folder import Folder
from camcli.runs.store.store import Store, parse_object

if TYPE_CHECKING:
    from camcli.runs.worker.worker import Worker

FILE = "run.json"
# Key, in a run's record, of the jobs whose results count as its own: their versions by fingerprint.
ACCEPTED_KEY = "accepted"


def collect_facts(worker: Worker) -> dict[str, Any]:
    """Collect the job and its resolution: the weights' hash, preprocessing, layers, versions."""
    network, explainer = worker.network, worker.explainer
    return {
        "camcli": __version__,
        "job": worker.job.as_dict(),
        "fingerprint": worker.fingerprint,
        "counted": worker.fingerprint_parts,
        "model": {
            "name": network.name,
            "weights": network.weights,
            "origin": network.origin,
            "sha256": worker.sha256,
            "classes": len(network.labels),
            "preprocessing": asdict(network.preprocess),
            "notes": list(network.notes),
        },
        "black_and_white": describe_range(worker.job.range),
        "bands": asdict(worker.bands) if worker.bands else None,
        "methods": [
            {"name": method.row.name, "paper": method.row.paper, "options": method.options}
            for method in explainer.bound_methods
        ],
        **_describe_prompts(worker),
        "layers": list(explainer.layers),
        "placement": _describe_placement(worker),
        "explained": worker.score_description,
        "notes": list(worker.notes),
        "precision": worker.job.precision,
        "linear": asdict(worker.linear),
        "device": ",".join(map(str, worker.devices)),
        "batch_size": worker.batch_size,
        "versions": collect_versions(),
        "platform": platform.platform(),
    }


def _describe_placement(worker: Worker) -> dict[str, Any]:
    """Describe where each layer's cells lie in the model's input, as measured: x before y, in pixels."""
    from camcli.images.placement import Placement  # brings torch, which readers of a record do without

    found: dict[str, Any] = {}
    for name, one in worker.explainer.locations.items():
        placement = one.placement or Placement.even(one.grid, worker.network.preprocess.size)
        x, y, across, down = placement.numbers
        found[name] = {"cells": one.grid[::-1], "first": (x, y), "stride": (across, down)}
        measured = {"offset": one.offset[::-1], "error": one.error[::-1]}
        found[name] |= {"unknown": one.unknown_reason} if one.unknown_reason else measured
    return found


def _describe_prompts(worker: Worker) -> dict[str, Any]:
    """Describe the prompts, if any, as given, and the templates that they were put in."""
    if worker.prompts is None:
        return {}
    words, contrast = list(worker.prompts.explained), list(worker.prompts.contrast)
    return {
        "prompts": {"explained": words, "contrast": contrast, "templates": list(expand_templates(worker.job.template))}
    }


def format_now() -> str:
    """Format the current time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Folder, content: dict[str, Any], file: str = FILE) -> None:
    """Write ``run.json``, or a similar file, into an output folder.

    Raises:
        OutputError: it cannot be written, or the folder is gone.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    # File names need not be valid UTF-8; this handler writes what is not as JSON's own escapes.
    try:
        folder.write_record(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutputError(f"{show_path(folder.out / file)} cannot be written: {error.strerror}") from error


def read(folder: Path, file: str = FILE) -> dict[str, Any]:
    """Read what the last run wrote; empty if there is nothing."""
    if url := to_url(folder):
        return parse_object(Store(url).get(file))
    try:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_record(path: Path, file: str = FILE, command: str = "camcli explain") -> dict[str, Any]:
    """Read what the last run of a command recorded in an output folder.

    Raises:
        NothingFoundError: none wrote there.
    """
    record = read(path, file)
    if "fingerprint" not in record:
        raise NothingFoundError(
            f"{show_path(path)!r} is not the output folder of {command}", "name the folder that its --out names"
        )
    return record


def list_jobs(record: Mapping[str, Any]) -> list[str]:
    """Return the fingerprints of a recorded job, and of those whose results count as its own."""
    return [str(record["fingerprint"]), *map(str, record.get(ACCEPTED_KEY) or ())]
