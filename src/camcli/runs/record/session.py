"""Session of a run that writes files and lines for each image: locks the folder, explains, writes, records."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

from camcli.base import timing
from camcli.base.errors import NothingFoundError
from camcli.base.log import LOGGER
from camcli.base.words import count_of
from camcli.images.address import show_path
from camcli.images.files import read_stamp
from camcli.images.naming import mark_name
from camcli.images.source import PictureSource
from camcli.runs.job.fingerprint import compute_fingerprint
from camcli.runs.record import ledger, provenance, view
from camcli.runs.record.failures import NONE_DROPPED, RESULT_OUTDATED, RESULT_STAYS
from camcli.runs.record.folder import Folder
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.kept import can_redraw
from camcli.runs.record.ledger import Ledger
from camcli.runs.record.lines import R, hash_text
from camcli.runs.record.namesakes import Namesakes, describe_root
from camcli.runs.record.other_jobs import PreviousRun, check_other_jobs, check_same_job, note_accepted
from camcli.runs.record.own_folder import choose_folder
from camcli.runs.record.preflight import read_shard
from camcli.runs.worker.item import Item, merge_done
from camcli.runs.worker.pipeline import Load, Measure, stream_with_pauses
from camcli.runs.worker.threads import map_ahead
from camcli.runs.worker.volumes import takes_volumes
from camcli.runs.worker.worker import Worker

ACCEPT_HINT = "with --accept-versions they count as done"


class Session(Generic[R]):
    """Run under way, as a ``with`` block, which locks the output folder for this run.

    Args:
        worker: the resolved job.
        inputs: its images.
        line_type: type of the lines, a dataclass.
        file: file of the lines, in the output folder.
        facts_file: file of the run's record, in the output folder.
        make_fingerprint: makes the job's fingerprint from the worker's ``fingerprint_parts``.
        wanted: digits for the looks of each file that an image must have to count as done, by kind.
        name: name of the job's own folder, where it has no other.
        on_open: called once the folder is locked; records that the run began.

    Attributes:
        id: id of the run, in its lines.
        out: path of the output folder: the one given, or the job's own.
        fingerprint: fingerprint of the job, in its lines.
        facts: what is recorded of the run; set once the folder is locked.
        ledger, folder: the ledger and the output folder; set once the folder is locked.
        say: told what is waited for when the folder is locked.
        processed, failed, skipped: numbers of images so far; skipped are those that were done before.
    """

    def __init__(
        self,
        worker: Worker,
        inputs: Inputs,
        line_type: Callable[..., R],
        *,
        file: str = ledger.FILE,
        facts_file: str = provenance.FILE,
        make_fingerprint: Callable[[Mapping[str, str]], str] = compute_fingerprint,
        wanted: Mapping[str, str],
        name: str,
        on_open: Callable[[], None],
    ) -> None:
        self.worker, self.inputs = worker, inputs
        self.job = worker.job
        self.id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(3)}"
        self.fingerprint = make_fingerprint(worker.fingerprint_parts)
        self._line_type = line_type
        self._file, self._facts_file = file, facts_file
        self._make_fingerprint, self._on_open = make_fingerprint, on_open
        self._wanted = wanted
        self.shard = read_shard(self.job)
        self.out, notes = (Path(self.job.out), []) if self.job.out else choose_folder(name, self._compare)
        worker.notes += (f"{note}; {ACCEPT_HINT}" for note in notes)
        self.facts: dict[str, Any] = {}
        self.processed = self.failed = self.skipped = 0
        self.say: Callable[[str], None] = LOGGER.info
        self._stack = ExitStack()

    def __enter__(self) -> Session[R]:
        with ExitStack() as held:
            opened = Ledger(
                self.out,
                self.fingerprint,
                self._line_type,
                self._wanted,
                file=self._file,
                durable=self.job.durable,
                accepted=self._settle,
                shard=self.shard,
                say=self.say,
            )
            self.ledger = held.enter_context(opened)
            self.folder = opened.folder
            self._namesakes = Namesakes(opened)
            if self.shard is None:
                check_other_jobs(opened, self.previous, None if self.inputs.total is None else self.iter_names)
            else:
                check_same_job(self.previous, opened.other_jobs)
            accepted, notes = note_accepted(self.previous, opened.jobs_found)
            self.worker.notes += notes
            self.facts = {
                "run": self.id,
                "began": provenance.format_now(),
                **self.inputs.describe(),
                **provenance.collect_facts(self.worker),
                **accepted,
            }
            self._on_open()
            self._stack = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @cached_property
    def previous(self) -> PreviousRun:
        """Last run in the output folder; to be read once the folder is locked."""
        return self._compare(self.out)

    def peek(self) -> Callable[[PictureSource], bool]:
        """Return a function that says whether an image is done; the folder is neither locked nor made.

        Of an image whose maps depend on others too, only its own file is looked at.
        """
        if self.job.overwrite:
            return lambda source: False
        if self.previous.record and not self.previous.is_own:
            unlike = self.previous.describe_difference()
            self.worker.note(
                f"{show_path(self.out)} has results of a different job ({unlike}), beside which this one may be refused"
            )
        jobs = {self.fingerprint, *self.previous.accepted_jobs}
        with view.look_at(self.out) as seen:
            states = ledger.read_stamps(
                seen.path, jobs, self._line_type, self._wanted, self._file, seen.find_size, self.shard
            )

        def is_done(source: PictureSource) -> bool:
            stamp = read_stamp(source.file) if states else ""
            names = (source.name, mark_name(source.name, source.path)) if stamp else ()
            return any(states.get(hash_text(name)) == hash_text(stamp) for name in names)

        return is_done

    def iter_names(self) -> Iterator[str]:
        """Iterate over the output names of all images, as the folder's results make them."""
        return (self._namesakes.choose_name(one, read_stamp(one.file)) for one in self.inputs.iter_sources())

    def record(self, **more: Any) -> None:
        """Write the facts of the run to its record, with further ones."""
        name = self.folder.records.relative_to(self.folder.path) / self._facts_file
        provenance.write(self.folder, {**self.facts, **more}, str(name))

    def make_item(self, source: PictureSource, stamp_suffix: str = "") -> Item:
        """Make the item of an image.

        Args:
            source: the image.
            stamp_suffix: suffix of its stamp for what else its files depend on.
        """
        mark = read_stamp(source.file)
        mark += stamp_suffix if mark else ""
        item = Item(self._namesakes.rename(source, mark), stamp=mark)
        self.mark_done(item)
        return item

    def mark_done(self, item: Item) -> None:
        """Mark an item as skipped if its image is done, or need only be drawn; else find its earlier result."""
        name, overwrite = item.source.name, self.job.overwrite
        item.skipped = not overwrite and self.ledger.is_done(name, item.stamp)
        item.earlier = () if item.skipped else self.ledger.find_result(name, item.stamp)
        if item.earlier and not overwrite:
            item.skipped = can_redraw(self.folder, item.earlier) and not takes_volumes(self.worker.network)

    def make_line_fields(self, item: Item) -> dict[str, Any]:
        """Return the fields that a line of any image has."""
        return {
            "source": item.source.location,
            "name": item.source.name,
            "page": item.source.page,
            "root": describe_root(item.source, self.out),
            "stamp": item.stamp,
            "job": self.fingerprint,
            "run": self.id,
            "untrained": self.worker.network.untrained,
            "columns": json.loads(item.source.columns or "{}"),
        }

    def note_earlier(self, item: Item, own_stamp: bool = True) -> tuple[str, ...]:
        """Return a note if an image that failed keeps the result of an earlier run.

        Args:
            item: the image.
            own_stamp: its stamp depends on the image alone.
        """
        if not self.ledger.has_earlier_result(item.source.name):
            return ()
        return (
            RESULT_OUTDATED if own_stamp and self.ledger.is_changed(item.source.name, item.stamp) else RESULT_STAYS,
        )

    def process_pictures(
        self,
        write: Callable[[Item], list[R]],
        stamp_suffix: str = "",
        on_group: Callable[[Sequence[Item]], None] = lambda group: None,
        measure: Measure = lambda explainer, items: None,
        load: Load | None = None,
        at_once: int = 0,
    ) -> Iterator[list[R]]:
        """Explain, write and record all images; yield the lines of each in order, none if it was done before.

        Args:
            write: writes an image's files and returns its lines; called in a thread.
            stamp_suffix: as in :meth:`make_item`.
            on_group: called with each group before it is started; may mark its items.
            measure, load, at_once: as in :func:`stream_with_pauses`.
        """
        self.processed = self.failed = self.skipped = 0
        standing = 0
        items = map(partial(self.make_item, stamp_suffix=stamp_suffix), self.inputs.stream())
        # Of a group each image is looked at.
        merged = items if self.job.group else merge_done(items)
        explained = stream_with_pauses(self.worker, merged, on_group, measure, load, at_once)
        workers = self.worker.workers

        def write_item(item: Item) -> tuple[int, list[R]]:
            return item.count, write(item)

        written = timing.measured("draw and write", write_item)
        # Where an image takes minutes, it is recorded, and told, before the next ones are done.
        with closing(map_ahead(written, explained, workers, 2 * workers, eager=True)) as done:
            for count, lines in done:
                self.processed += count
                self.skipped += 0 if lines else count
                self.failed += any(line.error for line in lines)
                standing += any(note in (RESULT_STAYS, RESULT_OUTDATED) for line in lines for note in line.notes)
                if lines:
                    self.ledger.append(lines)
                yield from repeat(lines, count)
        if not self.processed and not self.shard:
            raise NothingFoundError("standard input named no image")
        self.worker.notes += self._namesakes.notes()
        if standing:
            self.worker.notes.append(f"results of an earlier run stay for {count_of(standing, 'image')} that failed")

    def _settle(self, folder: Folder) -> Iterable[str]:
        """Return the fingerprints of the jobs whose results count; make the folder a job's if it is a shard's first.

        Raises:
            RequestError: shards would write beside the results of another job.
        """
        if self.shard is None:
            return self.previous.accepted_jobs
        with folder.gate():
            if not self.previous.record:
                facts = {"job": self.job.as_dict(), "fingerprint": self.fingerprint}
                counted = {"counted": self.worker.fingerprint_parts}
                provenance.write(folder, {**facts, **counted, **self.inputs.describe()}, self._facts_file)
                (folder.path / self._file).touch()
                del self.previous  # in a store, another shard may have been first
            check_same_job(self.previous)
        return self.previous.accepted_jobs

    def _compare(self, folder: Path) -> PreviousRun:
        """Return the last run in a folder, compared with this one."""
        record = provenance.read(folder, self._facts_file)
        return PreviousRun(self.job, self.worker.fingerprint_parts, record, self._make_fingerprint)

    def drop_others(self) -> None:
        """Drop the results of other jobs, if that is asked for and any image could be done."""
        if self.job.drop_others and self.failed < self.processed:
            self.ledger.drop_others()
        elif self.job.drop_others:
            self.worker.notes.append(NONE_DROPPED)
