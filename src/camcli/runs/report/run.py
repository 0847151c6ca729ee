"""Making of a report: images pass by once, their thumbnails are made in threads, then the page is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.base.errors import NothingFoundError, OutputError, RequestError
from camcli.base.words import count_of
from camcli.images import parse_bands
from camcli.images.address import to_url
from camcli.images.own_outputs import REPORT_FOLDER
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.provenance import list_jobs, read_record
from camcli.runs.record.view import look_at
from camcli.runs.report import BLOCK, CELL, EMBEDDED_SIZE, MANY_MAPS, SHOWN, SIDE, ReportOptions
from camcli.runs.report.columns import Columns
from camcli.runs.report.entries import Entries, Entry, LabelRule
from camcli.runs.report.facts import describe_run, write_again
from camcli.runs.report.files import FolderFiles, ReportFiles, SingleFile
from camcli.runs.report.findings import Findings
from camcli.runs.report.items import MAX_COLUMNS, Item, Variants, find_relative_url, make_item
from camcli.runs.report.thumbnails import PICTURE, Look, Thumbnailer, Thumbnails
from camcli.runs.worker.threads import batched, map_ahead

# A block of images, each with its maps by number.
Block = list[tuple[Entry, dict[int, Outcome]]]


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was made.

    Attributes:
        page: path of the page.
        images, maps: numbers of what it shows.
        notes: what somebody who opens it should know.
    """

    page: Path
    images: int
    maps: int
    notes: tuple[str, ...]


def write_report(out: Path, options: ReportOptions) -> Report:
    """Write a page that shows a run, into its output folder, which may be written to meanwhile.

    Args:
        out: the output folder.
        options: what the page is to be.

    Raises:
        NothingFoundError: no run of ``camcli explain`` wrote there.
        RequestError: it is in a store; or a record or a table cannot be read.
        OutputError: the page cannot be written.
    """
    if to_url(out):
        raise RequestError(
            "a report is of a local folder, and this one is in a store",
            "copy the folder here first, then: camcli report",
        )
    record = read_record(out)
    if out.is_symlink():  # such as latest, which will lead elsewhere while the page is open
        out = out.parent / out.readlink()
    columns = Columns(options.columns)
    with look_at(out) as view:
        entries = Entries(view, list_jobs(record))
        if not len(entries):
            raise NothingFoundError(f"{str(out)!r} has no finished images yet", "run camcli explain first")
        for entry in entries if options.columns else ():
            columns.add_image(entry.outcomes[0])
        try:
            return _Making(out, options, record, columns, len(entries)).make(entries)
        except OSError as error:
            raise OutputError(f"the report in {str(out)!r} cannot be written: {error.strerror or error}") from error


