"""What makes a job the same one: everything that changes a picture's files, part by part."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from camcli import __version__, models
from camcli.base.registry import R, Row, Table
from camcli.engine.network import Network
from camcli.models import imported_files, listing
from camcli.outputs import OUTPUTS
from camcli.runs.job.job import Job
from camcli.targets import TARGETS, parsed
from camcli.targets.scores import SCORES

# Before a part that nobody can read.
DIGEST = "sha256:"
# Parts that are no versions; nor is what begins with CODE.
OF_THE_JOB = frozenset({"job", "weights", "buffers", "preprocessing", "labels", "layers", "batches of"})
CODE = "code of "
# What a network's modules come from, by the first word of where they are imported from.
DISTRIBUTIONS = {"open_clip": "open_clip_torch"}
# Their third number mends builds and faults, and comes often.
TWO_NUMBERS = ("torch", "torchvision")


def parts(job: Job, network: Network, sha256: str) -> dict[str, str]:
    """What a job and its network are, as it was loaded; to be asked before anything changes it.

    Args:
        job: what is asked.
        network: what it was resolved to.
        sha256: of its weights.
    """
    return {
        "job": digest(job.fingerprint),
        "weights": DIGEST + sha256,
        "buffers": DIGEST + network.unsaved_sha256(),
        "preprocessing": digest(repr(network.prepare)),
        "labels": digest(repr(network.labels)),
        **versions(network.module),
    }


def code(job: Job, rows: Iterable[Row]) -> dict[str, str]:
    """The user's own files, and other packages', that the job's model, wrapper, text tower and table rows run.

    Args:
        job: what is asked; everything it names is loaded.
        rows: of the methods.
    """
    found: dict[str, str] = {}
    tables = [*rows, *_named(OUTPUTS, job.save), *_named(SCORES, [job.score]), *_named(TARGETS, _targets(job))]
    tables += _named(models.SOURCES, [listing.resolve(job.model)[0]])
    modules = [row.module for row in tables if row.module]
    for start in [*_files(job), *filter(None, map(_home, modules))]:
        for name, sha256 in imported_files.imported(start).items():
            found[f"{CODE}{name}"] = DIGEST + sha256
    return found


def fingerprint(counted: Mapping[str, str]) -> str:
    """16 hex digits that change when any part does."""
    words = "\n".join(f"{name}: {value}" for name, value in sorted(counted.items()))
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def digest(text: str) -> str:
    """A text as a part that nobody can read."""
    return DIGEST + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def versions(module: torch.nn.Module) -> dict[str, str]:
    """Of camcli, PyTorch, and the libraries whose classes a network is made of."""
    found = {"camcli": __version__, "torch": torch.__version__.partition("+")[0]}
    for name in sorted({type(part).__module__.partition(".")[0] for part in module.modules()} - {"camcli", "torch"}):
        try:
            found[name] = importlib.metadata.version(DISTRIBUTIONS.get(name, name))
        except importlib.metadata.PackageNotFoundError:  # the user's own
            continue
    return {
        name: ".".join(version.split(".")[:2]) if name in TWO_NUMBERS else version for name, version in found.items()
    }


def versions_in(parts: Mapping[str, str]) -> dict[str, str]:
    """Those of the parts that are versions."""
    return {name: value for name, value in parts.items() if name not in OF_THE_JOB and not name.startswith(CODE)}


def _named(table: Table[R], names: Iterable[str]) -> list[R]:
    return [row for row in table.rows if row.name in frozenset(names)]


def _targets(job: Job) -> list[str]:
    return [parsed(word)[0] for word in job.target]


def _files(job: Job) -> Iterator[Path]:
    """The Python files that a job names, in whichever way."""
    for words in (job.model, job.wrap, job.text_tower):
        place = words.rpartition(":")[0]
        if place.endswith(".py"):
            yield Path(place)
        elif place and (words != job.model or listing.resolve(words)[0] == "local"):
            home = _home(place)
            if home:
                yield home


def _home(module: str) -> Path | None:
    """The file of a module, if it has one."""
    loaded = sys.modules.get(module)
    place = loaded.__file__ if loaded else getattr(importlib.util.find_spec(module), "origin", None)
    return Path(place) if place and place.endswith(".py") else None
