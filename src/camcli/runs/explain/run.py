"""A job from beginning to end: find, skip what is done, explain, write behind, record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import BinaryIO

from camcli.base.words import several
from camcli.images.manifest import Listing
from camcli.runs.explain.concepts import announce_concepts, share_concepts
from camcli.runs.explain.redraw import MATES, draw_all
from camcli.runs.explain.writer import Formats, Writer
from camcli.runs.job.job import Job
from camcli.runs.record import provenance
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.preflight import check_apart
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item
from camcli.runs.worker.worker import Worker


class Run:
    """A job under way.

    Made in a ``with`` block, which holds the output folder for this run alone. Everything that is wrong with the
    request is found while it is made, before the first picture. Iterating does the work and yields each picture's
    outcomes, in order; those of a picture that is done already are empty.

    Args:
        job: what is asked.
        stdin: what the input ``-`` reads; default: the process's own.

    Attributes:
        session: what lies in the output folder, and this run's part in it.
        worker: the job resolved.
        total: the number of pictures; None if they come from standard input.
        unread: what is in folders and is left out though it is a picture.
        notes: what the user must know about this run; may grow while it goes on.

    Raises:
        RequestError: anything in the job that cannot be.
        NothingFoundError: there is no picture.
    """

    def __init__(self, job: Job, stdin: BinaryIO | None = None) -> None:
        self.job = job
        inputs = Inputs(job, stdin)
        self.total, self.unread = inputs.total, inputs.unread
        formats = Formats.of(job)
        check_apart(job)
        self.worker = Worker(job, inputs.known, self.total)
        self.worker.shows_pixels = formats.show_pixels
        self.notes = self.worker.notes
        self.notes += inputs.notes()
        self.notes += _note_unused(self.worker, inputs)
        if self.worker.explainer.fits:
            self.notes.append(announce_concepts(self.total))
        self.session = Session(self.worker, inputs, Outcome, kept=formats.needed, begin=self._begin)
        self._writer = Writer(self.session, formats)

    def __enter__(self) -> Run:
        self.session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[list[Outcome]]:
        session, writer = self.session, self._writer
        yield from session.pictures(writer.write, writer.beside, self._begin_group)
        self.notes += session.inputs.late_notes()
        if writer.formats.later:
            for outcomes in draw_all(writer):
                session.failed += 1
                yield outcomes
        session.drop_others()
        session.record(
            finished=provenance.now(),
            pictures=session.met,
            failed=session.failed,
            skipped=session.skipped,
            unread=self.unread.as_dict(),
            notes=list(self.notes),
            scale=writer.scale,
        )

    def _begin(self) -> None:
        """Find concepts, if pictures share them, and record that the run began."""
        session = self.session
        if self.worker.explainer.fits:
            session.facts["concepts"] = share_concepts(session)
            self._writer.beside = f"{MATES}{session.facts['concepts']['sha256'][:16]}"
        # At which scale the pictures of this job were drawn last, if they were.
        self._writer.scale = session.before.record.get("scale") if session.before.own else None
        session.record(scale=self._writer.scale)

    def _begin_group(self, group: Sequence[Item]) -> None:
        """Mark each picture of a group with all their marks, since its maps depend on all of them."""
        marks = "\n".join(f"{item.source.name} {item.stamp}" for item in group)
        digest = hashlib.sha256(os.fsencode(marks)).hexdigest()[:16]
        for item in group:
            item.stamp = f"{item.stamp}{MATES}{digest}" if all(one.stamp for one in group) else ""
            item.skipped = self.session.is_done(item.source.name, item.stamp)


def _note_unused(worker: Worker, inputs: Inputs) -> Iterator[str]:
    """Note what files of targets and prompts list that is not among the pictures, if these are known."""
    for listing in (worker.target, worker.prompts and worker.prompts.own):
        if isinstance(listing, Listing) and inputs.total is not None and (unused := listing.unused(inputs.paths())):
            yield f"{listing.file} lists {len(unused)} that are not among the pictures: {several(unused, len(unused))}"
