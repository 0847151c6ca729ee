"""Run of ``camcli prompts``: compare the maps of several prompts in each image, and over all images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import compress
from operator import not_
from types import TracebackType

from camcli.base.errors import PictureError
from camcli.base.words import count_of, shorten
from camcli.images import describe_page
from camcli.images.source import PictureSource
from camcli.metrics import similarity
from camcli.models.adapters import templates
from camcli.runs.job.fingerprint import hash_looks
from camcli.runs.job.folder_name import name_folder
from camcli.runs.prompts import PromptComparison, PromptJob
from camcli.runs.prompts.ask import PromptSet, check_one_map, check_rivals
from camcli.runs.prompts.compare import find_explained
from camcli.runs.prompts.sheet import PromptHeatmaps, SheetPicture, draw_summary_sheet
from camcli.runs.prompts.summary import Summary, find_least_alike, summarize
from camcli.runs.prompts.writer import STEM, Writer
from camcli.runs.record import provenance
from camcli.runs.record.failures import RESUME_HINT, make_write_error, raise_if_fatal
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.kept import REDRAWN, can_redraw, find_source
from camcli.runs.record.other_jobs import check_recorded_options
from camcli.runs.record.plan import Plan, make_plan
from camcli.runs.record.preflight import check_output_folder, refuse_store
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item
from camcli.runs.worker.map_similarity import none_to_nan
from camcli.runs.worker.pipeline import stream_results
from camcli.runs.worker.worker import Worker

FACTS_FILE, LINES_FILE = f"{STEM}.json", f"{STEM}.jsonl"
# Descriptions of the numbers, for readers of the files.
MEANINGS = {
    **similarity.MEASURE_MEANINGS,
    "deviation": (
        "of the maps as drawn (positive values, the maximum of each map 1), at the model's input size, pixel by pixel "
        "over the prompts; divided by their number"
    ),
    "best": "in how many images the prompt's score is the highest, of those in which every prompt has a map",
}


class PromptRun:
    """Run that compares prompts image by image, and over all images.

    Used as a ``with`` block, which locks the output folder for this run. An invalid request raises on construction.
    Iterating does the work and yields each image's line in a list of one, which is empty if it was done before; then
    :meth:`finish` sums up. An image's line is in ``prompts.jsonl``, and its files are written, before it is yielded.
    Memory does not grow with the images.

    Args:
        prompt_job: the job.

    Attributes:
        session: the run's session in the output folder.
        prompt_set: the prompts, with their texts and pairs.
        prompts: all prompts, in order.
        worker: the resolved job.
        total: number of images; None if they come from standard input.
        notes: notes for the user; may grow until all is written.
        files: files that belong to no single image, relative to the output folder.
        unread: counts of images in folders that are left out.

    Raises:
        RequestError: the request is invalid.
        NothingFoundError: there is no image.
    """

    def __init__(self, prompt_job: PromptJob) -> None:
        self.prompt_job = prompt_job
        refuse_store(prompt_job.job, "prompts")
        inputs = Inputs(prompt_job.job)
        self.total, self.unread = inputs.total, inputs.unread
        check_output_folder(prompt_job.job)
        self.prompt_set = PromptSet.from_job(prompt_job)
        self.prompts = self.prompt_set.prompts
        self.job = replace(prompt_job.job, text=self.prompts, texts="", target=("all",))
        check_recorded_options(self.job, FACTS_FILE, LINES_FILE)
        self.worker = Worker(self.job, inputs.source_factory, self.total)
        check_one_map(self.worker.explainer)
        check_rivals(self.worker.explainer, self.prompts)
        self.session = Session(
            self.worker,
            inputs,
            PromptComparison,
            file=LINES_FILE,
            facts_file=FACTS_FILE,
            make_fingerprint=self.prompt_set.compute_fingerprint,
            wanted=hash_looks(self.job),
            name=name_folder(
                prompt_job.job,
                self.worker.explainer.layers,
                [self.worker.explainer.methods[0].name],
                STEM,
                prompt_job.paraphrases,
            ),
            on_open=self._start,
        )
        self._writer = Writer(self.session, self.prompt_set)
        self.notes = self.worker.notes
        self.notes += inputs.note_unread()
        self.files: list[str] = []

    def __enter__(self) -> PromptRun:
        self.session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[list[PromptComparison]]:
        session = self.session
        yield from session.process_pictures(self._writer.write)
        session.drop_others()
        self.notes += session.inputs.note_unread_late()
        session.facts |= {"pictures": session.processed, "failed": session.failed, "unread": self.unread.as_dict()}

    def finish(self) -> Summary:
        """Summarize all images of this job in the output folder, also of earlier runs, and write the summary.

        Raises:
            OutputError: it cannot be written.
            PictureError: no image could be done.
        """
        whole = summarize(
            self._iter_records,
            self.prompts,
            self.prompt_set.text_indices,
            self.prompt_job.measure,
            self.prompt_job.pictures,
        )
        if not whole.pictures:
            raise PictureError("no image could be processed, so there is nothing to summarise")
        stem = f"{STEM}.untrained" if self.worker.network.untrained else STEM
        name = f"{stem}.png"
        drawn = self._draw_summary(whole)
        try:
            self.session.folder.write(name, drawn)
            for other in {f"{STEM}.png", f"{STEM}.untrained.png"} - {name}:
                (self.session.out / other).unlink(missing_ok=True)
        except OSError as error:
            raise make_write_error(str(self.session.out), error, RESUME_HINT) from error
        unstable = [
            {"source": one.source, "page": one.page, "agreement": one.agreement, "deviation": one.deviation}
            for one in whole.unstable
        ]
        facts = {**asdict(replace(whole, unstable=())), "measure": self.prompt_job.measure, "unstable": unstable}
        self.session.record(summary=facts, notes=self.notes, finished=provenance.format_now())
        self.files = [LINES_FILE, name, FACTS_FILE]
        return whole

    def _start(self) -> None:
        """Record that the run began."""
        self.session.facts |= {
            "fingerprint": self.session.fingerprint,
            "untrained": self.worker.network.untrained,
            "texts": list(self.prompt_set.texts),
            "paraphrases": list(templates.expand_templates(self.prompt_job.paraphrases)),
            "numbers": MEANINGS,
        }
        self.session.record()

    # ---- all images

    def _iter_records(self) -> Iterator[PromptComparison]:
        """Iterate over the lines of images of this job that have any map, also of earlier runs."""
        return (record for [record] in self.session.ledger.iter_pictures() if record.prompts)

    def _draw_summary(self, whole: Summary) -> bytes:
        pictures = f"{whole.pictures} image{'s' * (whole.pictures != 1)}"
        layers = "+".join(self.worker.explainer.layers) or "the input"
        heading = [
            f"{self.worker.network.name}, {self.worker.explainer.methods[0].name} at {layers}",
            f"{len(self.prompts)} prompts in {pictures}",
        ]
        unstable = [
            (
                record,
                seen,
                find_least_alike(none_to_nan(record.similarity[self.prompt_job.measure]), self.prompt_set.pairs),
            )
            for record, seen in self._read_or_explain(whole.unstable)
        ]
        # The sheet is the same whether maps were kept or made.
        notes = [note for note in self.notes if note != REDRAWN]
        return draw_summary_sheet(whole, unstable, heading, self.prompt_job.measure, notes, self._writer.style)

    def _read_or_explain(
        self, records: Sequence[PromptComparison]
    ) -> Iterator[tuple[PromptComparison, SheetPicture | None]]:
        """Yield each line with its image and maps, kept or made again; with None where that fails."""
        gone: list[str] = []
        kept = [can_redraw(self.session.folder, [record]) for record in records]
        again = map(_make_item, compress(records, map(not_, kept)))
        items = stream_results(self.worker, again)
        for record, is_kept in zip(records, kept, strict=True):
            try:
                seen = self._writer.read_kept(record) if is_kept else _read_explained(record, next(items))
            except Exception as error:  # any error is this image's alone
                raise_if_fatal(error, str(self.session.out))
                gone.append(describe_page(record.source, record.page))
                seen = None
            yield record, seen
        if gone:
            self.notes.append(
                f"{count_of(len(gone), 'image')} could not be read again for the summary: {shorten(gone, len(gone))}"
            )


def _make_item(record: PromptComparison) -> Item:
    """Make the item of a compared image, to explain it again."""
    try:
        return Item(find_source(record))
    except PictureError as error:
        return Item(PictureSource(record.source, record.name, page=record.page), error=error)


def _read_explained(record: PromptComparison, item: Item) -> SheetPicture:
    """Return a compared image that was explained again, with its maps.

    Raises:
        PictureError: that failed.
    """
    if item.error or item.picture is None:
        raise item.error or PictureError("it could not be explained again")
    heatmaps = PromptHeatmaps.from_explanations(find_explained(item.results), item.picture.view)
    return SheetPicture.from_picture(record, item.picture, heatmaps)


def plan_run(run: PromptRun) -> Plan:
    """Return what a run would do, and how long it would take without its sheets; nothing is written."""
    return make_plan(run.worker, run.session.inputs, run.session.out, run.session.peek())
