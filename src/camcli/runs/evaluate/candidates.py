"""Maps that are measured: those of methods, their blurred copies, and controls; of an image, and of changed ones."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import groupby, islice

import numpy as np
import torch
from jaxtyping import Float32

from camcli.engine import devices
from camcli.engine.explainer import Explainer
from camcli.engine.explanation import Explanation
from camcli.images.view import View
from camcli.metrics import CONTROLS
from camcli.metrics.controls import blur_map
from camcli.outputs import style
from camcli.runs.evaluate import Kind

# A map at the size of the model's input, and the input.
Map = Float32[np.ndarray, "h w"]
Image = Float32[np.ndarray, "d h w"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Map that is measured.

    Attributes:
        map: the map, at the size of the model's input.
        kind: what it is.
        name: name of the method, or of the control.
        explanation: an explanation for the class, that of the map itself unless it is a control.
    """

    map: Map
    kind: Kind
    name: str
    explanation: Explanation


def iter_candidates(
    explanations: Sequence[Explanation], controls: Mapping[str, Map], view: View
) -> Iterator[Candidate]:
    """Iterate over the maps of a class: those of the methods, and controls."""
    for one in explanations:
        map = enlarge_map(one, view)
        yield Candidate(map, "method", one.method, one)
        yield Candidate(blur_map(map), "blurred", one.method, one)
    for name, map in controls.items():
        yield Candidate(map, "control", name, explanations[0])


def enlarge_map(explanation: Explanation, view: View) -> Map:
    """Return a map at the size of the model's input, enlarged as it is drawn, but with its sign.

    Of a map with colours the greatest magnitude at each pixel is taken, as for drawing.
    """
    map = explanation.map
    flat = style.rectify(map) if map.ndim == 3 else map
    return np.ascontiguousarray(view.view_of_input().placed(explanation.placement).enlarge(flat))


def make_controls(name: str, seed: int, image: Image, change: int = 0) -> dict[str, Map]:
    """Return the controls of an image by name.

    Args:
        name: name of the image; random controls depend on it, the seed and ``change`` alone.
        seed: random seed.
        image: the image.
        change: number of the change, where it is a changed image; 0 for the image itself.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode("utf-8", "surrogatepass")), change])
    return {one: CONTROLS.load(one)(image, rng) for one in CONTROLS.names()}


@dataclass(slots=True)
class _Change:
    """A change of the image, with the maps of the candidates, and what must be explained for them."""

    maps: Float32[np.ndarray, "n h w"]
    tasks: list[_Task] = field(default_factory=list)
    made: int = 0

    @property
    def is_whole(self) -> bool:
        return self.made == len(self.tasks)


@dataclass(frozen=True, slots=True)
class _Task:
    """An image to explain by some methods at some layers, for the candidates at some places."""

    change: _Change
    image: Image
    places: Sequence[int]
    methods: tuple[str, ...]
    layers: tuple[str, ...]

    @property
    def kind(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Methods and layers; tasks that have them in common can be done together."""
        return self.methods, self.layers


@dataclass(frozen=True, slots=True)
class Again:
    """Makes the maps of changed images, for a class that is explained in the image itself; called as a metric does it.

    Attributes:
        explainer: the explainer.
        candidates: the maps that are made again.
        view: the view of the image.
        index: the class.
        competing: the classes that compete in the image; empty for all.
        make_controls: from a changed image and the number of the change to the controls.
        rows: number of images that are explained at once.
    """

    explainer: Explainer
    candidates: Sequence[Candidate]
    view: View
    index: int
    competing: Sequence[int]
    make_controls: Callable[[Image, int], Mapping[str, Map]]
    rows: int

    def __call__(self, variants: Iterable[Float32[np.ndarray, "_ d h w"]]) -> Iterator[Float32[np.ndarray, "n h w"]]:
        """Yield the maps of each array of images: of one image all maps, of one image for each map that map."""
        waiting = deque[_Change]()

        def iter_tasks() -> Iterator[_Task]:
            for number, variant in enumerate(variants, start=1):
                waiting.append(self._begin(number, variant))
                yield from waiting[-1].tasks

        # An image is explained by the methods, and at the layers, of the maps that are wanted of it alone.
        for kind, tasks in groupby(iter_tasks(), lambda task: task.kind):
            explainer = _select(self.explainer, *kind)
            while some := list(islice(tasks, self.rows)):
                self._explain(explainer, some)
                while waiting and waiting[0].is_whole:
                    yield waiting.popleft().maps
        yield from (one.maps for one in waiting)  # of controls alone

    def _begin(self, number: int, variant: Float32[np.ndarray, "_ d h w"]) -> _Change:
        """Return a change with the maps of the controls; the others are NaN until they are made."""
        shared, maps = len(variant) == 1, np.full((len(self.candidates), *variant.shape[2:]), np.nan, np.float32)
        controls = self.make_controls(variant[0], number) if shared else {}
        places = list[int]()
        for place, one in enumerate(self.candidates):
            if one.kind == "control":
                maps[place] = (controls or self.make_controls(variant[place], number))[one.name]
            else:
                places.append(place)
        change = _Change(maps)
        for own in [places] * bool(places) if shared else [[one] for one in places]:
            wanted = [self.candidates[place].explanation for place in own]
            methods, layers = (
                tuple(dict.fromkeys(some)) for some in zip(*((one.method, one.layer) for one in wanted), strict=True)
            )
            change.tasks.append(_Task(change, variant[0 if shared else own[0]], own, methods, layers))
        change.tasks.sort(key=lambda task: task.kind)  # those of one method at one layer together
        return change

    def _explain(self, explainer: Explainer, tasks: Sequence[_Task]) -> None:
        """Make the maps of images; those that cannot be made stay NaN."""
        given = devices.stack_for(explainer.device, [torch.from_numpy(task.image) for task in tasks])
        made = explainer.results(given, lambda row, scores: [self.index], competing=lambda row: self.competing)
        for task, results in zip(tasks, made, strict=True):
            found = [one for one in results if isinstance(one, Explanation)]
            by_name = {(one.method, one.layer): enlarge_map(one, self.view) for one in found}
            for place in task.places:
                one = self.candidates[place]
                if (map := by_name.get((one.explanation.method, one.explanation.layer))) is not None:
                    task.change.maps[place] = blur_map(map) if one.kind == "blurred" else map
            task.change.made += 1


def _select(explainer: Explainer, methods: Sequence[str], layers: Sequence[str]) -> Explainer:
    """Return an explainer of the same network, trials and all, that explains by some of the methods at some layers.

    Maps that are of several layers together need them all.
    """
    selected = copy(explainer)
    selected.setup = copy(explainer.setup)
    selected.bound_methods = tuple(one for one in explainer.bound_methods if one.row.name in methods)
    if selected.setup.fuse == "none":
        selected.setup.runner = copy(explainer.setup.runner)
        selected.layers = tuple(one for one in explainer.layers if one in layers)
    return selected
