"""Run of ``camcli evaluate``: metrics of the maps of each image, of controls, and a table over all images."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from types import TracebackType

from camcli.base.errors import PictureError, RequestError
from camcli.base.words import count_of
from camcli.engine.explainer import Explainer
from camcli.engine.setup import make_score
from camcli.images.objects.boxes import Boxes
from camcli.images.objects.masks import Masks
from camcli.metrics import CONTROLS, DEFINITIONS
from camcli.metrics.bind import BoundMetric, bind_metrics
from camcli.runs.evaluate import EvaluateJob, Evaluation
from camcli.runs.evaluate.measure import Finding, Measurer
from camcli.runs.evaluate.plots import check_can_plot, write_plots
from camcli.runs.evaluate.records import EVALUATION, FACTS_FILE, LINES_FILE, STEM
from camcli.runs.evaluate.stored import StoredMaps
from camcli.runs.evaluate.table import write_table
from camcli.runs.evaluate.tabulate import Tables, tabulate
from camcli.runs.job.fingerprint import compute_fingerprint
from camcli.runs.job.folder_name import name_folder
from camcli.runs.record import provenance
from camcli.runs.record.failures import format_error
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.other_jobs import check_recorded_options
from camcli.runs.record.plan import Plan, make_plan
from camcli.runs.record.preflight import check_output_folder, refuse_store
from camcli.runs.record.rows import check_rows_file
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import Load
from camcli.runs.worker.worker import Worker
from camcli.targets.labels import find_whole_name
from camcli.targets.target import Score


class EvaluateRun:
    """Run that evaluates maps image by image, and over all images.

    Used as a ``with`` block, which locks the output folder for this run. An invalid request raises on construction.
    Iterating does the work and yields each image's lines, none if it was done before; then :meth:`finish` makes the
    table, unless the run is of one shard. An image's lines are in ``evaluation.jsonl`` before they are yielded.

    Args:
        evaluate_job: the job.

    Attributes:
        metrics: the metrics.
        objects: where objects lie, if that is known.
        measured: the number that is read from changed images: probability, or score.
        passes: about how many changed images go through the network for each image and class.
        worker: the resolved job.
        session: the run's session in the output folder.
        stored: maps of a finished run that are evaluated; None if the images are explained.
        total: number of images; None if they come from standard input.
        unread: counts of images in folders that are left out.
        notes: notes for the user; may grow until all is written.
        plots: plots that were drawn; known after :meth:`finish`.

    Raises:
        RequestError: the request is invalid.
        NothingFoundError: there is no image.
    """

    def __init__(self, evaluate_job: EvaluateJob) -> None:
        self.evaluate_job = evaluate_job
        job = evaluate_job.job
        refuse_store(job, "evaluate")
        if evaluate_job.to:
            check_rows_file(Path(evaluate_job.to))
        if evaluate_job.plots:
            check_can_plot()
        for flag, given in (("--boxes", evaluate_job.boxes), ("--masks", evaluate_job.masks)):
            if given and not Path(given).exists():
                raise RequestError(f"{flag}: there is no {given!r}", "give the path of what says where objects lie")
        self.metrics = bind_metrics(
            evaluate_job.metrics, evaluate_job.settings, bool(evaluate_job.boxes or evaluate_job.masks)
        )
        self.stored = StoredMaps(Path(evaluate_job.maps), job) if evaluate_job.maps else None
        inputs = self.stored or Inputs(job)
        self.total = inputs.total
        self.unread = inputs.unread
        check_output_folder(job)
        check_recorded_options(job, FACTS_FILE, LINES_FILE)
        self.worker = Worker(job, inputs.source_factory, self.total)
        self.notes = self.worker.notes
        check_classes(self.worker.explainer)
        if self.stored:
            self.stored.check_model(self.worker)
            self.notes += self.stored.describe_incomplete()
        self.objects = self._read_objects(inputs)
        self.measured = choose_measured(evaluate_job.measured, self.worker)
        self.passes = count_passes(self.metrics, self.worker)
        self._measure = Measurer(self.worker, self.metrics, self.objects, self._make_score())
        self.session = Session(
            self.worker,
            inputs,
            EVALUATION.line_type,
            file=LINES_FILE,
            facts_file=FACTS_FILE,
            make_fingerprint=self._compute_fingerprint,
            wanted={},
            name=self._name_folder(),
            on_open=self._start,
        )
        self.notes += inputs.note_unread()
        self.plots: list[Path] = []

    def __enter__(self) -> EvaluateRun:
        self.session.__enter__()
        left = max(0, (self.total or 0) - (0 if self.worker.job.overwrite else self.session.ledger.recorded))
        self.worker.compile_for(left * self.passes, "changed images")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[list[Evaluation]]:
        session = self.session
        # Where the changed images of a few fill batches, progress is seen, and kept, image by image.
        at_once = max(1, self.worker.batch_size // max(1, self.passes))
        yield from session.process_pictures(self._make_lines, measure=self._measure, load=self.load, at_once=at_once)
        session.drop_others()
        self.notes += session.inputs.note_unread_late()
        session.facts |= {"pictures": session.processed, "failed": session.failed, "skipped": session.skipped}
        if session.shard:
            session.record(notes=self.notes, finished=provenance.format_now())

    def finish(self) -> Tables:
        """Make the tables of all images of this job in the output folder, also of earlier runs, and record them.

        Raises:
            OutputError: they cannot be written.
            PictureError: no image could be done.
        """
        tables = tabulate(self.session.ledger.iter_pictures(), self.worker.explainer.layers, self.worker.job.seed)
        self.session.record(**tables.as_facts(), notes=self.notes, finished=provenance.format_now())
        if self.evaluate_job.to:
            write_table(tables.rows, Path(self.evaluate_job.to))
        about = f"{self.worker.network.name}, {count_of(tables.images, 'image')}"
        self.plots = write_plots(tables.rows, tables.curves, about, self.session.out, self.evaluate_job.plots)
        return tables

    @property
    def load(self) -> Load | None:
        """Function that returns an image's stored maps; None if the images are explained."""
        return self.stored.load if self.stored else None

    def plan(self) -> Plan:
        """Return what the run would do, and how long it would take; nothing is written."""
        session = self.session
        is_done = session.peek()
        return make_plan(self.worker, session.inputs, session.out, is_done, measure=self._measure, load=self.load)

    # ---- before the first image

    def _read_objects(self, inputs: Inputs) -> Boxes | Masks | None:
        asked = self.evaluate_job
        if not asked.boxes and not asked.masks:
            return None
        labels = self.worker.network.labels
        folders = [Path(given) for given in self.worker.job.inputs if Path(given).is_dir()]
        objects = (
            Boxes(Path(asked.boxes), labels.find, partial(find_whole_name, labels), folders)
            if asked.boxes
            else Masks(Path(asked.masks), folders)
        )
        self.notes += objects.notes
        if self.total is not None:
            file, what = asked.boxes or asked.masks, "boxes" if asked.boxes else "masks"
            listed = objects.count_listed(inputs.iter_sources())
            if not listed and not self.worker.job.shard:
                raise RequestError(
                    f"{file} has {what} of none of the {self.total} images",
                    f"it names {objects.describe_unmatched()}: write paths as they are given, or relative to {file}",
                )
            if listed < self.total:
                self.notes.append(f"{file} has {what} of {listed} of the {self.total} images")
        return objects

    def _make_score(self) -> Score | None:
        network = self.worker.network
        return make_score("probability", (), False, network, network.activation) if self.measured != "score" else None

    def _compute_fingerprint(self, parts: Mapping[str, str]) -> str:
        """Return 16 hex digits that change with anything that could change an image's lines."""
        settings = [[metric.row.name, metric.setting] for metric in self.metrics]
        objects = self.objects.digest if self.objects else ""
        content = [compute_fingerprint(parts), settings, objects, self.measured, self.worker.job.seed, DEFINITIONS]
        content += [self.stored.facts["fingerprint"]] if self.stored else []
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def _name_folder(self) -> str:
        explainer, asked = self.worker.explainer, self.evaluate_job
        more = [
            *([Path(asked.maps).name] if asked.maps else []),
            *asked.metrics,
            *asked.settings,
            *(Path(one).stem for one in (asked.boxes, asked.masks) if one),
        ]
        return name_folder(asked.job, explainer.layers, [one.name for one in explainer.methods], STEM, more)

    def _start(self) -> None:
        """Record that the run began."""
        self.session.facts |= {
            "fingerprint": self.session.fingerprint,
            "untrained": self.worker.network.untrained,
            "measured": self.measured,
            "boxes": self.evaluate_job.boxes,
            "masks": self.evaluate_job.masks,
            "metrics": {
                one.row.name: {
                    "meaning": one.row.summary,
                    "source": one.row.source,
                    "better": one.row.better,
                    "favours": {**one.row.favours},
                    "setting": one.setting,
                }
                for one in self.metrics
            },
        }
        self.session.record()

    # ---- image by image

    def _make_lines(self, item: Item) -> list[Evaluation]:
        """Return the lines of an image, none if it was done before; called in a thread."""
        if item.skipped:
            return []
        fields = self.session.make_line_fields(item)
        errors = [item.error] if item.error else [one for one in item.results if isinstance(one, PictureError)]
        item.release_pixels()
        found = product(item.found or (), self.metrics)
        count = len(item.found or ()) * len(self.metrics) + len(errors)
        parts = iter(f"{number}/{count}" for number in range(1, count + 1))
        lines = [self._make_line({**fields, "part": next(parts)}, one, metric) for one, metric in found]
        notes = self.session.note_earlier(item) if errors else ()
        return lines + [
            Evaluation(**{**fields, "part": next(parts)}, error=format_error(error), notes=notes) for error in errors
        ]

    def _make_line(self, fields: dict[str, object], one: Finding, metric: BoundMetric) -> Evaluation:
        value, explained = one.values[metric.row.name], one.explanation
        defined = math.isfinite(value)
        return Evaluation(
            **fields,  # type: ignore[arg-type]
            index=explained.index,
            label=explained.label,
            score=explained.score,
            probability=explained.probability,
            map=one.name,
            kind=one.kind,
            layer="" if one.kind == "control" else explained.layer,
            metric=metric.row.name,
            setting=metric.setting,
            measured=self.measured if "score_of" in metric.given_names else "",
            value=float(f"{value:.6g}") if defined else None,
            curve=tuple(float(f"{point:.4g}") for point in one.curves.get(metric.row.name, ())) if defined else (),
            undefined="" if defined else metric.row.undefined or "it has no finite value here",
        )


