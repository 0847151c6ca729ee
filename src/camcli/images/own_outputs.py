"""Detection of images that camcli wrote, by the records in their folders."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from camcli.base.paths import absolute

# Records with a line for each image, and the fixed names of files that other records come with.
LINE_RECORDS = ("outcomes.jsonl", "prompts.jsonl")
# Folder, in an output folder, with a folder for the records of each shard, such as ``03-of-16``.
SHARDS = "shards"
# Folder, in an output folder, with the files of the page report.html.
REPORT_FOLDER = "report-files"
# Names of its files, and of nothing else that somebody may put there: data, sheets, copies of images, the page's parts.
REPORT_FILE = re.compile(
    r"data-\d{3,}\.js|sheet-\d+-(picture|\d+)\.webp|copy-\d+-picture\.webp|copy-[0-9a-f]{12}\.[a-z]+|page\.(css|js)",
    re.ASCII,
)
# A folder that holds both files of a pair was written by camcli.
FOLDER_MARKS = (
    ("run.json", "outcomes.jsonl"),
    ("channels.json", "channels.csv"),
    ("channels.json", "channels.untrained.csv"),
    ("prompts.json", "prompts.jsonl"),
)
# Record of a comparison, and the names of its sheets, of which there may be any number.
COMPARE_RECORD = "compare.json"
COMPARE_SHEET = re.compile(r"compare(?:\.untrained)?(?:-\d+|-similarity)?\.(?:png|svg|pdf|html)", re.ASCII)
SHARD_FOLDER = re.compile(r"\d{1,6}-of-\d{1,6}", re.ASCII)
FILES_BY_RECORD = {
    "evaluation.json": ("evaluation-curves.png", "evaluation-metrics.png"),
    "channels.json": ("channels.png", "channels.untrained.png"),
    "prompts.json": ("prompts.png", "prompts.untrained.png"),
}


def is_written_folder(folder: str) -> bool:
    """Return whether camcli wrote a folder."""
    return any(all(Path(folder, mark).is_file() for mark in marks) for marks in FOLDER_MARKS)


def find_shard_folders(folder: Path) -> list[Path]:
    """Return the folders of the records of shards in an output folder."""
    with suppress(OSError):
        return sorted(one for one in (folder / SHARDS).iterdir() if SHARD_FOLDER.fullmatch(one.name) and one.is_dir())
    return []


def find_line_records(folder: Path, record: str) -> list[Path]:
    """Return the record of an output folder, and those of its shards, as far as they exist."""
    return [one / record for one in (folder, *find_shard_folders(folder)) if (one / record).exists()]


class WrittenFiles:
    """Lookup of files that camcli wrote. Each record is read once, when a file that it may list is looked up."""

    def __init__(self) -> None:
        self._nearest_records: dict[str, tuple[str, frozenset[str]] | None] = {}
        self._last: tuple[str | None, tuple[str, frozenset[str]] | None] = None, None

    def __call__(self, path: str) -> bool:
        """Return whether the records in the file's folder, or in the nearest parent that has any, list the file."""
        folder = os.path.dirname(path)  # noqa: PTH120  strings, and quick
        if folder != self._last[0]:
            self._last = folder, self._find_records(os.path.dirname(absolute(path)))  # noqa: PTH120
        found = self._last[1]
        return found is not None and os.path.relpath(absolute(path), found[0]) in found[1]

    def _find_records(self, folder: str) -> tuple[str, frozenset[str]] | None:
        around, asked = folder, list[str]()
        # A loop, because folders may be nested deeper than the recursion limit.
        while around not in self._nearest_records:
            asked.append(around)
            names = _read_names(around)
            if names is not None:
                self._nearest_records[around] = around, names
            elif os.path.dirname(around) == around:  # noqa: PTH120
                self._nearest_records[around] = None
            else:
                around = os.path.dirname(around)  # noqa: PTH120
        for one in asked:
            self._nearest_records[one] = self._nearest_records[around]
        return self._nearest_records[folder]


def _read_names(folder: str) -> frozenset[str] | None:
    """Return the files that records in a folder list, relative to it; None if it has no records."""
    names: set[str] = set()
    there = False
    for record, files in FILES_BY_RECORD.items():
        if os.path.isfile(os.path.join(folder, record)):  # noqa: PTH113, PTH118  false where a path is too long
            there = True
            names.update(files)
    if os.path.isfile(os.path.join(folder, COMPARE_RECORD)):  # noqa: PTH113, PTH118
        there = True
        with suppress(OSError):
            names.update(filter(COMPARE_SHEET.fullmatch, os.listdir(folder)))  # noqa: PTH208
    for lines_file in (path for name in LINE_RECORDS for path in find_line_records(Path(folder), name)):
        with suppress(OSError), lines_file.open("rb") as lines:
            there = True
            for line in lines:
                names.update(_parse_files(line))
    if there:
        with suppress(OSError):
            shown = os.listdir(os.path.join(folder, REPORT_FOLDER))  # noqa: PTH118, PTH208
            names.update(f"{REPORT_FOLDER}/{name}" for name in shown if REPORT_FILE.fullmatch(name))
    return frozenset(map(os.path.normpath, names)) if there else None


def _parse_files(line: bytes) -> list[str]:
    try:
        values = json.loads(line)
    except ValueError:  # cut short by a crash, or not a record of camcli
        return []
    files = values.get("files") if isinstance(values, dict) else None
    return [file for file in files.values() if isinstance(file, str)] if isinstance(files, dict) else []
