"""The maps of several prompts in each picture, compared: do other words for a thing point elsewhere?"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from camcli.base.errors import PictureError
from camcli.base.words import several
from camcli.engine.explanation import Explanation
from camcli.images import page_of
from camcli.images.naming import fit_path, stamp
from camcli.images.source import Source
from camcli.metrics import similarity
from camcli.models.adapters import templates
from camcli.outputs.style import Style
from camcli.runs.prompts import Compared, Inquiry
from camcli.runs.prompts.ask import Wording, check_one_map, check_rivals
from camcli.runs.prompts.compare import compare, find_explained
from camcli.runs.prompts.sheet import Heats, Seen, picture_sheet, summary_sheet
from camcli.runs.prompts.summary import Summary, least_alike, summary, with_nan
from camcli.runs.record import provenance
from camcli.runs.record.failures import GO_ON_LATER, cannot_write, check_room, reason
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.preflight import check_apart
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import stream
from camcli.runs.worker.worker import Worker

STEM = "prompts"
FACTS, LINES = f"{STEM}.json", f"{STEM}.jsonl"
SUFFIXES = {"sheet": f".{STEM}.png", "array": f".{STEM}.npz"}
# What the numbers are, for those who find them in a file.
MEANINGS = {
    **similarity.MEANINGS,
    "deviation": "of what is drawn (values above zero, each map's strongest 1), at the model's input size, pixel by "
    "pixel over the prompts; divided by their number",
    "best": "in how many pictures the prompt's score is the highest, of those in which every prompt has a map",
}


class Sensitivity:
    """The prompts of an inquiry, compared picture by picture, and over all pictures.

    Made in a ``with`` block, which holds the output folder for this run alone. Everything that is wrong with the
    request is found while it is made. Iterating does the work and yields each picture's line in a list of one, which
    is empty if it was done before; then :meth:`finish` sums up. A picture's line is in ``prompts.jsonl``, and its files
    are written, before it is yielded. What is held does not grow with the pictures.

    Args:
        inquiry: what is asked.
        stdin: what the input ``-`` reads; default: the process's own.

    Attributes:
        session: what lies in the output folder, and this run's part in it.
        wording: the prompts.
        prompts: all of them, in order.
        worker: the model, resolved.
        total: the number of pictures; None if they come from standard input.
        notes: what the user must know; grows until all is written.
        files: what belongs to no picture alone, relative to the output folder.
        unread: what is in folders and is left out though it is a picture.

    Raises:
        RequestError: anything in the request that cannot be.
        NothingFoundError: there is no picture.
    """

    def __init__(self, inquiry: Inquiry, stdin: BinaryIO | None = None) -> None:
        self.inquiry = inquiry
        inputs = Inputs(inquiry.job, stdin)
        self.total, self.unread = inputs.total, inputs.unread
        check_apart(inquiry.job)
        self.wording = Wording.of(inquiry)
        self.prompts = self.wording.prompts
        self.job = replace(inquiry.job, text=self.prompts, texts="", target=("all",))
        self.worker = Worker(self.job, inputs.known, self.total)
        check_one_map(self.worker.explainer)
        check_rivals(self.worker.explainer, self.prompts)
        self.session = Session(
            self.worker,
            inputs,
            Compared,
            file=LINES,
            facts_file=FACTS,
            of=self.wording.fingerprint,
            begin=self._begin,
        )
        self.notes = self.worker.notes
        self.notes += inputs.notes()
        self.files: list[str] = []

    def __enter__(self) -> Sensitivity:
        self.session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[list[Compared]]:
        session = self.session
        yield from session.pictures(self._records)
        session.drop_others()
        self.notes += session.inputs.late_notes()
        session.facts |= {"pictures": session.met, "failed": session.failed, "unread": self.unread.as_dict()}

    def finish(self) -> Summary:
        """Sum up all pictures of this inquiry in the output folder, those of earlier runs too, and write that.

        Raises:
            OutputError: it cannot be written.
            PictureError: there is nothing to sum up.
        """
        whole = summary(self._all, self.prompts, self.wording.texts, self.inquiry.measure, self.inquiry.pictures)
        if not whole.pictures:
            raise PictureError("no picture could be done, so there is nothing to sum up")
        stem = f"{STEM}.untrained" if self.worker.network.untrained else STEM
        name = f"{stem}.png"
        drawn = self._summary_sheet(whole)
        try:
            self.session.folder.write(name, drawn)
            for other in {f"{STEM}.png", f"{STEM}.untrained.png"} - {name}:
                (self.session.out / other).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.job.out, error, GO_ON_LATER) from error
        unstable = [
            {"source": one.source, "page": one.page, "agreement": one.agreement, "deviation": one.deviation}
            for one in whole.unstable
        ]
        said = {**asdict(replace(whole, unstable=())), "measure": self.inquiry.measure, "unstable": unstable}
        self.session.record(summary=said, notes=self.notes, finished=provenance.now())
        self.files = [LINES, name, FACTS]
        return whole

    def _begin(self) -> None:
        """Record that the run began."""
        self.session.facts |= {
            "fingerprint": self.session.fingerprint,
            "untrained": self.worker.network.untrained,
            "texts": list(self.wording.words),
            "paraphrases": list(templates.templates(self.inquiry.paraphrases)),
            "numbers": MEANINGS,
        }
        self.session.record()

    # ---- picture by picture

    def _records(self, item: Item) -> list[Compared]:
        """Compare and write; in a writer thread."""
        if item.skipped:
            return []
        began = time.perf_counter()
        try:
            if item.error:
                raise item.error
            record = self._done(item)
        except Exception as error:  # whatever it is, it is this picture's, and the others go on
            check_room(error, self.job.out)
            notes = self.session.note_earlier(item)
            record = Compared(**self.session.about(item), error=reason(error), notes=notes)
        item.drop()
        return [replace(record, seconds=round(item.seconds + time.perf_counter() - began, 4))]

    def _done(self, item: Item) -> Compared:
        """Compare a picture's maps, and write its files."""
        explained = find_explained(item.results)
        assert item.picture is not None  # without a picture there is no explanation
        heats = Heats.of(explained, item.picture.view)
        record = compare(self.wording, item, explained, heats, self.session.about(item))
        files, sizes = self._write(Seen.of(record, item.picture, heats), explained)
        return replace(record, files=files, sizes=sizes)

    def _write(self, seen: Seen, explained: dict[int, Explanation]) -> tuple[dict[str, str], dict[str, int]]:
        """Write a picture's files; what they are called, and how long each is."""
        stem = f"{seen.record.name}.untrained" if seen.record.untrained else seen.record.name
        files = {kind: fit_path(stem, SUFFIXES[kind]) for kind in dict.fromkeys(self.job.save)}
        sizes: dict[str, int] = {}
        for kind, file in files.items():
            content = self._sheet(seen) if kind == "sheet" else self._arrays(seen.heats, explained)
            self.session.folder.write(file, content)
            sizes[kind] = len(content)
        return files, sizes

    def _sheet(self, seen: Seen) -> bytes:
        record = seen.record
        heading = [self.worker.network.name, f"{record.method} at {record.layer or 'the input'}"]
        return picture_sheet(seen, heading, self.wording.words if self.wording.grouped else (), self._style)

    def _arrays(self, heats: Heats, explained: dict[int, Explanation]) -> bytes:
        """The maps as the method gave them, and mean and deviation, as NumPy's ``.npz``."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            prompts=np.array([self.prompts[number] for number in explained]),
            maps=np.stack([one.map for one in explained.values()]),
            mean=heats.mean,
            deviation=heats.deviation,
        )
        return file.getvalue()

    @property
    def _style(self) -> Style:
        return Style(self.job.colormap, self.job.alpha, "image", untrained=self.worker.network.untrained)

    # ---- all pictures

    def _all(self) -> Iterator[Compared]:
        """Every picture of this inquiry that has a map at all, also of earlier runs."""
        return (record for [record] in self.session.ledger.pictures() if record.prompts)

    def _summary_sheet(self, whole: Summary) -> bytes:
        pictures = f"{whole.pictures} picture{'s' * (whole.pictures != 1)}"
        layers = "+".join(self.worker.explainer.layers) or "the input"
        heading = [
            f"{self.worker.network.name}, {self.worker.explainer.methods[0].name} at {layers}",
            f"{len(self.prompts)} prompts in {pictures}",
        ]
        unstable = [
            (record, seen, least_alike(with_nan(record.similarity[self.inquiry.measure]), self.wording.pairs))
            for record, seen in self._seen_again(whole.unstable)
        ]
        return summary_sheet(whole, unstable, heading, self.inquiry.measure, self.notes, self._style)

    def _seen_again(self, records: Sequence[Compared]) -> Iterator[tuple[Compared, Seen | None]]:
        """Pictures that were compared, explained once more; nothing where that cannot be."""
        gone: list[str] = []
        for record, item in zip(records, stream(self.worker, map(_again, records)), strict=True):
            explained = {number: one for number, one in enumerate(item.results) if isinstance(one, Explanation)}
            if item.picture is None or not explained:
                gone.append(page_of(record.source, record.page))
                yield record, None
            else:
                yield record, Seen.of(record, item.picture, Heats.of(explained, item.picture.view))
        if gone:
            self.notes.append(
                f"{len(gone)} picture(s) could not be seen again for the summary: {several(gone, len(gone))}"
            )


def _again(record: Compared) -> Item:
    """A picture that was compared, to be explained once more."""
    source = Source(Path(record.source), record.name, page=record.page)
    changed = stamp(source.path) != record.stamp
    return Item(source, error=PictureError("the picture was changed since") if changed else None)
