"""Writing of an image's files and lines."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from camcli.base.errors import PictureError
from camcli.base.log import log_failure
from camcli.engine.explanation import Explanation
from camcli.images.address import show_path
from camcli.images.naming import fit_path
from camcli.images.source import Picture
from camcli.images.view import is_fine
from camcli.outputs import OUTPUTS
from camcli.outputs.box import find_box
from camcli.outputs.style import Style, peak_value, rectify
from camcli.runs.job.fingerprint import hash_looks
from camcli.runs.job.job import Job
from camcli.runs.record.failures import format_error, raise_if_fatal
from camcli.runs.record.folder import Folder
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.session import Session
from camcli.runs.worker.item import Item
from camcli.runs.worker.worker import Worker
from camcli.targets import is_multi_target

SLUG_BYTES = 40
SUFFIXES = {row.name: row.suffix for row in OUTPUTS.rows}


@dataclass(frozen=True, slots=True)
class Formats:
    """Output formats of a run.

    Attributes:
        suffixes: suffixes of all formats, by name.
        at_once: formats that are written with each image.
        draws_later: the other formats are drawn after the last image, from the arrays.
        looks: digits for all that the looks of each format's files depend on besides the map.
    """

    suffixes: dict[str, str]
    at_once: tuple[str, ...]
    draws_later: bool
    looks: dict[str, str]

    @classmethod
    def from_job(cls, job: Job) -> Formats:
        """Return the formats of a job.

        Raises:
            RequestError: there is no such format.
        """
        # Run-wide drawing waits for the last image, and draws from the arrays.
        later = job.normalize == "run"
        names = tuple(dict.fromkeys([*job.save, *(["array"] if later else [])]))
        suffixes = {name: OUTPUTS.find(name).suffix for name in names}
        return cls(suffixes, ("array",) if later else names, later, hash_looks(replace(job, save=names)))

    @property
    def shows_pixels(self) -> bool:
        """True if a file written with each image shows it at its own size."""
        return any(OUTPUTS.find(name).pixels for name in self.at_once)

    @property
    def wanted(self) -> dict[str, str]:
        """Digits for the looks of the files that a map must have to count as done, by format."""
        return {name: self.looks[name] for name in self.at_once}

    @property
    def later(self) -> list[str]:
        """Formats that are drawn after the last image."""
        return [name for name in self.suffixes if name not in self.at_once]


class Writer:
    """Writer of the files of a run's images.

    Args:
        session: the run.
        formats: the formats that are written.

    Attributes:
        scale: maximum of the strongest map of the run, if images are drawn at it.
        stamp_suffix: suffix of each image's stamp for what else its maps depend on.
    """

    def __init__(self, session: Session[Outcome], formats: Formats) -> None:
        self.session, self.formats = session, formats
        self.scale: float | None = None
        self.stamp_suffix = ""
        self._has_several_maps = _may_have_several_maps(session.worker)

    @property
    def style(self) -> Style:
        """Style in which maps are drawn."""
        return make_style(self.session.worker, self.scale)

    def name_stem(self, name: str, explanation: Explanation) -> str:
        """Return the output name of an image, with the tags that tell its maps apart in this job."""
        worker = self.session.worker
        # A channel shown for its own sake is named by its number; with a weight it is one of a class's.
        of_class = explanation.index is not None and (explanation.channel is None or explanation.weight is not None)
        tags = [
            "untrained" if worker.network.untrained else "",
            explanation.method if len(worker.explainer.methods) > 1 else "",
            explanation.layer if len(worker.explainer.layers) > 1 and worker.explainer.fuse == "none" else "",
            f"box{explanation.number}" if explanation.number else "",
            f"{explanation.index}-{_slugify(explanation.label)}" if of_class and self._has_several_maps else "",
            f"channel{explanation.channel}" if explanation.channel is not None else "",
        ]
        return ".".join(filter(None, [name, *tags]))

    def write(self, item: Item) -> list[Outcome]:
        """Write one image's files and return its lines, none if it was done before."""
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
                raise_if_fatal(error, show_path(self.session.out))
                if error is not result:  # a failure of its own, which was not logged yet
                    log_failure(item.source.display_name, error)
                outcomes.append(Outcome(**self.session.make_line_fields(item), part=part, error=format_error(error)))
        if all(outcome.error for outcome in outcomes):
            # A group or concepts can change the stamp without a change of the image.
            notes = self.session.note_earlier(item, own_stamp=not self.session.job.group and not self.stamp_suffix)
            outcomes = [replace(outcome, notes=(*outcome.notes, *notes)) for outcome in outcomes]
        seconds = (item.seconds + time.perf_counter() - began) / len(outcomes)
        item.release_pixels()
        return [replace(outcome, seconds=round(seconds, 4)) for outcome in outcomes]

    def draw(self, item: Item) -> int:
        """Draw one picture's files without writing them, and return their size in bytes."""
        sizes = 0
        for result in () if item.error else item.results:
            if isinstance(result, Explanation) and item.picture:
                drawn = draw_files(self.style, item.picture, result, self.formats.at_once)
                sizes += sum(len(content) for _, content in drawn)
        return sizes

    def _write_map(self, item: Item, explanation: Explanation, part: str) -> Outcome:
        """Write one map's files."""
        assert item.picture is not None  # without an image there is no explanation
        session, formats = self.session, self.formats
        stem = self.name_stem(item.source.name, explanation)
        view = item.picture.view.placed(explanation.placement)
        # Before any file is written: a map without a box fails.
        heat_box = find_box(view, explanation, self.style) if "box" in formats.suffixes else None
        files = {name: fit_path(stem, suffix) for name, suffix in formats.suffixes.items()}
        now = {name: files[name] for name in formats.at_once}
        sizes = write_files(session.folder, self.style, item.picture, explanation, now)
        for name in formats.later:  # a drawing of an earlier result is not one of this map
            session.folder.remove(files[name])
        looks = dict(formats.looks)
        for one in item.earlier:  # files of formats that are not asked for now stay
            for name, file in one.files.items():
                if name not in files and fit_path(stem, SUFFIXES.get(name, "")) == file:
                    files[name], looks[name] = file, one.looks.get(name, "")
                    sizes |= {name: one.sizes[name]} if name in one.sizes else {}
                    heat_box = one.heat_box if name == "box" else heat_box
        shown = rectify(explanation.drawn)
        x, y = view.peak(shown)
        notes = explanation.notes
        if shown.max() > shown[view.visible_cells(shown.shape)].max():
            notes += ("the maximum of the map lies in the padding; the peak is the maximum inside the image",)
        return Outcome(
            **session.make_line_fields(item),
            part=part,
            files=files,
            sizes=sizes,
            looks={name: digits for name, digits in looks.items() if digits},
            index=explanation.index,
            label=explanation.label,
            score=explanation.score,
            probability=explanation.probability,
            predicted=explanation.predicted,
            predicted_label=explanation.predicted_label,
            number=explanation.number,
            box=explanation.box,
            true_box=explanation.true_box,
            layer=explanation.layer,
            method=explanation.method,
            concepts=explanation.concepts,
            versus=explanation.versus,
            channel=explanation.channel,
            weight=explanation.weight,
            low=float(explanation.map.min()),
            high=float(explanation.map.max()),
            strongest=peak_value(explanation.drawn, not explanation.concepts and is_fine(explanation.map, view)),
            heat_box=heat_box,
            peak=(round(x, 2), round(y, 2)),
            placement=explanation.placement.numbers if explanation.placement else None,
            image_size=view.picture[::-1],
            notes=notes,
        )