def check_classes(explainer: Explainer) -> None:
    """Check that maps explain the scores of classes, one map for each.

    Raises:
        RequestError: they do not.
    """
    setup = explainer.setup
    names = ", ".join(row.name for row in explainer.methods)
    if setup.output_spec.task in ("segment", "detect"):
        what = "detects objects" if setup.output_spec.task == "detect" else "scores every pixel"
        raise RequestError(
            f"the model {what}, and only maps of models with one score for each class can be evaluated",
            "choose a classifier",
        )
    if setup.explains_channels or explainer.top_channels or any(one.finds_concepts for one in setup.bound_methods):
        raise RequestError(
            f"the maps of {names} here do not explain a class's score, which metrics read",
            "name a class as --target, and a method that explains it, such as gradcam",
        )


def count_passes(metrics: Sequence[BoundMetric], worker: Worker) -> int:
    """Count about how many changed images go through the network for each class of an image: those of all its maps."""
    maps = 2 * len(worker.explainer.methods) * max(1, len(worker.explainer.layers)) + len(CONTROLS.names())
    return sum(metric.count_passes(maps) for metric in metrics)


def choose_measured(asked: str, worker: Worker) -> str:
    """Choose the number that is read from changed images: ``probability`` or ``score``.

    Raises:
        RequestError: the probability is asked for, and the model has none.
    """
    activation, score = worker.network.activation, worker.explainer.output_spec.score
    if asked == "probability" and activation == "none":
        raise RequestError(f"{worker.network.name} returns no probabilities", "leave --measured out: its score is read")
    if asked != "auto":
        return asked
    return "probability" if activation != "none" and not score.has_rivals and score.cosine_scaling is None else "score"
