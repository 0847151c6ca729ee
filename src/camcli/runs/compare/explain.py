"""Maps of one network at one scale: what is made of each image, in one pass."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from camcli import targets
from camcli.base.errors import PictureError, RequestError
from camcli.engine.explanation import Explanation
from camcli.engine.maps.result import Result
from camcli.images.source import PictureSource
from camcli.runs.compare import describe_targets
from camcli.runs.job.job import Job
from camcli.runs.record import provenance
from camcli.runs.record.failures import format_error
from camcli.runs.worker.item import Item
from camcli.runs.worker.worker import Worker
from camcli.targets import AUTO, TargetRule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Missing:
    """Place without a map.

    Attributes:
        reason: the reason.
        failed: False if the map is that of another place, and is not made again.
    """

    reason: str
    failed: bool = True


Cell = Explanation | Missing


@dataclass(frozen=True, slots=True)
class Subject:
    """Network and maps of a pass.

    Attributes:
        job: the job.
        name: name of the network.
        untrained: its weights are random.
        targets: names of the targets, or the prompts.
        layers: names of the layers, fused ones joined.
        methods: names of the methods.
        facts: what is recorded of the pass.
        fingerprint_parts: parts of its fingerprint.
    """

    job: Job
    name: str
    untrained: bool
    targets: tuple[str, ...]
    layers: tuple[str, ...]
    methods: tuple[str, ...]
    facts: dict[str, Any]
    fingerprint_parts: dict[str, str]

    @classmethod
    def from_worker(cls, worker: Worker) -> Subject:
        """Describe what a worker explains.

        Raises:
            RequestError: its maps are not one for each class.
        """
        _check_single_maps(worker)
        explainer = worker.explainer
        prompts = worker.prompts.explained if worker.prompts else ()
        names = tuple(prompts[number] for number in list_prompts(worker)) or describe_targets(worker.job)
        fused = explainer.fuse != "none"
        return cls(
            worker.job,
            worker.network.name,
            worker.network.untrained,
            names,
            ("+".join(explainer.layers),) if fused else explainer.layers or ("",),
            tuple(one.row.name for one in explainer.bound_methods),
            provenance.collect_facts(worker),
            worker.fingerprint_parts,
        )

    @property
    def count(self) -> int:
        """Number of maps of an image."""
        return len(self.targets) * len(self.layers) * len(self.methods)


def _check_single_maps(worker: Worker) -> None:
    explainer = worker.explainer
    if explainer.output_spec.task == "detect":
        raise RequestError(
            f"{worker.network.name} finds any number of boxes, and each column has one map",
            "choose a classifier, or look at the boxes with camcli explain and camcli report",
        )
    if finding := [one.row.name for one in explainer.bound_methods if one.finds_concepts]:
        raise RequestError(f"{', '.join(finding)} finds concepts, which are no map of one class", "leave it out")


class TargetChoice:
    """Rule of an image's targets, which remembers what each target word chose.

    Args:
        rules: the rules of the words.

    Attributes:
        found: for each word the class, or why there is none; empty until the rule is asked.
    """

    def __init__(self, rules: Sequence[TargetRule]) -> None:
        self._rules = rules
        self.found: list[int | PictureError] = []

    def __call__(self, path: Path, scores: Tensor) -> Sequence[int]:
        """Return the classes of all words, without repetitions.

        Raises:
            PictureError: no word has a class.
        """
        self.found = [_choose(rule, path, scores) for rule in self._rules]
        if not self.indices:
            [error, *_] = [one for one in self.found if isinstance(one, PictureError)]
            raise error
        return self.indices

    @property
    def indices(self) -> list[int]:
        """The classes that are chosen, in order."""
        return list(dict.fromkeys(one for one in self.found if not isinstance(one, PictureError)))


def _choose(rule: TargetRule, path: Path, scores: Tensor) -> int | PictureError:
    try:
        found = rule(path, scores)
    except PictureError as error:
        return error
    if len(found) == 1 and isinstance(found[0], int):
        return found[0]
    many = f"{len(found)} classes" if found else "no class"
    return PictureError(f"it names {many} of this image, and a map is of one")


def make_rules(worker: Worker) -> list[TargetRule]:
    """Return a rule for each target word, or for each prompt."""
    if numbers := list_prompts(worker):
        return [_always(number) for number in numbers]
    return [targets.resolve([word], worker.network) for word in describe_targets(worker.job)]


def list_prompts(worker: Worker) -> list[int]:
    """Return the numbers of the prompts that are compared, without those that others are held against.

    There are none where targets are named, or the model reads no prompts.
    """
    if worker.prompts is None or worker.job.target != (AUTO,):
        return []
    return [number for number in range(len(worker.prompts.explained)) if number not in worker.prompts.versus]


def _always(number: int) -> TargetRule:
    return lambda path, scores: [number]


@dataclass(frozen=True, slots=True)
class ExplainedImage:
    """Maps of an image in one pass.

    Attributes:
        source: the image.
        stamp: its file's size and modification time.
        cells: its maps: target by target, layer by layer, method by method.
        pixels: the image at the size of a sheet's cell; None if it cannot be read.
    """

    source: PictureSource
    stamp: str
    cells: tuple[Cell, ...]
    pixels: UInt8[np.ndarray, "h w 3"] | None

    @property
    def error(self) -> str | None:
        """Reason why its first map that is missing could not be made."""
        return next((one.reason for one in self.cells if isinstance(one, Missing) and one.failed), None)


def collect(item: Item, choice: TargetChoice, worker: Worker, subject: Subject, side: int) -> ExplainedImage:
    """Collect the maps of an image that was explained.

    Args:
        item: the image.
        choice: the rule of its targets.
        worker: the resolved job.
        subject: what is explained.
        side: longer side of the image on a sheet, in pixels.
    """
    pixels = None if item.picture is None else shrink(item.picture.pixels, side)
    cells = tuple(_iter_cells(item, choice, worker, subject))
    item.release_pixels()
    return ExplainedImage(item.source, item.stamp, cells, pixels)


def shrink(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Resize an image so that its longer side has so many pixels."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return pixels.copy()
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def _iter_cells(item: Item, choice: TargetChoice, worker: Worker, subject: Subject) -> Iterator[Cell]:
    error = item.error or next((one for one in item.results if isinstance(one, PictureError)), None)
    if item.error or not choice.found:
        reason = Missing(format_error(error or PictureError("it has no map")))
        yield from [reason] * subject.count
        return
    assert item.picture is not None
    view, fused = item.picture.view, worker.explainer.fuse != "none"
    places = choice.indices
    found = {
        (one.index, one.method, "" if fused else one.layer): one for one in item.results if isinstance(one, Explanation)
    }
    for index in choice.found:
        for number, layer in enumerate(subject.layers):
            for method in worker.explainer.bound_methods:
                name, at_layer = method.row.name, method.uses_layer and not fused
                if isinstance(index, PictureError):
                    yield Missing(format_error(index))
                elif not method.uses_layer and number:
                    yield Missing(f"as at {subject.layers[0]}: {name} works at the input", failed=False)
                elif one := found.get((index, name, layer if at_layer else "")):
                    yield replace(one, view=view.placed(one.placement), source=item.source.location)
                else:
                    yield Missing(_find_reason(item.results, places.index(index), name, layer if at_layer else ""))


def _find_reason(results: Sequence[Result], place: int, method: str, layer: str) -> str:
    """Return why a map is missing: the reason that is its own, or its method's, or that of all maps."""
    errors = [one for one in results if isinstance(one, PictureError) and one.target in (None, place)]
    for named in ((method, layer), (method, None), ("", None)):
        for error in errors:
            if error.method == named[0] and named[1] in (None, error.layer):
                return format_error(error)
    return format_error(errors[0]) if errors else "it has no map"


class Spool:
    """Explained images of a pass in a temporary file, so that memory does not grow with them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="camcli-")  # noqa: SIM115 - close() does it
        self._count = 0

    def append(self, image: ExplainedImage) -> None:
        """Add an image."""
        pickle.dump(image, self._file, pickle.HIGHEST_PROTOCOL)
        self._count += 1

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def __iter__(self) -> Iterator[ExplainedImage]:
        self._file.seek(0)
        for _ in range(self._count):
            # What this process wrote itself, to a file that has no name.
            image: ExplainedImage = pickle.load(self._file)
            yield image
