"""A job's own folder, where none is given: chosen by the job's name and fingerprint; ``latest`` links to one."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from camcli.base import atomic
from camcli.runs.job.folder_name import PARENT
from camcli.runs.record.folder import LOCK_FILE
from camcli.runs.record.other_jobs import PreviousRun

LATEST = "latest"


def choose_folder(name: str, compare: Callable[[Path], PreviousRun]) -> tuple[Path, list[str]]:
    """Choose a job's own folder: the one that it has already, or a new one; return it with notes for the user.

    Its name has the job's fingerprint behind it if another job has the name.

    Args:
        name: name of the job.
        compare: returns the last run in a folder, compared with the job.
    """
    parent = Path(PARENT)
    plain = parent / name
    digits = re.compile(re.escape(name) + "-[0-9a-f]{6}")
    others = (folder for folder in parent.glob("*") if digits.fullmatch(folder.name)) if parent.is_dir() else ()
    there = {folder: compare(folder) for folder in (plain, *sorted(others)) if _is_used(folder)}
    for folder, previous in there.items():
        if previous.is_own:
            return folder, []
    notes = [f"{folder} has {words}" for folder, previous in there.items() if (words := previous.describe_results())]
    return (parent / f"{name}-{compare(plain).fingerprint[:6]}" if plain in there else plain), notes


def link_latest(folder: Path) -> None:
    """Make ``latest``, beside a job's own folder, a link to it; where that is not possible there is none.

    It is the last run of ``camcli explain``, whose results other commands read.
    """
    link = folder.parent / LATEST
    if link.exists() and not link.is_symlink():
        return
    temporary = atomic.make_temporary_path(folder.parent)
    with suppress(OSError):
        try:
            temporary.symlink_to(folder.name, target_is_directory=True)
            temporary.replace(link)
        finally:
            temporary.unlink(missing_ok=True)


def _is_used(folder: Path) -> bool:
    """Return whether there is a file or folder of this name in which anything but a lock was written."""
    if not folder.is_dir():
        return folder.exists()
    return any(entry.name != LOCK_FILE for entry in folder.iterdir())
