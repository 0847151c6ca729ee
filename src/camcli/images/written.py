"""Which pictures are files that camcli wrote, where they lie among others: as the records beside them have it."""

import json
import os
from pathlib import Path

from camcli.base.paths import absolute

# Records with a line for each picture, and what stands beside other records under names of its own.
LINES = ("outcomes.jsonl", "prompts.jsonl")
BESIDE = {
    "channels.json": ("channels.png", "channels.untrained.png"),
    "prompts.json": ("prompts.png", "prompts.untrained.png"),
}


class Written:
    """Whether a file is an output of camcli. Records are read once, where a file is asked about that may be in them."""

    def __init__(self) -> None:
        self._above: dict[str, tuple[str, frozenset[str]] | None] = {}

    def __call__(self, path: str) -> bool:
        """Whether records in its folder, or in the nearest one around it that has any, list it."""
        whole = absolute(path)
        found = self._records(os.path.dirname(whole))  # noqa: PTH120  strings, and quick
        if found is None:
            return False
        home, names = found
        return os.path.relpath(whole, home) in names

    def _records(self, folder: str) -> tuple[str, frozenset[str]] | None:
        around, asked = folder, list[str]()
        # Not recursive: folders may be deeper than that.
        while around not in self._above:
            asked.append(around)
            names = _names(around)
            if names is not None:
                self._above[around] = around, names
            elif os.path.dirname(around) == around:  # noqa: PTH120
                self._above[around] = None
            else:
                around = os.path.dirname(around)  # noqa: PTH120
        for one in asked:
            self._above[one] = self._above[around]
        return self._above[folder]


def _names(folder: str) -> frozenset[str] | None:
    """The files that records in a folder list, relative to it; None if it has no records."""
    names: set[str] = set()
    there = False
    for record, files in BESIDE.items():
        if os.path.isfile(os.path.join(folder, record)):  # noqa: PTH113, PTH118  false where a path is too long
            there = True
            names.update(files)
    for record in LINES:
        try:
            with Path(folder, record).open("rb") as lines:
                there = True
                for line in lines:
                    names.update(_files(line))
        except OSError:  # there is none, or it cannot be read
            continue
    return frozenset(map(os.path.normpath, names)) if there else None


def _files(line: bytes) -> list[str]:
    try:
        values = json.loads(line)
    except ValueError:  # torn by a crash, or no record of camcli's
        return []
    files = values.get("files") if isinstance(values, dict) else None
    return [file for file in files.values() if isinstance(file, str)] if isinstance(files, dict) else []