class _Making:
    """Making of one report."""

    def __init__(
        self, out: Path, options: ReportOptions, record: Mapping[str, Any], columns: Columns, count: int
    ) -> None:
        self._out, self._options, self._record, self._columns = out, options, record, columns
        job = record.get("job") or {}
        self._copied_size = _choose_copied_size(options, count, job)
        self._thumbnailer = Thumbnailer(
            out,
            str(job.get("background") or "#ffffff"),
            str(job.get("range") or ""),
            parse_bands(str(job.get("bands") or ""), str(job.get("rgb") or "")),
            self._copied_size,
        )
        self._rule = LabelRule.from_record(record)
        self._variants, self._findings = Variants(), Findings()
        self._formats: set[str] = set()
        self._maps = self._missing = self._uncopied = 0

    def make(self, entries: Entries) -> Report:
        """Make it."""
        files: ReportFiles = SingleFile(self._out) if self._options.single_file else FolderFiles(self._out)
        workers = self._options.workers or os.cpu_count() or 1
        blocks = ([(one, self._variants.number(one)) for one in some] for some in batched(entries, BLOCK))
        try:
            for number, (block, made) in enumerate(map_ahead(self._look, blocks, workers, workers + 1)):
                self._add_block(files, number, block, made)
            page = files.finish(self._describe())
        except BaseException:
            files.discard()
            raise
        return Report(page, self._findings.count, self._maps, tuple(self._list_notes(entries)))

    def _look(self, block: Block) -> tuple[Block, Thumbnails]:
        drawn = [
            {number: one for number, one in maps.items() if number < MAX_COLUMNS} or {-1: entry.outcomes[0]}
            for entry, maps in block
        ]
        return block, self._thumbnailer.make(drawn)

    def _add_block(self, files: ReportFiles, number: int, block: Block, made: Thumbnails) -> None:
        for name, content in made.sheets.items():
            files.add_image(f"sheet-{number}-{name}", content)
        for (at, name), content in made.copies.items():
            files.add_image(f"copy-{number * BLOCK + at}-{name}", content)
        items = []
        for at, ((entry, maps), look) in enumerate(zip(block, made.looks, strict=True)):
            values = self._columns.find(entry.outcomes[0])
            item = make_item(entry, maps, look, values, self._rule)
            if look.sheets != [PICTURE, *map(str, maps)]:  # which is as usual
                item["sheets"] = look.sheets
            self._add_picture(files, item, look, f"copy-{number * BLOCK + at}-{PICTURE}.webp")
            self._maps += len(item.get("maps", ()))
            self._missing += "missing" in item
            self._formats |= {name for one in maps.values() for name in one.files}
            self._findings.add(item)
            items.append(item)
        files.add_items(items)

    def _add_picture(self, files: ReportFiles, item: Item, look: Look, copy: str) -> None:
        """Add where a page in a folder finds the image: its own file, or a copy."""
        if self._options.single_file or look.missing:
            return
        item["picture"] = f"{REPORT_FOLDER}/{copy}"
        if look.path is None:
            return
        item["picture"] = find_relative_url(look.path, self._out)
        if self._options.copy_images:
            name = f"copy-{item['id']}{look.path.suffix.lower()}"
            try:
                files.copy(name, look.path)
                item["picture"] = f"{REPORT_FOLDER}/{name}"
            except OSError:
                self._uncopied += 1

    def _describe(self) -> dict[str, Any]:
        findings = self._findings
        data = {
            "variants": self._variants.name_all(),
            "ranked": self._variants.are_ranked,
            "columns": self._columns.titles,
            "labelled": bool(findings.labelled),
            "cell": CELL,
            "side": SIDE,
            "shown": SHOWN,
            "maxColumns": MAX_COLUMNS,
        }
        return {
            "run": describe_run(self._record, self._out),
            "findings": findings.list_all(),
            "data": data,
            "hint": self._say_unshown(),
            "counts": findings,
        }

    def _say_unshown(self) -> str:
        """Say that the page has no maps, if so, and what shows them."""
        if not self._maps or self._formats & set(SHOWN):
            return ""
        saved = ", ".join(sorted(self._formats)) or "no files"
        how = " draws the maps from the arrays, without the network" if "array" in self._formats else " adds the maps"
        return f"This run saved {saved}, which a page cannot show: {self._write_command('overlay', 'heatmap')}{how}."

    def _write_command(self, *formats: str) -> str:
        """Write the command that saves formats of this run and makes the page again."""
        return f"{write_again(self._out)} --save {','.join(formats)} --report"

    def _list_notes(self, entries: Entries) -> Iterator[str]:
        if self._missing:
            yield f"{count_of(self._missing, 'image', 'are')} not shown: gone, changed or unreadable now"
        if self._uncopied:
            yield f"{count_of(self._uncopied, 'image')} could not be copied; the page shows the original"
        if entries.others:
            yield f"left out: {count_of(entries.others, 'line')} of other jobs in this folder"
        yield from filter(None, (self._columns.describe_ambiguous(), self._columns.describe_unmatched()))
        if self._options.single_file and not self._copied_size and self._options.image_size is None:
            yield f"these are many maps: the file has thumbnails only; --image-size {EMBEDDED_SIZE} adds larger images"
        if unshown := self._say_unshown():
            yield unshown
        elif self._maps and "heatmap" not in self._formats:
            formats = [one for one in SHOWN if one in self._formats]
            yield f"to see maps without the image behind them too: {self._write_command(*formats, 'heatmap')}"


def _choose_copied_size(options: ReportOptions, images: int, job: Mapping[str, Any]) -> int:
    """Return the longer side of the copies of images and maps; 0 for none."""
    if not options.single_file:
        return 0
    if options.image_size is not None:
        return options.image_size
    methods = str(job.get("method") or "").count(",") + 1
    return EMBEDDED_SIZE if images * methods <= MANY_MAPS else 0
