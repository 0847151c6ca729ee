"""Metrics of the maps of a batch of images, and of controls, while the network is at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from camcli.base.errors import CamcliError, PictureError
from camcli.base.log import log_failure
from camcli.base.words import first_line
from camcli.engine.explainer import Explainer
from camcli.engine.explanation import Explanation
from camcli.engine.signals.asked import make_score_of_arrays
from camcli.images.objects.boxes import Boxes
from camcli.images.objects.masks import Masks
from camcli.metrics import OBJECT_NAMES
from camcli.metrics.bind import BoundMetric
from camcli.metrics.superpixels import divide
from camcli.runs.evaluate import Kind
from camcli.runs.evaluate.candidates import Again, iter_candidates, make_controls
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import run_in_fitting_batches
from camcli.runs.worker.threads import batched, iterate_ahead
from camcli.runs.worker.worker import Worker
from camcli.targets.target import Score

# Maps of an image that are measured together: they share what does not depend on the map, such as filled images.
MAPS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """Numbers of a map, NaN where they are undefined, and curves; the rest as of a `Candidate`."""

    kind: Kind
    name: str
    explanation: Explanation
    values: Mapping[str, float]
    curves: Mapping[str, Float64[np.ndarray, " t"]]


@dataclass(frozen=True, slots=True)
class Measurer:
    """Computes metrics of a batch's maps, and of controls; called by threads of several devices.

    Attributes:
        worker: the resolved job.
        metrics: the metrics.
        objects: where objects lie, if that is known.
        score: the number of a class that is read from changed images; None for the one that is explained.
    """

    worker: Worker
    metrics: Sequence[BoundMetric]
    objects: Boxes | Masks | None
    score: Score | None

    def __call__(self, explainer: Explainer, items: Sequence[Item]) -> None:
        """Measure the maps of explained images; an image where that fails loses its maps for the error."""
        results = run_in_fitting_batches(
            self.worker,
            explainer,
            items,
            lambda some: self._measure(explainer, some),
            lambda item: self._measure_one(explainer, item),
        )
        for item, found in zip(items, results, strict=True):
            if isinstance(found, PictureError):
                item.results = [found]
            else:
                item.found = found

    def _measure_one(self, explainer: Explainer, item: Item) -> list[Finding] | PictureError:
        try:
            return self._measure(explainer, [item])[0]
        except PictureError as error:
            return error
        except Exception as error:  # any error is this image's alone, and the others go on
            log_failure(item.source.display_name, error)
            message = error.message if isinstance(error, CamcliError) else first_line(error)
            return PictureError(f"its maps cannot be measured: {message}")

    def _measure(self, explainer: Explainer, items: Sequence[Item]) -> list[list[Finding] | PictureError]:
        """Return the findings of each image; may raise anything."""
        with self.worker.computing(), explainer.setup.runner.ready():
            return [[*self._iter_findings(explainer, item)] for item in items]

    def _iter_findings(self, explainer: Explainer, item: Item) -> Iterator[Finding]:
        """Iterate over the findings of each map, class by class."""
        by_class: dict[int | None, list[Explanation]] = {}
        for result in item.results:
            if isinstance(result, Explanation):
                by_class.setdefault(result.index, []).append(result)
        if not by_class:
            return
        assert item.picture is not None
        view, shared = item.picture.view, self._give_image(item)
        make = partial(make_controls, item.source.name, self.worker.job.seed)
        controls = make(shared["image"])
        for index, explanations in by_class.items():
            given = shared | self._give_class(explainer, item, shared["image"], index or 0)
            for some in batched(iter_candidates(explanations, controls, view), MAPS_AT_ONCE):
                again = Again(
                    explainer, some, view, index or 0, self._find_competing(item), make, self.worker.batch_size
                )
                given |= {"maps": np.stack([one.map for one in some]), "explain_again": again}
                found = {metric.row.name: metric(given) for metric in self.metrics}
                for number, one in enumerate(some):
                    own = {name: float(values[number]) for name, (values, _) in found.items()}
                    drawn = {name: curves[number] for name, (_, curves) in found.items() if curves is not None}
                    yield Finding(one.kind, one.name, one.explanation, own, drawn)

    def _give_image(self, item: Item) -> dict[str, Any]:
        """Return what metrics are given for an image."""
        preprocess, image = self.worker.network.preprocess, _read_input(item)
        colours = np.clip(preprocess.to_colours(image), 0, 1)
        return {
            "image": image,
            "colours": colours,
            "from_colours": preprocess.from_colours,
            "divide": cache(partial(divide, colours)),
        }

    def _give_class(
        self, explainer: Explainer, item: Item, image: Float32[np.ndarray, "d h w"], index: int
    ) -> dict[str, Any]:
        """Return what metrics are given for a class of an image, but for the maps."""
        names = {name for metric in self.metrics for name in metric.given_names}
        given: dict[str, Any] = {}
        if self.objects and OBJECT_NAMES & names:
            assert item.picture is not None
            place = item.source, index, item.picture.view
            given |= {"region": self.objects.find_region(*place), "boxes": self.objects.find_boxes(*place)}
        if "score_of" in names:
            rows = 1 if explainer.one_by_one else self.worker.batch_size
            score_of = make_score_of_arrays(
                explainer.setup.runner, image, index, self._find_competing(item), self.score, rows
            )
            # Images are changed while the network scores those before.
            given["score_of"] = lambda variants: score_of(iterate_ahead(variants))
        return given

    def _find_competing(self, item: Item) -> Sequence[int]:
        """Return the classes that compete in an image; empty for all."""
        return self.worker.prompts.find_competing(item.source.path) if self.worker.prompts else ()


def _read_input(item: Item) -> Float32[np.ndarray, "d h w"]:
    assert item.input is not None
    return np.asarray(item.input.numpy(force=True), np.float32)
