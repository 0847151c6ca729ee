"""Run of ``camcli explain``: find images, skip those that are done, explain, write behind, record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import BinaryIO

from camcli.base.errors import RequestError
from camcli.base.words import shorten
from camcli.images.manifest import Manifest
from camcli.outputs import OF_ONE_MAP
from camcli.runs.explain.concepts import announce_concepts, load_or_fit_concepts
from camcli.runs.explain.redraw import draw_all, redraw
from camcli.runs.explain.writer import Formats, Writer
from camcli.runs.job.folder_name import name_folder
from camcli.runs.job.job import Job
from camcli.runs.record import ledger, provenance
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.kept import REDRAWN
from camcli.runs.record.ledger import STAMP_SEPARATOR
from camcli.runs.record.other_jobs import check_recorded_options
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.own_folder import link_latest
from camcli.runs.record.plan import Plan, make_plan
from camcli.runs.record.preflight import check_output_folder
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item
from camcli.runs.worker.worker import Worker


class Run:
    """Run of a job that writes maps of images.

    Used as a ``with`` block, which locks the output folder for this run. An invalid request raises on construction,
    before the first image. Iterating does the work and yields each image's outcomes, in order; those of an image
    that is done already are empty.

    Args:
        job: the job.
        stdin: stream for the input ``-``; default: the process's own.
        worker: the resolved job, if it was resolved before.

    Attributes:
        session: the run's session in the output folder.
        worker: the resolved job.
        total: number of images; None if they come from standard input.
        unread: counts of images in folders that are left out.
        notes: notes for the user about this run; may grow while it goes on.

    Raises:
        RequestError: the job is invalid.
        NothingFoundError: there is no image.
    """

    def __init__(self, job: Job, stdin: BinaryIO | None = None, worker: Worker | None = None) -> None:
        self.job = job
        inputs = Inputs(job, stdin)
        self.total, self.unread = inputs.total, inputs.unread
        formats = Formats.from_job(job)
        check_output_folder(job)
        check_recorded_options(job, provenance.FILE, ledger.FILE)
        self.worker = worker or Worker(job, inputs.source_factory, volumes=True)
        self.worker.shows_pixels = formats.shows_pixels
        self.notes = self.worker.notes
        self.notes += inputs.note_unread()
        self.notes += _note_unused(self.worker, inputs)
        explainer = self.worker.explainer
        if explainer.fits_concepts:
            finds = " and ".join(dict.fromkeys(row.finds for row in explainer.methods if row.fit))
            if job.shard:
                raise RequestError(
                    f"{job.method} finds {finds} in all images together, and a shard would find other ones in its own",
                    f"leave --shard out, or find {finds} in each image: -o over=picture",
                )
            self.notes.append(announce_concepts(self.total, finds))
        without = [name for name, what in OF_ONE_MAP.items() if name in job.save]
        if without and any(method.finds_concepts for method in explainer.bound_methods):
            raise RequestError(
                f"concepts have no {OF_ONE_MAP[without[0]]}: they are several maps",
                "--save contour draws a line around each concept; --save array keeps all maps",
            )
        if any(row.finds == "components" for row in explainer.methods):
            _check_components(job)
        self.session = Session(
            self.worker,
            inputs,
            Outcome,
            wanted=formats.wanted,
            name=name_folder(job, explainer.layers, [row.name for row in explainer.methods]),
            on_open=self._start,
        )
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
        yield from session.process_pictures(self._write, writer.stamp_suffix, self._stamp_group)
        self.notes += session.inputs.note_unread_late()
        if writer.formats.draws_later:
            for outcomes in draw_all(writer):
                session.failed += 1
                yield outcomes
        session.drop_others()
        session.record(
            finished=provenance.format_now(),
            pictures=session.processed,
            failed=session.failed,
            skipped=session.skipped,
            unread=self.unread.as_dict(),
            notes=list(self.notes),
            scale=writer.scale,
        )

    def _start(self) -> None:
        """Find concepts, if images share them, record that the run began, and link its folder."""
        session = self.session
        # Images that are done need no faster network.
        self.worker.compile_for(max(0, (self.total or 0) - (0 if self.job.overwrite else session.ledger.recorded)))
        if self.worker.explainer.fits_concepts:
            session.facts["concepts"] = load_or_fit_concepts(session)
            self._writer.stamp_suffix = f"{STAMP_SEPARATOR}{session.facts['concepts']['sha256'][:16]}"
        # The scale at which the images of this job were drawn last, if they were.
        self._writer.scale = session.previous.record.get("scale") if session.previous.is_own else None
        session.record(scale=self._writer.scale)
        if not self.job.out:
            link_latest(session.out)

    def _write(self, item: Item) -> list[Outcome]:
        """Write a picture's files, from its kept maps where they suffice; called in a thread."""
        if not item.skipped or not item.earlier:
            return self._writer.write(item)
        self.worker.note(REDRAWN)
        return redraw(self._writer, item)

    def _stamp_group(self, group: Sequence[Item]) -> None:
        """Stamp each image of a group with the stamps of all, since its maps depend on all of them."""
        marks = "\n".join(f"{item.source.name} {item.stamp}" for item in group)
        digest = hashlib.sha256(os.fsencode(marks)).hexdigest()[:16]
        for item in group:
            item.stamp = f"{item.stamp}{STAMP_SEPARATOR}{digest}" if all(one.stamp for one in group) else ""
            self.session.mark_done(item)


def _note_unused(worker: Worker, inputs: Inputs) -> Iterator[str]:
    """Yield notes on entries in files of targets and prompts that are not among the images, if these are known."""
    for listing in (worker.target_rule, worker.prompts and worker.prompts.per_picture):
        if (
            isinstance(listing, Manifest)
            and inputs.total is not None
            and (unused := listing.find_unused(inputs.iter_paths()))
        ):
            yield f"{listing.file} lists {len(unused)} that are not among the images: {shorten(unused, len(unused))}"


def plan_run(run: Run) -> Plan:
    """Return what a run would do, and how long it would take; nothing is written."""
    return make_plan(run.worker, run.session.inputs, run.session.out, run.session.peek(), run._writer.draw)


def _check_components(job: Job) -> None:
    """Check that what is asked of drawings means something to components, which are mixed as colours.

    Raises:
        RequestError: it does not.
    """
    if "contour" in job.save:
        raise RequestError("components have no lines: they are mixed as colours", "choose overlay, heatmap or panel")
    if job.normalize != "image":
        raise RequestError(
            f"--normalize {job.normalize} means nothing to components, whose colours have a scale of their own",
            "leave it out",
        )
