"""Maps that are measured: those of methods, their blurred copies, and controls; of an image, and of changed ones."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

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

# A map at the size of the model's input, maps by method and layer, and the input.
Map = Float32[np.ndarray, "h w"]
Maps = Mapping[tuple[str, str], Map]
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
        explained = [number for number, one in enumerate(self.candidates) if one.kind != "control"]
        waiting, made = deque[tuple[int, np.ndarray]](), deque[Maps]()

        def iter_images() -> Iterator[Image]:
            for change, variant in enumerate(variants, start=1):
                waiting.append((change, variant))
                yield from variant[explained] if len(variant) > 1 else variant[: len(explained)]

        images = iter_images()
        while some := list(islice(images, self.rows)):
            made += self._explain(some)
            while waiting and len(made) >= (needed := min(len(waiting[0][1]), len(explained))):
                yield self._collect(*waiting.popleft(), [made.popleft() for _ in range(needed)])
        while waiting:  # there are controls alone
            yield self._collect(*waiting.popleft(), [])

    def _explain(self, images: Sequence[Image]) -> Iterator[Maps]:
        """Yield the maps of each image; those that cannot be made are missing."""
        given = devices.stack_for(self.explainer.device, [torch.from_numpy(one) for one in images])
        for results in self.explainer.results(
            given, lambda row, scores: [self.index], competing=lambda row: self.competing
        ):
            found = [one for one in results if isinstance(one, Explanation)]
            yield {(one.method, one.layer): enlarge_map(one, self.view) for one in found}

    def _collect(
        self, change: int, variant: Float32[np.ndarray, "_ d h w"], made: Sequence[Maps]
    ) -> Float32[np.ndarray, "n h w"]:
        """Return the map of each candidate, NaN where it cannot be made."""
        shared, own = len(variant) == 1, iter(made)
        controls = self.make_controls(variant[0], change) if shared else {}
        maps = np.full((len(self.candidates), *variant.shape[2:]), np.nan, np.float32)
        for number, one in enumerate(self.candidates):
            if one.kind == "control":
                found = controls or self.make_controls(variant[number], change)
                maps[number] = found[one.name]
                continue
            by_name = made[0] if shared else next(own)
            if (map := by_name.get((one.explanation.method, one.explanation.layer))) is not None:
                maps[number] = blur_map(map) if one.kind == "blurred" else map
        return maps
