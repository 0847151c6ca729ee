"""Run of ``camcli compare``: one network after the other explains all images, then the sheets are drawn."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain
from types import TracebackType
from typing import Any

import numpy as np

from camcli.images.files import read_stamp
from camcli.images.source import PAUSE, PictureSource
from camcli.metrics.similarity import MEASURE_MEANINGS
from camcli.outputs.sheet import lay_out_sheet
from camcli.outputs.style import Style
from camcli.runs.compare import CompareJob, Comparison
from camcli.runs.compare.drawing import Scales, measure_peak
from camcli.runs.compare.explain import Spool, Subject, TargetChoice, collect, make_rules
from camcli.runs.compare.folder import STEM, CompareFolder, collect_parts, name_sheet
from camcli.runs.compare.grid import arrange, make_grid
from camcli.runs.compare.merge import ComparedImage, make_line, merge_image
from camcli.runs.compare.networks import Networks
from camcli.runs.compare.sheets import MAX_MATRIX, NumberedSheet, SheetMaker
from camcli.runs.compare.summary import PairSummary, format_pair, list_pairs
from camcli.runs.job.folder_name import name_folder
from camcli.runs.job.prompts import refuse_own_prompts
from camcli.runs.record import provenance
from camcli.runs.record.failures import make_write_error
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.preflight import check_output_folder, refuse_store
from camcli.runs.worker.item import Item
from camcli.runs.worker.map_similarity import MeanSimilarity, nan_to_none
from camcli.runs.worker.pipeline import stream_results
from camcli.runs.worker.threads import map_ahead

THREADS = min(8, os.cpu_count() or 1)


class CompareRun:
    """Run that compares maps.

    Used as a ``with`` block, which locks the output folder. An invalid request raises on construction; each network is
    loaded then, large ones one at a time, so that what cannot work is refused before the first image. :meth:`explain`
    goes through the images once for each pass, :meth:`draw` then writes the sheets, :meth:`finish` the record. Memory
    does not grow with the images: their maps wait in temporary files.

    Args:
        compare_job: the job.

    Attributes:
        subjects: what each pass explains.
        grid, arrangement: the maps of each image, and where they are on sheets.
        total: number of images; None before the first pass if they come from standard input.
        folder: the output folder.
        notes: notes for the user; may grow until all is written.

    Raises:
        RequestError: the request is invalid.
        NothingFoundError: there is no image.
    """

    def __init__(self, compare_job: CompareJob) -> None:
        self.compare_job, self._job = compare_job, compare_job.job
        refuse_store(self._job, STEM)
        refuse_own_prompts(self._job)
        self._inputs = Inputs(self._job)
        check_output_folder(self._job)
        self.total = self._inputs.total
        self.notes = self._inputs.note_unread()
        jobs = [*compare_job.iter_jobs()]
        self._networks = Networks(jobs, self._inputs)
        self.subjects = [Subject.from_worker(self._networks.load(number)) for number in range(len(jobs))]
        self.grid = make_grid(compare_job, self.subjects)
        self.arrangement = arrange(compare_job, self.grid, self.total)
        first, *others = self.subjects
        more = [*dict.fromkeys(one.name for one in others if one.name != first.name)]
        more += [source.path.stem for source in self._inputs.iter_sources()] if self.total == 1 else []
        name = name_folder(first.job, first.layers, first.methods, STEM, more)
        known = self._inputs.iter_sources() if self.total is not None else ()
        parts = collect_parts(compare_job, [one.fingerprint_parts for one in self.subjects], known)
        passes = [self.grid.name_pass(number) for number in range(len(jobs))]
        self.folder = CompareFolder(compare_job, name, passes, parts)
        self.notes += [*self._networks.notes, *self.folder.notes]
        self._id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}"
        self._sources: list[PictureSource] = []
        self._peaks: list[list[float]] = []
        self._similarity = MeanSimilarity(len(self.grid))
        self._stack = ExitStack()

    def __enter__(self) -> CompareRun:
        self._stack.enter_context(self.folder)
        self._spools = [self._stack.enter_context(closing(Spool())) for _ in self.subjects]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def order(self) -> list[int]:
        """Numbers of the passes as they are best made: those of networks that are loaded come first."""
        return self._networks.order

    @property
    def uses_sheets(self) -> bool:
        """True if each value of something has a sheet of its own."""
        axis = self.arrangement.sheets
        return self.total != 1 if axis == "images" else len(self.grid.names[axis]) > 1

    @property
    def untrained(self) -> bool:
        """True if any network's weights are random."""
        return any(one.untrained for one in self.subjects)

    # ---- image by image

    def explain(self, number: int) -> Iterator[list[Outcome]]:
        """Make the maps of a pass, and yield the outcome of each image; to be called in :attr:`order`."""
        worker, subject, first = self._networks.load(number), self.subjects[number], not self._sources
        side, start = self.compare_job.panel_side, number * self.subjects[number].count
        rules = make_rules(worker)
        sources = (one for one in self._inputs.stream() if one is not PAUSE) if first else iter([*self._sources])
        items = (Item(one, target_rule=TargetChoice(rules), stamp=read_stamp(one.file)) for one in sources)
        for place, item in enumerate(stream_results(worker, items)):
            assert isinstance(item.target_rule, TargetChoice)
            image = collect(item, item.target_rule, worker, subject, side)
            if first:
                self._sources.append(image.source)
                self._peaks.append([np.nan] * len(self.grid))
            peaks = [measure_peak(cell, self.compare_job.draw) for cell in image.cells]
            self._peaks[place][start : start + subject.count] = peaks
            self._spools[number].append(image)
            reason = image.error
            if reason and len(self.subjects) > 1:
                reason = f"{self.grid.name_pass(number)}: {reason}"
            yield [Outcome(**self._make_fields(image.source, image.stamp), error=reason)]
        self._networks.add_notes(worker)
        self.notes += [note for note in self._networks.notes if note not in self.notes]
        if self.total is None:
            self.total = len(self._sources)
            self.notes += self._inputs.note_unread_late()

    def _make_fields(self, source: PictureSource, stamp: str) -> dict[str, Any]:
        """Return the fields that a line of any image has."""
        return {
            "source": source.location,
            "name": source.name,
            "page": source.page,
            "root": source.root,
            "stamp": stamp,
            "job": self.folder.fingerprint,
            "run": self._id,
        }

    # ---- sheets

    def draw(self) -> Iterator[list[Comparison]]:
        """Write the sheets; yield the lines of the images of each, once for each image.

        Raises:
            OutputError: a file cannot be written.
        """
        self._networks.clear()
        scales = Scales.from_peaks(self.compare_job, self.arrangement, self.grid, self._peaks)
        maker = SheetMaker(self.compare_job, self.subjects, self.grid, self.arrangement, scales)
        html = name_sheet("html", self.untrained) if "html" in self.compare_job.save else ""
        try:
            self.folder.open_files(html, ", ".join(self.grid.names["models"]))
            told = 0
            for number, drawn in enumerate(chain(maker.make(self._iter_images()), self._iter_summary(maker)), start=1):
                files = self._write_sheet(drawn, maker, number)
                fresh = [image for image in drawn.images if image.number >= told]
                told += len(fresh)
                lines = [
                    make_line(image, self.subjects, {**self._make_fields(image.source, image.stamp), "files": files})
                    for image in fresh
                ]
                self.folder.add_lines(lines)
                yield lines
            plain = self.compare_job.plain
            pairs = () if plain else [*map(format_pair, self.list_pairs())]
            self.folder.finish_files(pairs, () if plain else self.notes)
        except OSError as error:
            raise make_write_error(str(self.folder.path), error) from error

    def finish(self) -> None:
        """Write the record of the run.

        Raises:
            OutputError: it cannot be written.
        """
        own = asdict(self.compare_job)
        facts = {
            "run": self._id,
            "job": own.pop("job"),
            "compared": own,
            "images": len(self._sources),
            "arrangement": asdict(self.arrangement),
            "maps": [self.grid.name(number) for number in range(len(self.grid))],
            "passes": [one.facts for one in self.subjects],
            "numbers": MEASURE_MEANINGS,
            "similarity": {name: nan_to_none(values) for name, values in self._similarity.average().items()},
            "defined": {name: counts.tolist() for name, counts in self._similarity.counts.items()},
            "pairs": [asdict(pair) for pair in self.list_pairs()],
            "untrained": self.untrained,
            "notes": self.notes,
            "finished": provenance.format_now(),
        }
        self.folder.write_facts(facts)

    def list_pairs(self) -> list[PairSummary]:
        """Return the mean similarities of each two maps that differ in one thing."""
        return list_pairs(self.grid, self._similarity)

    def _iter_images(self) -> Iterator[ComparedImage]:
        """Yield the images with all their maps, in order, and sum their similarities up."""
        passes = enumerate(zip(*self._spools, strict=True))
        for image in map_ahead(lambda given: merge_image(*given), passes, THREADS, 2 * THREADS):
            self._similarity.add(image.similarity)
            yield image

    def _iter_summary(self, maker: SheetMaker) -> Iterator[NumberedSheet]:
        """Yield a sheet of the mean similarities, once all images went by, if there are several images and maps."""
        if len(self._sources) > 1 and not self.compare_job.plain and 1 < len(self.grid) <= MAX_MATRIX:
            yield maker.make_summary(self._similarity.average(), len(self._sources))

    def _write_sheet(self, drawn: NumberedSheet, maker: SheetMaker, number: int) -> dict[str, str]:
        """Write a sheet in all formats; return the names of its files."""
        untrained = all(one.untrained for one in self.subjects)
        style = Style(self._job.colormap, self._job.alpha, "image", untrained=untrained)
        rows = [*drawn.sheet.rows, *([drawn.matrices] if drawn.matrices else [])]
        page = lay_out_sheet(replace(drawn.sheet, rows=rows), style, drawn.columns, maker.layout)
        several = self.uses_sheets or len(self._sources) > self.compare_job.per_sheet
        part = "similarity" if not drawn.images else f"{number:03}" if several else ""
        names = {
            kind: name_sheet(kind, self.untrained, "" if kind == "html" else part) for kind in self.compare_job.save
        }
        for kind, name in names.items():
            if kind != "html":
                self.folder.write_sheet(name, kind, page)
            elif drawn.images:  # the page ends with a table of similarities of its own
                self.folder.add_to_page(drawn.sheet)
        return names
