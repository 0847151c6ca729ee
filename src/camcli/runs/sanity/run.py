"""Run of ``camcli sanity``: maps of a network that is changed step by step, compared with its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.engine import devices
from camcli.engine.explanation import Explanation
from camcli.images.source import PAUSE
from camcli.images.view import View
from camcli.methods.pixel import iter_noisy_copies
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.rows import check_rows_file
from camcli.runs.sanity import SanityJob, SanityRow, Verdict
from camcli.runs.sanity.compare import Kind, Similarities, judge
from camcli.runs.sanity.means import Map, MapKey, MeanMaps, name_maps
from camcli.runs.sanity.randomise import Part, Redrawing, find_parts, shifted
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import decode_batches, find_results
from camcli.runs.worker.worker import Worker

# Images of a job without --limit: all are kept in memory as the model's input, and explained again in each step.
DEFAULT_IMAGES = 16


@dataclass(frozen=True, slots=True)
class Explained:
    """Image with its maps.

    Attributes:
        name: its name.
        input: the model's input.
        view: the part that the model saw.
        classes: the classes explained.
        competing: the classes that compete in it; empty for all.
        maps: the maps, by method, layer and class.
    """

    name: str
    input: Tensor
    view: View
    classes: tuple[int, ...]
    competing: Sequence[int]
    maps: Mapping[MapKey, Explanation]


# From an image, a class and the number of classes to a class; None for none.
Choose = Callable[[Explained, int, int], int | None]


def keep_class(image: Explained, index: int, count: int) -> int:  # noqa: ARG001 - one of several ways to choose
    """Return the class itself."""
    return index


class SanityRun:
    """Run that asks what the maps of a network depend on. Iterate over it for the rows of each step.

    The network is changed in place, and exactly as before at the end of each test, also after an error or Ctrl-C.

    Args:
        sanity_job: the job.

    Attributes:
        worker: the resolved job.
        notes: notes for the user; may grow.
        steps: number of steps in all; None before the first.
        failures: images that could not be explained, with the reasons.
        verdicts: verdicts of the tests; known after the last step.

    Raises:
        RequestError: the request is invalid.
        NothingFoundError: there is no image.
    """

    def __init__(self, sanity_job: SanityJob) -> None:
        self.sanity_job = sanity_job
        job = replace(sanity_job.job, compile="off", limit=sanity_job.job.limit or DEFAULT_IMAGES)
        if sanity_job.to:
            check_rows_file(Path(sanity_job.to))
        if len(devices.parse_devices(job.device)) > 1:
            raise RequestError("the network is changed in place, on one device", "name one: --device cuda:0")
        self._inputs = Inputs(job)
        self.worker = Worker(job, self._inputs.source_factory, self._inputs.total, recorded=False)
        self.notes = self.worker.notes
        setup = self.worker.explainer.setup
        if setup.output_spec.task != "classify" or setup.explains_channels or self.worker.explainer.top_channels:
            raise RequestError("these maps do not explain a class of one score for the image", "choose a classifier")
        if any(one.finds_concepts for one in setup.bound_methods):
            raise RequestError("concepts belong to no class, and have no order", "choose another method, as gradcam")
        self.failures: list[tuple[str, str]] = []
        self.verdicts: list[Verdict] = []
        self.steps: int | None = None
        self._rows: list[SanityRow] = []

    def __iter__(self) -> Iterator[list[SanityRow]]:
        """Yield the rows of each step, one for each method and layer.

        Raises:
            PictureError: no image could be explained.
        """
        batches = [*self._explain_all()]
        if not any(batches):
            raise PictureError("no image could be explained, so there is nothing to compare", self._describe_failure())
        parts = self._find_parts(next(filter(None, batches))[0].input)
        tests = self.sanity_job.chosen
        self.steps = sum(len(parts) if test in ("cascade", "bottom-up", "independent") else 1 for test in tests)
        for test in tests:
            for rows in self._run_test(test, parts, batches):
                self._rows += rows
                yield rows
        self.verdicts = judge(self._rows)

    def _find_parts(self, image: Tensor) -> list[Part]:
        runner = self.worker.explainer.setup.runner
        images = devices.stack_for(self.worker.explainer.device, [image])
        with self.worker.computing(), runner.ready():
            return find_parts(self.worker.explainer.setup.module, lambda: runner.run(images))

    def _run_test(
        self, test: str, parts: Sequence[Part], batches: Sequence[Sequence[Explained]]
    ) -> Iterator[list[SanityRow]]:
        module = self.worker.explainer.setup.module
        match test:
            case "cascade":
                yield from self._redraw(test, [*reversed(parts)], batches, keeps=True)
            case "bottom-up":
                yield from self._redraw(test, parts, batches, keeps=True)
            case "independent":
                yield from self._redraw(test, [*reversed(parts)], batches, keeps=False)
            case "full":
                yield self._redraw_all(parts, batches)
            case "class":
                yield self._compare(batches, self._draw_other, test=test)
            case "shift":
                by = self.sanity_job.shift
                with shifted(module, by):
                    yield self._compare(batches, add=by, test=test)
            case _:
                yield self._compare(batches, test=test)

    def _redraw(
        self, test: str, parts: Sequence[Part], batches: Sequence[Sequence[Explained]], keeps: bool
    ) -> Iterator[list[SanityRow]]:
        """Yield the rows of each part that is drawn anew; of those before it all stay so if ``keeps``."""
        total = sum(part.size for part in parts)
        drawn = 0
        with Redrawing(parts, self.worker.job.seed) as redrawing:
            for step, part in enumerate(parts, start=1):
                if not keeps:
                    redrawing.restore()
                    drawn = 0
                drawn += part.size * redrawing.draw(part)
                yield self._compare(batches, test=test, step=step, part=part.name, share=drawn / total)

    def _redraw_all(self, parts: Sequence[Part], batches: Sequence[Sequence[Explained]]) -> list[SanityRow]:
        """Return the rows of a network of which all parts are drawn anew."""
        total = sum(part.size for part in parts)
        with Redrawing(parts, self.worker.job.seed) as redrawing:
            drawn = sum(part.size * redrawing.draw(part) for part in parts)
            return self._compare(batches, test="full", part="(all)", share=drawn / total)

    # ---- maps

    def _explain_all(self) -> Iterator[list[Explained]]:
        """Yield the images that can be explained, batch by batch, with their maps."""
        worker = self.worker
        items = (Item(source) for source in self._inputs.iter_sources() if source is not PAUSE)
        for batch in decode_batches(worker, items):
            self.failures += [(item.source.display_name, item.error.message) for item in batch if item.error]
            ready = [item for item in batch if item.input is not None]
            found = find_results(worker, worker.explainer, ready) if ready else []
            kept = [one for item, results in zip(ready, found, strict=True) if (one := self._keep(item, results))]
            yield self._average(kept) if kept and self.sanity_job.samples else kept

    def _keep(self, item: Item, results: Sequence[Explanation | PictureError]) -> Explained | None:
        assert item.input is not None and item.picture is not None  # it was decoded
        maps = [one for one in results if isinstance(one, Explanation)]
        for one in results:
            if isinstance(one, PictureError):
                self.failures.append((item.source.display_name, one.message))
        view = item.picture.view
        item.release_pixels()
        if not maps:
            return None
        classes = tuple(dict.fromkeys(one.index for one in maps if one.index is not None))
        named = name_maps(maps)
        prompts = self.worker.prompts
        competing = prompts.find_competing(item.source.path) if prompts else ()
        return Explained(item.source.name, item.input, view, classes, competing, named)

    def _average(self, batch: Sequence[Explained]) -> list[Explained]:
        """Return images with the means of the maps of their noisy copies, for the classes explained in themselves."""
        averaged = list[Explained]()
        for image, (means, _) in zip(batch, self._explain(batch), strict=True):
            for method, layer, _ in image.maps.keys() - means.keys():
                self.failures.append(
                    (image.name, f"a noisy copy has no map by {method}{f' at {layer}' if layer else ''}")
                )
            maps = {key: replace(one, map=means[key]) for key, one in image.maps.items() if key in means}
            averaged += [replace(image, maps=maps)] if maps else []
        return averaged

    def _explain(
        self, batch: Sequence[Explained], choose: Choose = keep_class, add: float = 0.0
    ) -> list[tuple[dict[MapKey, Map], dict[int, int | None]]]:
        """Explain images again.

        Args:
            batch: the images.
            choose: from an image, a class and the number of classes to the class that is explained in its place; None
                where there is none.
            add: constant that is added to the inputs.

        Returns:
            For each image its maps, or the means of those of its noisy copies, as far as all have one; and the class
                that was explained in the place of each.
        """
        explainer, asked = self.worker.explainer, self.sanity_job
        images = devices.stack_for(explainer.device, [one.input for one in batch]) + add
        swaps: list[dict[int, int | None]] = [{} for _ in batch]

        def select(row: int, scores: Tensor) -> list[int]:
            swaps[row] = {index: choose(batch[row], index, len(scores)) for index in batch[row].classes}
            return [index if other is None else other for index, other in swaps[row].items()]

        copies = iter_noisy_copies(images, asked.samples, asked.noise, self.worker.job.seed)
        means = [MeanMaps() for _ in batch]
        for given in copies if asked.samples else [images]:
            with self.worker.computing():
                results = explainer.results(given, select, competing=lambda row: batch[row].competing)
            for mean, found in zip(means, results, strict=True):
                mean.add({key: one.map for key, one in name_maps(found).items()})
        return [(mean.compute(), swap) for mean, swap in zip(means, swaps, strict=True)]

    def _compare(
        self,
        batches: Sequence[Sequence[Explained]],
        choose: Choose = keep_class,
        add: float = 0.0,
        **words: Any,
    ) -> list[SanityRow]:
        """Explain all images again, and return the similarity of the maps with the first ones.

        Args:
            batches: the images.
            choose, add: as in :meth:`_explain`.
            words: what the rows say of the step.
        """
        found: dict[Kind, Similarities] = defaultdict(Similarities)
        for batch in filter(None, batches):
            for image, (maps, swap) in zip(batch, self._explain(batch, choose, add), strict=True):
                for (method, layer, index), before in image.maps.items():
                    view = image.view.placed(before.placement)
                    other = swap.get(index, index)
                    after = None if other is None else maps.get((method, layer, other))
                    found[method, layer].add(before.map, after, view)
        return [similarities.make_row(kind, **words) for kind, similarities in found.items()]

    def _draw_other(self, image: Explained, index: int, count: int) -> int | None:
        """Draw another class than one that is explained, of those that compete; None where there is none."""
        every = image.competing or range(min(count, self.worker.network.labels.explainable_count))
        others = [one for one in every if one != index]
        rng = np.random.default_rng([self.worker.job.seed, *image.name.encode("utf-8", "surrogatepass"), index])
        return others[int(rng.integers(len(others)))] if others else None

    def _describe_failure(self) -> str:
        return f"{self.failures[0][0]}: {self.failures[0][1]}" if self.failures else ""
