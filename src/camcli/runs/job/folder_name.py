"""Name of a job's own folder: its model, layers and method, and what else differs from the defaults and is short."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from camcli.models import SOURCES
from camcli.runs.job.content import DRAWING_OPTIONS, FILE_OPTIONS, NOT_IN_FINGERPRINT
from camcli.runs.job.job import Job

# Folder of the jobs' own folders, in the current folder; of jobs without `out`.
PARENT = "camcli-out"
# A name has words as long as they fit; jobs that then share it are told apart by their fingerprints.
MAX_BYTES, MAX_WORD_BYTES = 72, 28
MAX_LISTED = 3
# Options whose values say by themselves what they are.
BARE_OPTIONS = frozenset({"weights", "text", "texts", "size", "options", "augment", "target", "targets", "score"})
PREFIXES = {"versus": "over"}


def find_parent(job: Job) -> Path:
    """Return the folder that a job writes to; without ``out`` that in which it has a folder of its own."""
    return Path(job.out or PARENT)


def name_folder(
    job: Job, layers: Sequence[str], methods: Sequence[str], command: str = "", more: Sequence[str] = ()
) -> str:
    """Return the name of a job's own folder.

    Args:
        job: the job.
        layers: its layers, as resolved.
        methods: names of its methods.
        command: the command, where that is not the main one.
        more: further words of this command.
    """
    found = "-".join(filter(None, [command, _name_model(job.model), *map(_join, [layers, methods])]))
    for word in (*_describe_options(job), *map(_make_word, more)):
        if word and len(f"{found}-{word}".encode()) <= MAX_BYTES:
            found += f"-{word}"
    return found


def _describe_options(job: Job) -> Iterator[str]:
    """Yield a word for each option that counts, is not the default and is not named anyway."""
    default = Job()
    named = {"model", "layers", "method", *NOT_IN_FINGERPRINT, *DRAWING_OPTIONS}
    for name in (one.name for one in fields(Job)):
        value = getattr(job, name)
        if name in named or value == getattr(default, name):
            continue
        if value is True:
            yield _make_word(name.replace("_", "-"))
            continue
        word = _make_word(Path(value).stem) if name in FILE_OPTIONS else _join(value)
        yield word if name in BARE_OPTIONS else f"{PREFIXES.get(name, name.replace('_', '-'))}-{word}"


def _name_model(model: str) -> str:
    """Return a model's name without its source, or that of the file or folder that it comes from."""
    source, _, name = model.rpartition(":")
    if source.endswith(("local-dir", "hf-hub")):
        return _make_word(Path(name).name, 2 * MAX_WORD_BYTES)
    if source.endswith(".py") or (source and source.partition(":")[0] not in SOURCES.names()):
        home = Path(source).stem if source.endswith(".py") else source.rpartition(".")[2]
        return _make_word(home if name == "make" else f"{home}-{name}")
    return _make_word(name, 2 * MAX_WORD_BYTES)


def _join(value: Any) -> str:
    """Return a word for an option's value; of many it names the first."""
    each = [_make_word(str(one)) for one in value] if isinstance(value, tuple | list) else [_make_word(str(value))]
    if len(each) > MAX_LISTED:
        return f"{each[0]}+{len(each) - 1}"
    return "+".join(each)


def _make_word(text: str, size: int = MAX_WORD_BYTES) -> str:
    """Make a text fit for a file name: letters of all scripts, digits, and - between."""
    words = re.sub(r"[^\w.+]+", "-", text).strip("-.")
    return words.encode("utf-8", "ignore")[:size].decode("utf-8", "ignore").strip("-.")
