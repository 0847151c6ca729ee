"""Cuts of an ONNX graph that can be layers, found by a trial on noise, and the modules between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from camcli.models.sources.onnx_graph import FLOATS, Graph
from camcli.models.sources.onnx_module import INPUT_TYPES, Growth, OnnxNetwork, OnnxPart, name_layers, open_session

# Ranks of a layer's tensor: tokens, and maps.
RANKS = (3, 4)


@dataclass(frozen=True, slots=True)
class Trial:
    """Noise that a graph is tried on.

    Attributes:
        image: the name of its input.
        shape: channels, height and width.
        fixed: the number of images that it takes; 0 for any.
        channels_last: whether it takes ``(n, h, w, c)``.
    """

    image: str
    shape: tuple[int, int, int]
    fixed: int
    channels_last: bool

    def make(self, images: int, kind: str) -> np.ndarray:
        """Make noise."""
        channels, height, width = self.shape
        shape = (images, height, width, channels) if self.channels_last else (images, *self.shape)
        return np.random.default_rng(0).standard_normal(shape).astype(INPUT_TYPES[kind])


def cut_model(model: Any, trial: Trial, digest: str) -> tuple[OnnxNetwork, list[tuple[int, ...]], tuple[str, ...]]:
    """Cut a model at the tensors that can be layers.

    Returns:
        The network, the shapes of its outputs for an image, and notes.
    """
    graph = Graph(model, trial.image)
    cuts = graph.find_cuts()
    reads = graph.list_reads(cuts)
    sizes = graph.list_sizes(cuts)
    session = open_session(graph.read_along([*reads, *sizes], cuts))
    first, second, fixed = _run_twice(session, trial)
    base = trial.fixed or 1
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in first.items()}
    usable = [
        (cut, read)
        for cut, read in zip(cuts, reads, strict=True)
        if _is_layer(first[read], kinds[read], base, second.get(read))
    ]
    kept = [cut for cut, _ in usable]
    kinds |= {cut: kinds[read] for cut, read in usable}
    growths = {name: _measure(first[name], second.get(name)) for name in sizes}
    parts = graph.cut(kept, kinds)
    rows = [1, *(len(first[read]) // base for _, read in usable)]
    outputs = [one.name for one in model.graph.output]
    modules = {
        name: OnnxPart(
            part.model.SerializeToString(),
            {one: growths[one] for one in part.sizes},
            count,
            fixed,
            trial.channels_last and part.begin == trial.image,
        )
        for name, part, count in zip(name_layers([*kept, outputs[0]]), parts, rows, strict=True)
    }
    notes = () if fixed == trial.fixed else ("its graph takes one image at a time, though it says otherwise",)
    return OnnxNetwork(modules, digest), [first[name].shape for name in outputs], notes


def _run_twice(session: Any, trial: Trial) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Run on one batch, and on two images if the graph takes any number; return also how many it takes, 0 for any."""
    names, [given] = [one.name for one in session.get_outputs()], session.get_inputs()

    def run(images: int) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {given.name: trial.make(images, given.type)}), strict=True))

    first = run(trial.fixed or 1)
    if trial.fixed:
        return first, {}, trial.fixed
    try:
        return first, run(2), 0
    except Exception:  # a graph that was exported for one image, and says that it takes any number
        return first, {}, 1


def _is_layer(value: np.ndarray, kind: int, images: int, of_two: np.ndarray | None) -> bool:
    """Return whether a tensor can be a layer: floating point, with a place axis, and as many rows for each image."""
    grows = of_two is None or len(of_two) == 2 * len(value)
    has_places = value.ndim in RANKS and max(value.shape[1:]) > 1 and int(np.prod(sorted(value.shape[1:])[:-1])) > 1
    return kind in FLOATS and has_places and len(value) % images == 0 and len(value) > 0 and grows


def _measure(one: np.ndarray, two: np.ndarray | None) -> Growth:
    return Growth(one, np.zeros_like(one) if two is None else two - one)
