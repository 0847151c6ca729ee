"""A run that writes files and lines for each picture: takes its folder, explains, writes behind, records, and ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

from camcli.base.errors import NothingFoundError
from camcli.images.naming import stamp
from camcli.images.source import Source
from camcli.runs.job.fingerprint import fingerprint
from camcli.runs.record import ledger, provenance
from camcli.runs.record.failures import NONE_DROPPED, OUTDATED, STANDS
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.ledger import Ledger
from camcli.runs.record.lines import R
from camcli.runs.record.other_jobs import Before, check_others, note_accepted
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import paused_stream
from camcli.runs.worker.threads import ahead
from camcli.runs.worker.worker import Worker


class Session(Generic[R]):
    """A run under way, in a ``with`` block, which holds the output folder for this run alone.

    Args:
        worker: the job resolved.
        inputs: its pictures.
        kind: what a line is, which is a dataclass.
        file: where lines are, in the output folder.
        facts_file: where the run is recorded, likewise.
        of: makes the fingerprint of the parts that the worker counted.
        kept: which of a picture's files must still be there for it to count as done; default: all.
        begin: is called when the folder is held, and records the run's beginning.

    Attributes:
        id: of the run, in its lines.
        out: the output folder.
        fingerprint: of the job, in its lines.
        facts: what is recorded of the run, since the folder is held.
        ledger, folder: of the output folder, likewise.
        met, failed, skipped: pictures so far; what is done was skipped.
    """

    def __init__(
        self,
        worker: Worker,
        inputs: Inputs,
        kind: Callable[..., R],
        *,
        file: str = ledger.FILE,
        facts_file: str = provenance.FILE,
        of: Callable[[Mapping[str, str]], str] = fingerprint,
        kept: Callable[[dict[str, str]], Sequence[str]] = lambda files: [*files.values()],
        begin: Callable[[], None],
    ) -> None:
        self.worker, self.inputs = worker, inputs
        self.job, self.out = worker.job, Path(worker.job.out)
        self.id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.fingerprint = of(worker.counted)
        self._kind = kind
        self._file, self._facts_file = file, facts_file
        self._of, self._kept, self._begin = of, kept, begin
        self.facts: dict[str, Any] = {}
        self.met = self.failed = self.skipped = 0
        self._held = ExitStack()

    def __enter__(self) -> Session[R]:
        with ExitStack() as held:
            opened = Ledger(
                self.out,
                self.fingerprint,
                self._kind,
                self._kept,
                file=self._file,
                durable=self.job.durable,
                accepted=lambda: self.before.accepted,
            )
            self.ledger = held.enter_context(opened)
            self.folder = opened.folder
            check_others(opened, self.before, None if self.inputs.total is None else self.inputs.names)
            accepted, notes = note_accepted(self.before, opened.met)
            self.worker.notes += notes
            self.facts = {"run": self.id, "began": provenance.now(), **provenance.facts(self.worker), **accepted}
            self._begin()
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    @cached_property
    def before(self) -> Before:
        """The last run in the output folder; to be read when that is held."""
        return Before(self.job, self.worker.counted, provenance.read(self.out, self._facts_file), self._of)

    def record(self, **more: Any) -> None:
        """Write down the facts, and more that hold now."""
        provenance.write(self.folder, {**self.facts, **more}, self._facts_file)

    def item(self, source: Source, beside: str = "") -> Item:
        """A picture on its way.

        Args:
            source: the picture.
            beside: what its files depend on that is not its own, for its stamp.
        """
        mark = stamp(source.path)
        mark += beside if mark else ""
        return Item(source, stamp=mark, skipped=self.is_done(source.name, mark))

    def is_done(self, name: str, mark: str) -> bool:
        """Whether a picture need not be done."""
        return not self.job.overwrite and self.ledger.done(name, mark)

    def about(self, item: Item) -> dict[str, Any]:
        """What a line says of any picture."""
        return {
            "source": str(item.source.path),
            "name": item.source.name,
            "page": item.source.page,
            "stamp": item.stamp,
            "job": self.fingerprint,
            "run": self.id,
            "untrained": self.worker.network.untrained,
        }

    def note_earlier(self, item: Item, own_stamp: bool = True) -> tuple[str, ...]:
        """Note that a picture which failed keeps the result of an earlier run, if it does.

        Args:
            item: the picture.
            own_stamp: its stamp changes with itself alone.
        """
        if not self.ledger.stands(item.source.name):
            return ()
        return (OUTDATED if own_stamp and self.ledger.changed(item.source.name, item.stamp) else STANDS,)

    def pictures(
        self,
        write: Callable[[Item], list[R]],
        beside: str = "",
        begin: Callable[[Sequence[Item]], None] = lambda group: None,
    ) -> Iterator[list[R]]:
        """Explain all pictures, write behind, and record; gives the lines of each in order, none if it was done before.

        Args:
            write: writes a picture's files and gives its lines; in a thread.
            beside: as in :meth:`item`.
            begin: is told each group before it is begun, and may mark its items.
        """
        self.met = self.failed = self.skipped = 0
        standing = 0
        items = map(partial(self.item, beside=beside), self.inputs.stream())
        explained = paused_stream(self.worker, items, begin)
        workers = self.worker.workers
        for lines in ahead(write, explained, workers, 2 * workers):
            self.met += 1
            self.skipped += not lines
            self.failed += any(line.error for line in lines)
            standing += any(note in (STANDS, OUTDATED) for line in lines for note in line.notes)
            if lines:
                self.ledger.append(lines)
            yield lines
        if not self.met:
            raise NothingFoundError("standard input named no picture")
        if standing:
            self.worker.notes.append(f"{standing} picture(s) that failed keep the results of an earlier run")

    def drop_others(self) -> None:
        """Drop the results of other jobs, if that is asked for and any picture could be done."""
        if self.job.drop_others and self.failed < self.met:
            self.ledger.drop_others()
        elif self.job.drop_others:
            self.worker.notes.append(NONE_DROPPED)
