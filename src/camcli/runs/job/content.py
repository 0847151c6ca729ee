"""What counts of a job in its fingerprint: its options, and the content of the files that they name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli.base.errors import RequestError
from camcli.engine import factors
from camcli.images import value_range
from camcli.models import RANDOM_WEIGHTS, TOWERS, WRAPPERS, input_size
from camcli.targets import AUTO, LIKE

if TYPE_CHECKING:
    from camcli.runs.job.job import Job

# How a run goes about its work, or what it works on: neither changes what one picture's files hold. The seed does, by
# way of the weights, whose hash counts in the worker's fingerprint.
NOT_IN_FINGERPRINT = frozenset(
    {
        *("inputs", "null_separated", "out", "root", "overwrite", "drop_others", "accept_versions", "durable", "pages"),
        *("batch_size", "recompute", "workers", "timeout", "device", "compile", "seed"),
    }
)
# Files whose content is part of what is asked.
FILES = ("weights", "labels", "texts", "targets", "region", "extras")


def hash_options(job: Job, default: Job) -> str:
    """16 hex digits of what a job asks beside the default.

    Raises:
        RequestError: a file that the job names cannot be read.
    """
    default_options = collect_options(default)
    asked = {
        name: value
        for name, value in collect_options(job).items()
        if name not in default_options or value != default_options[name]
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def collect_options(job: Job) -> dict[str, Any]:
    """What counts of what is asked, by its name."""
    asked = {name: value for name, value in asdict(job).items() if name not in NOT_IN_FINGERPRINT}
    for name in FILES:
        if asked[name] and asked[name] != RANDOM_WEIGHTS and not _is_rectangle(name, asked[name]):
            asked[name] = _hash_content(asked[name], name)
    if job.texts:  # its type says whether it lists prompts or pictures with theirs
        asked["texts"] = [asked["texts"], Path(job.texts).suffix.lower()]
    for word in (*job.target, *job.versus):
        if word.startswith(LIKE):
            asked[word] = _hash_content(word.removeprefix(LIKE), "target")
    asked |= _resolve_defaults(job)
    asked["save"] = sorted(set(job.save))
    asked["size"] = input_size(job.size)
    asked["range"] = value_range(job.range) or job.range
    asked["scales"] = sorted(set(factors(job.scales)))
    asked["augment"] = sorted(set(job.augment))
    source, _, function = job.model.rpartition(":")
    if source.endswith(".py") and function:
        asked["model"] = [_hash_content(source, "model"), function]
    source, _, function = job.wrap.rpartition(":")
    if job.wrap:
        asked["wrap"] = [_hash_content(_find_python_file(source, WRAPPERS), "wrap"), function]
    source, _, function = job.text_tower.rpartition(":")
    if job.text_tower:
        asked["text_tower"] = [_hash_content(_find_python_file(source, TOWERS), "text_tower"), function]
    return asked


def _resolve_defaults(job: Job) -> dict[str, Any]:
    """What target and score come to, where the job alone tells."""
    meant: dict[str, Any] = {}
    if job.target == (AUTO,) and not job.prompted:
        meant["target"] = ("predicted",)
    if job.score == AUTO and not (job.versus and job.prompted):
        meant["score"] = "margin" if job.versus else "logit"
    return meant


def _find_python_file(place: str, usage: str) -> str:
    """The file that ``path/to/file.py`` or ``package.module`` stands for.

    Raises:
        RequestError: there is no such module, or it is no file.
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


def _hash_content(path: str, what: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"the {what} file {path!r} cannot be read: {error.strerror}") from error
