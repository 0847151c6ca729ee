"""Options of a job that count in its fingerprint, with the content of the files that they name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli.base.errors import RequestError
from camcli.engine import factors
from camcli.images import parse_value_range
from camcli.models import RANDOM_WEIGHTS, TEXT_TOWER_USAGE, WRAPPER_USAGE, listing, parse_size
from camcli.outputs import OUTPUTS, FormatRow
from camcli.targets import AUTO, SIMILAR_PREFIX

if TYPE_CHECKING:
    from camcli.runs.job.job import Job

# Options for how a run works, on which images, or which files of a map are written: they change neither maps nor the
# content of a file. The seed does, through the weights, whose hash counts in the worker's fingerprint.
NOT_IN_FINGERPRINT = frozenset(
    {
        *("inputs", "null_separated", "out", "root", "overwrite", "drop_others", "accept_versions", "durable", "pages"),
        *("every", "carry"),
        *("limit", "shard"),
        *("batch_size", "recompute", "workers", "timeout", "device", "compile", "linear", "seed", "save"),
    }
)
# Options for how maps are drawn, whose digest each drawn file has in its line: they make no other job.
DRAWING_OPTIONS = ("colormap", "alpha", "outside", "normalize", "panel_size", "rgb")
# Number of the way maps are drawn: raised when the same options give other pixels.
DRAWING_VERSION = 3
# Options that name files, whose content counts.
FILE_OPTIONS = ("weights", "labels", "texts", "targets", "true_boxes", "region", "extras")


def hash_options(job: Job, default: Job) -> str:
    """Return 16 hex digits that stand for the options in which a job differs from the default.

    Raises:
        RequestError: a file that the job names cannot be read.
    """
    default_options = collect_options(default)
    options = {
        name: value
        for name, value in collect_options(job).items()
        if name not in default_options or value != default_options[name]
    }
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def hash_drawing(job: Job, default: Job) -> str:
    """Return 12 hex digits that stand for how a job draws maps."""
    unlike = {name: getattr(job, name) for name in DRAWING_OPTIONS if getattr(job, name) != getattr(default, name)}
    return hashlib.sha256(json.dumps([DRAWING_VERSION, unlike], sort_keys=True).encode()).hexdigest()[:12]


def collect_options(job: Job) -> dict[str, Any]:
    """Return the options that count, by name, with hashes of the files that they name."""
    left_out = {*NOT_IN_FINGERPRINT, *DRAWING_OPTIONS}
    options = {name: value for name, value in asdict(job).items() if name not in left_out}
    for name in FILE_OPTIONS:
        if options[name] and options[name] != RANDOM_WEIGHTS and not _is_rectangle(name, options[name]):
            options[name] = _hash_content(options[name], name)
    if job.texts:  # its suffix says whether it lists prompts, or images with their own
        options["texts"] = [options["texts"], Path(job.texts).suffix.lower()]
    for word in (*job.target, *job.versus):
        if word.startswith(SIMILAR_PREFIX):
            options[word] = _hash_content(word.removeprefix(SIMILAR_PREFIX), "target")
    options |= _resolve_defaults(job)
    if job.decode == "reduced" and job.normalize != "run" and any(row.pixels for row in find_formats(job.save)):
        options["decode"] = "reduced, except where a JPEG's own pixels are shown"
    options["size"] = parse_size(job.size)
    options["range"] = parse_value_range(job.range) or job.range
    options["bands"] = job.bands.replace(" ", "")
    options["scales"] = sorted(set(factors(job.scales)))
    options["augment"] = sorted(set(job.augment))
    source, function = listing.find_python_file(job.model)
    if source and function:
        options["model"] = [_hash_content(source, "model"), function]
    if file := listing.find_network_file(job.model):
        options["model"] = _hash_content(file, "model")
    options["preprocess"] = " ".join(sorted(job.preprocess.split()))
    source, _, function = job.wrap.rpartition(":")
    if job.wrap:
        options["wrap"] = [_hash_content(_find_python_file(source, WRAPPER_USAGE), "wrap"), function]
    source, _, function = job.text_tower.rpartition(":")
    if job.text_tower:
        options["text_tower"] = [_hash_content(_find_python_file(source, TEXT_TOWER_USAGE), "text_tower"), function]
    return options


def find_formats(names: Sequence[str]) -> list[FormatRow]:
    """Return the rows of output formats; other commands save files that are none."""
    return [row for row in OUTPUTS.rows if row.name in names]


def _resolve_defaults(job: Job) -> dict[str, Any]:
    """Return the target and score that ``auto`` stands for, where the job alone decides."""
    resolved: dict[str, Any] = {}
    if job.target == (AUTO,) and not job.prompted:
        resolved["target"] = ("predicted",)
    if job.score == AUTO and not (job.versus and job.prompted):
        resolved["score"] = "margin" if job.versus else "logit"
    return resolved


def _find_python_file(place: str, usage: str) -> str:
    """Return the file that ``path/to/file.py`` or ``package.module`` stands for.

    Raises:
        RequestError: there is no such module, or it is not in a file.
    """
    if place.endswith(".py"):
        return place
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError) as error:
        raise RequestError(f"there is no module {place!r}: {error}", usage) from error
    if spec is None or spec.origin is None or not spec.has_location:
        raise RequestError(f"there is no module {place!r}" + (" in a file" if spec else ""), usage)
    return spec.origin


def _is_rectangle(name: str, value: str) -> bool:
    return name == "region" and value.count(",") == 3 and not Path(value).is_file()


def _hash_content(path: str, kind: str) -> str:
    try:
        if kind == "true_boxes" and Path(path).is_dir():
            files = sorted(one for one in Path(path).rglob("*") if one.suffix in (".xml", ".txt"))
            parts = [(str(one.relative_to(path)), _hash_content(str(one), kind)) for one in files]
            return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(
            f"the {kind.removeprefix('true_')} file {path!r} cannot be read: {error.strerror}"
        ) from error
