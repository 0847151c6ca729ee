"""Writing of a picture's files and lines."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.images.naming import fit_path
from camcli.images.source import Picture
from camcli.outputs import OUTPUTS
from camcli.outputs.style import Style, peak_value, rectify
from camcli.runs.job.job import Job
from camcli.runs.record.failures import format_error, raise_if_fatal
from camcli.runs.record.folder import Folder
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item
from camcli.runs.worker.worker import Worker
from camcli.targets import is_multi_target

SLUG_BYTES = 40


@dataclass(frozen=True, slots=True)
class Formats:
    """Output formats of a run.

    Attributes:
        suffixes: suffixes of all formats, by name.
        at_once: formats that are written with each picture.
        draws_later: the other formats are drawn after the last picture, from the arrays.
    """

    suffixes: dict[str, str]
    at_once: tuple[str, ...]
    draws_later: bool

    @classmethod
    def from_job(cls, job: Job) -> Formats:
        """Return the formats of a job.

        Raises:
            RequestError: there is no such format.
        """
        # Run-wide drawing waits for the last picture, and draws from the arrays.
        later = job.normalize == "run"
        names = tuple(dict.fromkeys([*job.save, *(["array"] if later else [])]))
        return cls({name: OUTPUTS.find(name).suffix for name in names}, ("array",) if later else names, later)

    @property
    def shows_pixels(self) -> bool:
        """True if a file written with each picture shows it at its own size."""
        return any(OUTPUTS.find(name).pixels for name in self.at_once)

    def select_required(self, files: dict[str, str]) -> list[str]:
        """Return those of a map's files that must exist for it to count as done."""
        return [files[name] for name in self.at_once if name in files]

    def select_later(self, files: dict[str, str]) -> dict[str, str]:
        """Return those of a map's files that are drawn after the last picture."""
        return {name: file for name, file in files.items() if name not in self.at_once}


class Writer:
    """Writer of the files of a run's pictures.

    Args:
        session: the run.
        formats: the formats that are written.

    Attributes:
        scale: maximum of the strongest map of the run, if pictures are drawn at it.
        stamp_suffix: suffix of each picture's stamp for what else its maps depend on.
    """

    def __init__(self, session: Session[Outcome], formats: Formats) -> None:
        self.session, self.formats = session, formats
        self.scale: float | None = None
        self.stamp_suffix = ""
        self._has_several_maps = _may_have_several_maps(session.worker)

    @property
    def style(self) -> Style:
        """Style in which maps are drawn."""
        job = self.session.job
        untrained = self.session.worker.network.untrained
        return Style(job.colormap, job.alpha, job.normalize, self.scale, job.outside, job.model, untrained)

    def write(self, item: Item) -> list[Outcome]:
        """Write one picture's files and return its lines, none if it was done before."""
        if item.skipped:
            return []
        began = time.perf_counter()
        results = [item.error] if item.error else item.results
        outcomes: list[Outcome] = []
        for number, result in enumerate(results, start=1):
            part = f"{number}/{len(results)}"
            try:
                if isinstance(result, PictureError):
                    raise result
                outcomes.append(self._write_map(item, result, part))
            except Exception as error:  # any error is this map's alone, and the others go on
                raise_if_fatal(error, self.session.job.out)
                outcomes.append(Outcome(**self.session.make_line_fields(item), part=part, error=format_error(error)))
        if all(outcome.error for outcome in outcomes):
            # A group or concepts can change the stamp without a change of the picture.
            notes = self.session.note_earlier(item, own_stamp=not self.session.job.group and not self.stamp_suffix)
            outcomes = [replace(outcome, notes=(*outcome.notes, *notes)) for outcome in outcomes]
        seconds = (item.seconds + time.perf_counter() - began) / len(outcomes)
        item.release_pixels()
        return [replace(outcome, seconds=round(seconds, 4)) for outcome in outcomes]

    def _write_map(self, item: Item, explanation: Explanation, part: str) -> Outcome:
        """Write one map's files."""
        assert item.picture is not None  # without a picture there is no explanation
        session, formats = self.session, self.formats
        stem = name_stem(session.worker, item.source.name, explanation, self._has_several_maps)
        files = {name: fit_path(stem, suffix) for name, suffix in formats.suffixes.items()}
        now = {name: files[name] for name in formats.at_once}
        sizes = write_files(session.folder, self.style, item.picture, explanation, now)
        if formats.draws_later and not session.ledger.matches_stamp(item.source.name, item.stamp):
            # A drawing of an earlier result is not one of this map.
            for file in formats.select_later(files).values():
                (session.out / file).unlink(missing_ok=True)
        shown = rectify(explanation.drawn)
        view = item.picture.view.placed(explanation.placement)
        x, y = view.peak(shown)
        notes = explanation.notes
        if shown.max() > shown[view.visible_cells(shown.shape)].max():
            notes += ("the strongest place lies in the padding beside the picture; the peak is the strongest in it",)
        return Outcome(
            **session.make_line_fields(item),
            part=part,
            files=files,
            sizes=sizes,
            index=explanation.index,
            label=explanation.label,
            score=explanation.score,
            probability=explanation.probability,
            number=explanation.number,
            box=explanation.box,
            layer=explanation.layer,
            method=explanation.method,
            concepts=explanation.concepts,
            versus=explanation.versus,
            channel=explanation.channel,
            weight=explanation.weight,
            low=float(explanation.map.min()),
            high=float(explanation.map.max()),
            strongest=peak_value(explanation.drawn),
            peak=(round(x, 2), round(y, 2)),
            placement=explanation.placement.numbers if explanation.placement else None,
            notes=notes,
        )


def write_files(
    folder: Folder, style: Style, picture: Picture, explanation: Explanation, files: dict[str, str]
) -> dict[str, int]:
    """Write a map's files, and return the size of each in bytes, by format."""
    picture = replace(picture, view=picture.view.placed(explanation.placement))
    sizes = {}
    for name, file in files.items():
        content = OUTPUTS.load(name)(picture, explanation, style)
        folder.write(file, content)
        sizes[name] = len(content)
    return sizes


def name_stem(worker: Worker, name: str, explanation: Explanation, several: bool) -> str:
    """Return the output name of a picture, with the tags that tell its maps apart in this job."""
    # A channel shown for its own sake is named by its number; with a weight it is one of a class's.
    of_class = explanation.index is not None
    by_class = several and of_class and (explanation.channel is None or explanation.weight is not None)
    tags = [
        "untrained" if worker.network.untrained else "",
        explanation.method if len(worker.explainer.methods) > 1 else "",
        explanation.layer if len(worker.explainer.layers) > 1 and worker.explainer.fuse == "none" else "",
        f"box{explanation.number}" if explanation.number else "",
        f"{explanation.index}-{_slugify(explanation.label)}" if by_class else "",
        f"channel{explanation.channel}" if explanation.channel is not None else "",
    ]
    return ".".join(filter(None, [name, *tags]))


def _may_have_several_maps(worker: Worker) -> bool:
    """Return whether a picture may have maps of several classes, or of one class several times."""
    # A detector may find several boxes of a class.
    boxes = worker.network.output_spec.task == "detect"
    wanted, many = worker.target_words, worker.network.labels.explainable_count > 1
    return boxes or bool(worker.job.targets) or len(wanted) > 1 or (many and any(map(is_multi_target, wanted)))


def _slugify(label: str) -> str:
    """Make a label fit for a file name: letters of all scripts, digits, and - between."""
    words = re.sub(r"[^\w]+", "-", label).strip("-")
    return words.encode()[:SLUG_BYTES].decode("utf-8", "ignore").strip("-") or "class"