def make_style(worker: Worker, scale: float | None = None) -> Style:
    """Return the style that a job asks for, at the scale of the run, if images are drawn at it."""
    job, network = worker.job, worker.network
    return Style(
        job.colormap,
        float(job.alpha),
        job.normalize,
        scale,
        job.outside,
        job.model,
        network.labels.noun,
        job.panel_size,
        network.untrained,
    )


def write_files(
    folder: Folder, style: Style, picture: Picture, explanation: Explanation, files: dict[str, str]
) -> dict[str, int]:
    """Write a map's files, and return the size of each in bytes, by format."""
    sizes = {}
    for name, content in draw_files(style, picture, explanation, files):
        folder.write(files[name], content)
        sizes[name] = len(content)
    return sizes


def draw_files(
    style: Style, picture: Picture, explanation: Explanation, formats: Iterable[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each format with the content of a map's file, one at a time."""
    picture = replace(picture, view=picture.view.placed(explanation.placement))
    for name in formats:
        yield name, OUTPUTS.load(name)(picture, explanation, style)


def _may_have_several_maps(worker: Worker) -> bool:
    """Return whether an image may have maps of several classes, or of one class several times."""
    # A detector may find several boxes of a class.
    boxes = worker.network.output_spec.task == "detect"
    wanted, many = worker.target_words, worker.network.labels.explainable_count > 1
    return boxes or bool(worker.job.targets) or len(wanted) > 1 or (many and any(map(is_multi_target, wanted)))


def _slugify(label: str) -> str:
    """Make a label fit for a file name: letters of all scripts, digits, and - between."""
    words = re.sub(r"[^\w]+", "-", label).strip("-")
    return words.encode()[:SLUG_BYTES].decode("utf-8", "ignore").strip("-") or "class"
