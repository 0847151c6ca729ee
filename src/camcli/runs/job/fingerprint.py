"""Fingerprint of a job: everything that changes an image's files, part by part."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

import torch

from camcli import __version__, models
from camcli.base.registry import R, Registry, Row
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.models import imported_files, listing
from camcli.models.sources.hf_files import list_python_files
from camcli.runs.job.content import find_formats, hash_drawing
from camcli.runs.job.job import Job
from camcli.targets import TARGETS, parse_target
from camcli.targets.labels import Labels
from camcli.targets.scores import SCORES

# Prefix of parts that are hashes.
DIGEST_PREFIX = "sha256:"
# Parts that are not versions; nor are those that begin with CODE_PREFIX.
JOB_PARTS = frozenset({"job", "weights", "buffers", "preprocessing", "labels", "layers", "batches of"})
CODE_PREFIX = "code of "
# Distributions of a network's modules by the package that they are imported from, where the two names differ.
DISTRIBUTIONS = {"open_clip": "open_clip_torch"}
# Packages of which only two version numbers count: the third changes often, for builds and bug fixes.
TWO_NUMBER_VERSIONS = ("torch", "torchvision")


def collect_parts(job: Job, network: Network, sha256: str) -> dict[str, str]:
    """Collect the parts of a job and its network as loaded; to be called before anything changes the network.

    Args:
        job: the job.
        network: its network.
        sha256: of the network's weights.
    """
    return {
        "job": hash_part(job.fingerprint),
        "weights": DIGEST_PREFIX + sha256,
        "buffers": DIGEST_PREFIX + network.unsaved_sha256(),
        "preprocessing": hash_part(_format_preprocess(network.preprocess)),
        "labels": hash_part(_format_labels(network.labels)),
        **find_versions(network.module),
    }


def _format_preprocess(preprocess: Preprocess) -> str:
    """Write a preprocessing as the first release did where it could, so that a folder begun by that is resumed."""
    written = repr(preprocess).replace(", floor=False", "").replace(", blank=False", "").replace(", corner=False", "")
    return re.sub(r"^Preprocess\(", "Prepare(", written).replace(", arithmetic='pillow', bgr=False", "")


def collect_code(job: Job, rows: Iterable[Row]) -> dict[str, str]:
    """Collect hashes of the user's and other packages' files that the job's model, wrapper, text tower and rows run.

    Args:
        job: the job; everything that it names is loaded.
        rows: registry rows of the methods.
    """
    found: dict[str, str] = {}
    all_rows = [
        *rows,
        *_select_rows(SCORES, [job.score]),
        *_select_rows(TARGETS, _find_target_rows(job)),
    ]
    all_rows += _select_rows(models.SOURCES, [listing.resolve(job.model)[0]])
    modules = [row.module for row in all_rows if row.module]
    for start in [*_find_python_files(job), *filter(None, map(_find_module_file, modules))]:
        for name, sha256 in imported_files.hash_imported_files(start).items():
            found[f"{CODE_PREFIX}{name}"] = DIGEST_PREFIX + sha256
    return found


def hash_looks(job: Job) -> dict[str, str]:
    """Return, for each format that a job saves, digits for all that its file's looks depend on besides the map.

    They are empty for arrays.
    """
    default = Job()
    looks = {"array": ""}
    for name in job.save:
        own = job if name.startswith("panel") else replace(job, panel_size=default.panel_size)
        looks.setdefault(name, hash_drawing(own, default))
    for row in find_formats(job.save):
        home = _find_module_file(row.module) if row.module else None
        if home:
            parts = {"drawing": looks[row.name], **imported_files.hash_imported_files(home)}
            looks[row.name] = compute_fingerprint(parts)
    return {name: looks[name] for name in job.save}


def compute_fingerprint(parts: Mapping[str, str]) -> str:
    """Return 16 hex digits that change when any part does."""
    words = "\n".join(f"{name}: {value}" for name, value in sorted(parts.items()))
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def hash_part(text: str) -> str:
    """Return the hash of a text, as a part."""
    return DIGEST_PREFIX + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def find_versions(module: torch.nn.Module) -> dict[str, str]:
    """Return the versions of camcli, PyTorch, and the libraries whose classes a network is made of."""
    found = {"camcli": __version__, "torch": torch.__version__.partition("+")[0]}
    for name in sorted({type(part).__module__.partition(".")[0] for part in module.modules()} - {"camcli", "torch"}):
        try:
            found[name] = importlib.metadata.version(DISTRIBUTIONS.get(name, name))
        except importlib.metadata.PackageNotFoundError:  # the user's own code
            continue
    return {
        name: ".".join(version.split(".")[:2]) if name in TWO_NUMBER_VERSIONS else version
        for name, version in found.items()
    }


def _format_labels(labels: Labels) -> str:
    """Format all fields of the labels, as their repr did when the first folders were begun."""
    return f"Labels({', '.join(f'{one.name}={getattr(labels, one.name)!r}' for one in fields(labels))})"


def select_versions(parts: Mapping[str, str]) -> dict[str, str]:
    """Return those of the parts that are versions."""
    return {name: value for name, value in parts.items() if name not in JOB_PARTS and not name.startswith(CODE_PREFIX)}


def _select_rows(table: Registry[R], names: Iterable[str]) -> list[R]:
    return [row for row in table.rows if row.name in frozenset(names)]


def _find_target_rows(job: Job) -> list[str]:
    return [parse_target(word)[0] for word in job.target]


def _find_python_files(job: Job) -> Iterator[Path]:
    """Yield the Python files that a job names, as paths or as modules."""
    if job.trust_code and job.model.startswith("hf:"):
        yield from list_python_files(job.model.removeprefix("hf:"))
    for words in (job.model, job.wrap, job.text_tower):
        place = listing.find_python_file(words)[0] or words.rpartition(":")[0]
        if place.endswith(".py"):
            yield Path(place)
        elif place and (words != job.model or listing.resolve(words)[0] == "local"):
            home = _find_module_file(place)
            if home:
                yield home


def _find_module_file(module: str) -> Path | None:
    """Return the Python file of a module, if it has one."""
    loaded = sys.modules.get(module)
    place = loaded.__file__ if loaded else getattr(importlib.util.find_spec(module), "origin", None)
    return Path(place) if place and place.endswith(".py") else None
