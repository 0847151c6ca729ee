"""The output folder of a comparison: whose it is, and its sheets, page and lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from camcli.base import atomic
from camcli.base.errors import RequestError
from camcli.images.own_outputs import COMPARE_RECORD, COMPARE_SHEET
from camcli.images.source import PictureSource
from camcli.outputs.page import Page
from camcli.outputs.sheet import Sheet
from camcli.runs.compare import CompareJob, Comparison
from camcli.runs.compare.earlier import PreviousComparison
from camcli.runs.compare.page import PageFile
from camcli.runs.record import provenance
from camcli.runs.record.folder import Folder
from camcli.runs.record.own_folder import choose_folder

STEM = "compare"
FACTS_FILE, LINES_FILE = COMPARE_RECORD, f"{STEM}.jsonl"


class CompareFolder:
    """Output folder of a comparison, as a ``with`` block, which locks it.

    Args:
        compare_job: the job; its ``out`` is the folder, or it has one of its own.
        name: name of the job's own folder.
        passes: name of each pass.
        parts: parts of the job's fingerprint.

    Attributes:
        path: path of the folder.
        notes: notes for the user.
        files: names of the sheets that were written.

    Raises:
        RequestError: it has somebody else's files.
    """

    def __init__(self, compare_job: CompareJob, name: str, passes: Sequence[str], parts: Mapping[str, str]) -> None:
        job = compare_job.job
        self._job, self._compare_job, self._passes, self._parts = job, compare_job, passes, parts
        self.path, notes = (Path(job.out), []) if job.out else choose_folder(name, self._compare)
        self.notes = sorted(notes, key=len)[:1]  # of many, the most alike is enough
        self._previous = self._compare(self.path)
        if not job.overwrite and not self._previous.is_own:
            self._check_free()
        self.files: list[str] = []
        self._page: PageFile | None = None
        self._stack = ExitStack()

    def __enter__(self) -> CompareFolder:
        self._folder = self._stack.enter_context(Folder(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def fingerprint(self) -> str:
        """The job's fingerprint."""
        return hash_parts(self._parts)

    def open_files(self, page: str, title: str) -> None:
        """Begin the file of lines, and the page if one of this name is wanted; neither is in its place before the end.

        Raises:
            OSError: they cannot be written.
        """
        self._lines_path = atomic.make_temporary_path(self.path)
        self._lines = self._stack.enter_context(self._lines_path.open("xb"))
        self._stack.callback(self._lines_path.unlink, missing_ok=True)
        if page:
            self._page = PageFile(self.path / page, title)
            self._stack.callback(self._page.discard)
            self.files.append(page)

    def add_lines(self, lines: Iterable[Comparison]) -> None:
        """Write the lines of images."""
        self._lines.writelines(one.as_line() for one in lines)

    def add_to_page(self, sheet: Sheet) -> None:
        """Add a sheet to the page, if there is one."""
        if self._page:
            self._page.add(sheet)

    def write_sheet(self, name: str, kind: str, page: Page) -> None:
        """Write a sheet in a format."""
        content = page.to_svg() if kind == "svg" else page.to_pdf() if kind == "pdf" else page.to_png()
        self._folder.write(name, content)
        self.files.append(name)

    def finish_files(self, pairs: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        """Put page and lines in their places, and remove the sheets of the run before that were not written again."""
        if self._page:
            self._page.finish(pairs, notes)
        self._lines.close()
        self._lines_path.replace(self.path / LINES_FILE)
        listed = self._previous.record.get("files")
        for name in listed if isinstance(listed, list) else ():
            if isinstance(name, str) and COMPARE_SHEET.fullmatch(name) and name not in self.files:
                self._folder.remove(name)

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write the record of the run.

        Raises:
            OutputError: it cannot be written.
        """
        whole = {**facts, "fingerprint": self.fingerprint, "counted": dict(self._parts), "files": self.files}
        provenance.write(self._folder, whole, FACTS_FILE)

    def _compare(self, folder: Path) -> PreviousComparison:
        record = provenance.read(folder, FACTS_FILE)
        return PreviousComparison(self._compare_job, self._passes, self._parts, record, hash_parts)

    def _check_free(self) -> None:
        found = sorted(one.name for one in self.path.iterdir()) if self.path.is_dir() else []
        own = [one for one in found if one in (FACTS_FILE, LINES_FILE) or COMPARE_SHEET.fullmatch(one)]
        if own:
            whose = (
                f"the sheets of another job or of other images: {self._previous.describe_difference()}"
                if self._previous.record
                else f"{own[0]}, which no run of it recorded"
            )
            raise RequestError(
                f"{str(self.path)!r} contains {whose}",
                "choose another folder with --out, or replace them with --overwrite; without --out each job has a "
                "folder of its own",
            )


def name_sheet(kind: str, untrained: bool, part: str = "") -> str:
    """Return the name of a sheet's file."""
    return f"{STEM}{'.untrained' * untrained}{'-' * bool(part)}{part}.{kind}"


def collect_parts(
    compare_job: CompareJob, parts: Sequence[Mapping[str, str]], sources: Iterable[PictureSource]
) -> dict[str, str]:
    """Collect what makes another job of one: the passes, the images, and how their maps are arranged and drawn.

    Args:
        compare_job: the job.
        parts: parts of each pass.
        sources: the images, as far as they are known beforehand: a sheet is of all of them.
    """
    images = hashlib.sha256()
    for source in sources:
        images.update(json.dumps([source.file, source.page]).encode())
    several, job = len(parts) > 1, compare_job.job
    passes = {
        f"{number}: {name}" if several else name: value
        for number, some in enumerate(parts, start=1)
        for name, value in some.items()
    }
    shown = ("rows", "columns", "sheets", "per_sheet", "draw", "normalize")
    drawn = [[getattr(compare_job, name) for name in shown], job.colormap, job.alpha, job.outside, job.panel_size]
    drawn += [{"name": compare_job.name, "plain": compare_job.plain}] if compare_job.name or compare_job.plain else []
    return {**passes, "images": images.hexdigest()[:16], "sheets": json.dumps(drawn)}


def hash_parts(parts: Mapping[str, str]) -> str:
    """Return 16 hex digits that stand for a job's parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
