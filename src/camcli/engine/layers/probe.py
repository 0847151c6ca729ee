"""Probe of a network's layers with noise: the shape, layout and gradient of each output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.capture import as_graph_point
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import iter_tensors, replace_tensor, tensor_at
from camcli.engine.hooks.watch import watch_outputs
from camcli.engine.layers.layout import Layout, decide, narrow, possible_layouts, to_nchw
from camcli.engine.volumes import find_slices
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC, get_score_tensor
from camcli.targets.readers.torchvision_boxes import unfiltered
from camcli.targets.target import Predictions

# Reasons against a layer with a grid that count only for methods that need gradients.
NO_GRAPH = "no gradient: the model's output has no grad_fn"
UNREACHED = "no gradient reaches it"


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One module of a network, as observed in a forward of one image.

    Attributes:
        name: the module's full name.
        type: the name of its class.
        shape: the shape of its output, or of the explained tensor in it, batch first; empty if there is none.
        layout: the layout of the output as a grid, if it has one.
        reason: why no map can be made here; empty if one can.
        position: its index in the order in which modules ended; None if it did not run.
        calls: how often it ran; the other attributes describe the last run.
        reached: whether the score's gradient is nonzero at its output; with a grid, at the cells.
        vanished: whether the graph connects it with the score but the gradient is zero everywhere, on noise.
        tensor_index: the index of the explained tensor in its output: the first on which the score depends.
        is_bypassed: whether the score depends on another of these tensors, which has no grid.
        channels: the number of channels, if it has a grid.
        gives_scores: whether it has one channel per class, where the model scores every pixel.
        is_score_map: whether it then has the rows and columns of these scores too.
        has_graph: whether the score has a graph at all; the same for all layers.
    """

    name: str
    type: str
    shape: tuple[int, ...] = ()
    layout: Layout | None = None
    reason: str = ""
    position: int | None = None
    calls: int = 1
    reached: bool = False
    vanished: bool = False
    tensor_index: int = 0
    is_bypassed: bool = False
    channels: int = 0
    gives_scores: bool = False
    is_score_map: bool = False
    has_graph: bool = True


def probe_image(
    size: tuple[int, int], dtype: torch.dtype, device: torch.device, count: int = 1, seed: int = 0, channels: int = 3
) -> Float[Tensor, "n d h w"]:
    """Make seeded noise to try a network on; unlike a blank image it activates every channel."""
    noise = torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed), device="cpu")
    return noise.to(device, dtype)


def noise_like(
    images: Float[Tensor, "n d h w"], size: tuple[int, int] | None = None, count: int = 0, seed: int = 0
) -> Float[Tensor, "m d h2 w2"]:
    """Make seeded noise like these images; ``size`` and ``count``, if given, replace theirs."""
    own = (images.shape[2], images.shape[3])
    return probe_image(size or own, images.dtype, images.device, count or len(images), seed, images.shape[1])


def probe_layers(
    module: nn.Module,
    image: Float[Tensor, "n d h w"],
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
    read: Callable[[Any, int], Predictions] = DEFAULT_OUTPUT_SPEC.read,
    suffix: int = 0,
) -> list[LayerInfo]:
    """Probe every layer of a network by one forward and one backward, in the order of ``named_modules``.

    Args:
        module: the network.
        image: one input, or those of a group.
        prefix: the number of tokens before the patches, if known.
        grid: the patch grid, if known.
        read: from what the module returns for a number of images to what can be explained.
        suffix: the number of tokens behind the patches, if known.

    Raises:
        RequestError: what the module returns cannot be read.
    """
    result = _run_probe(module, image, read)
    size = (image.shape[2], image.shape[3])
    layers = []
    opaque = find_opaque_modules(module)
    for name, part in module.named_modules():
        if not name:
            continue
        layer = LayerInfo(name, type(part).__name__, position=result.positions.get(name))
        hidden = next((one for one in opaque if one.hides(name)), None)
        if hidden:
            layer = replace(layer, reason=hidden.description)
        elif name not in result.positions:
            layer = replace(layer, reason="does not run")
        elif name not in result.points:
            layer = replace(layer, reason="returns no tensor")
        else:
            shape = tuple(result.points[name][result.find_used_tensor(name)].shape)
            layer = replace(layer, shape=shape, calls=result.calls[name], tensor_index=result.find_used_tensor(name))
        layers.append(layer)

    images, slices = len(image), find_slices(module)
    plain = unambiguous_layouts(layers, size, prefix, grid, images, slices, suffix)

    def describe(layer: LayerInfo) -> LayerInfo:
        if layer.reason:
            return layer
        found = [
            _add_layout(one, result, size, prefix, grid, plain, images, slices, suffix)
            for one in _iter_tensors_of(layer, result)
        ]
        # Of several tensors the first usable for a map; else the first with a grid.
        usable = [one for one in found if not one.reason] or [one for one in found if one.layout] or found
        best = replace(usable[0], has_graph=result.has_graph)
        return replace(best, is_bypassed=best.tensor_index != layer.tensor_index)

    found = [describe(layer) for layer in layers]
    still = _find_constant_layers(module, image, [layer for layer in found if result.starts_graph(layer)])
    return [
        replace(one, reason="the same for every image", reached=False) if one.name in still else one for one in found
    ]


@dataclass(slots=True)
class _ProbeResult:
    """Observations of one forward and one backward.

    Attributes:
        positions: the index of each module in the order in which they ended.
        calls: how often each module gave tensors.
        points: the floating-point tensors of each module's last run by their indices in its output, as graph points.
        graph_starts: the indices of those tensors at which the graph starts.
        gradients: the score's gradient by each point; None where the graph does not connect them.
        has_graph: whether the graph connects the score with the image, or with any tensor of more than two dimensions.
        score_map_shape: the scores' shape, if there is one for each class and pixel.
    """

    positions: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    points: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    graph_starts: dict[str, frozenset[int]] = field(default_factory=dict)
    gradients: dict[tuple[str, int], Tensor | None] = field(default_factory=dict)
    has_graph: bool = False
    score_map_shape: tuple[int, ...] = ()

    def find_used_tensor(self, name: str) -> int:
        """Return the index of the first tensor that the score depends on, else of the first."""
        places = list(self.points[name])
        gradients = {place: self.gradients.get((name, place)) for place in places}
        led = [place for place, gradient in gradients.items() if gradient is not None]
        moved = [place for place, gradient in gradients.items() if gradient is not None and _is_nonzero(gradient)]
        return [*moved, *led, *places][0]

    def starts_graph(self, layer: LayerInfo) -> bool:
        """Return whether the graph starts at this layer, and a map can be made there."""
        return not layer.reason and layer.tensor_index in self.graph_starts.get(layer.name, ())


def _run_probe(module: nn.Module, image: Tensor, read: Callable[[Any, int], Predictions]) -> _ProbeResult:
    result = _ProbeResult()

    def hook(name: str, output: Any) -> Any:
        result.positions[name] = len(result.positions)
        if not name:
            return None
        found = {place: one for place, one in enumerate(iter_tensors(output)) if one.is_floating_point()}
        if not found:
            return None
        # The same points as capture_activations takes, so that the probe finds what it will find.
        is_only_tensor = sum(1 for _ in iter_tensors(output)) == 1
        result.points[name] = {place: as_graph_point(one, is_only_tensor) for place, one in found.items()}
        result.graph_starts[name] = frozenset(place for place, one in found.items() if not one.requires_grad)
        result.calls[name] = result.calls.get(name, 0) + 1
        for place, one in found.items():
            output = replace_tensor(output, one, result.points[name][place].clone())
        return output

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        frozen(module),
        unfiltered(module),
        watch_outputs(module, hook),
    ):
        leaf = image.detach().clone().requires_grad_()
        predictions = read(module(leaf.clone()), len(image))
        score = predictions.sum_scores()
        table = get_score_tensor(predictions)
        result.score_map_shape = tuple(table.shape) if table is not None and table.ndim == 4 else ()
        if score.requires_grad:
            wanted = [(name, place) for name, some in result.points.items() for place in some]
            points = [result.points[name][place] for name, place in wanted]
            found: Sequence[Tensor | None] = torch.autograd.grad(score, [leaf, *points], allow_unused=True)
            result.gradients = dict(zip(wanted, found[1:], strict=True))
            result.has_graph = found[0] is not None or any(one is not None and one.ndim > 2 for one in found)
    return result


def _iter_tensors_of(layer: LayerInfo, result: _ProbeResult) -> Iterator[LayerInfo]:
    """Yield the layer with each tensor of its output, the one that the score depends on first."""
    places = list(result.points[layer.name])
    for place in sorted(places, key=lambda one: one != layer.tensor_index):
        yield replace(layer, shape=tuple(result.points[layer.name][place].shape), tensor_index=place)


def _find_constant_layers(module: nn.Module, image: Tensor, layers: Sequence[LayerInfo]) -> set[str]:
    """Find the layers whose output is the same for another image."""
    if not layers:
        return set()
    outputs: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    parts = {layer.name: layer.tensor_index for layer in layers}

    def hook(name: str, output: Any) -> None:
        if name in outputs and (tensor := tensor_at(output, parts[name])) is not None:
            outputs[name].append(tensor.detach().clone())

    with torch.no_grad(), frozen(module), unfiltered(module), watch_outputs(module, hook):
        for one in (image, image.flip(3)):
            module(one.clone())
    halves = {name: (some[: len(some) // 2], some[len(some) // 2 :]) for name, some in outputs.items()}
    return {name for name, (one, other) in halves.items() if all(map(torch.equal, one, other))}


def _is_nonzero(gradient: Tensor) -> bool:
    """Return whether a gradient has a nonzero value; a slice is tested first, which mostly suffices."""
    part = gradient.select(-1, gradient.shape[-1] // 2) if gradient.ndim and gradient.shape[-1] else gradient
    return bool(part.any()) or bool(gradient.any())


def unambiguous_layouts(
    layers: Sequence[LayerInfo],
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    images: int = 1,
    slices: int = 0,
    suffix: int = 0,
) -> frozenset[Layout]:
    """Return the layouts of the layers that have only one possible layout by themselves."""
    read = (
        [one for one in possible_layouts(layer.shape, size, prefix, grid, images, slices, suffix) if one.order != "ncl"]
        for layer in layers
    )
    return frozenset(layouts[0] for layouts in read if len(layouts) == 1)


def _add_layout(
    layer: LayerInfo,
    result: _ProbeResult,
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    unambiguous: frozenset[Layout],
    images: int = 1,
    slices: int = 0,
    suffix: int = 0,
) -> LayerInfo:
    gradient = result.gradients.get((layer.name, layer.tensor_index))
    vanished = gradient is not None and not _is_nonzero(gradient)
    layer = replace(layer, reached=gradient is not None and not vanished, vanished=vanished)
    layouts = narrow(possible_layouts(layer.shape, size, prefix, grid, images, slices, suffix), unambiguous)
    if not layouts:
        pieces = layer.shape[0] if layer.shape else images
        if pieces == images and len(layer.shape) == 5 and not slices:
            return replace(layer, reason="a volume or a video: no grid in the image plane")
        if images > 1 and pieces != images:
            return replace(layer, reason=f"returns {pieces} rows for {images} images")
        return replace(layer, reason="no grid" if pieces == images else f"splits the image into {pieces} samples")
    if len(layouts) > 1:
        return replace(layer, reason="ambiguous: " + " or ".join(map(str, layouts)))
    [layout] = layouts
    form = to_nchw(torch.empty(layer.shape, device="meta"), layout).shape
    scores = bool(result.score_map_shape) and form[1] == result.score_map_shape[1]
    reached = gradient is not None and _is_nonzero(to_nchw(gradient, layout))
    reason = "" if reached or vanished else UNREACHED if result.has_graph else NO_GRAPH
    return replace(
        layer,
        layout=layout,
        reached=reached,
        reason=reason,
        channels=form[1],
        gives_scores=scores,
        is_score_map=scores and form[2:] == result.score_map_shape[2:],
    )


def find_token_layout(
    layers: Sequence[LayerInfo],
    tokens: int,
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    images: int = 1,
) -> Layout:
    """Find the layout of the attention's tokens on a grid, by the layers with as many tokens or with the same cells.

    Args:
        layers: the network's layers, as :func:`probe_layers` found them.
        tokens: the number of tokens that attention is over.
        size: the height and width of the model's input.
        prefix: the number of tokens before the patches, if known.
        grid: the patch grid, if known.
        images: the batch size.

    Raises:
        RequestError: no layer has that many tokens, or a grid of them after prefix tokens; or several layouts remain.
    """
    lengths = {length for layer in layers for length in _token_counts(layer.shape, images)}
    # A layer with rows and columns shows the grid, a layer with tokens the prefix too.
    plain = unambiguous_layouts(layers, size, prefix, grid, images)
    grids = {one.grid for one in plain}
    layouts = [
        one
        for one in possible_layouts((1, tokens, 1), size, prefix, grid)
        # A pooling by attention may put a token of its own before the cells of a map.
        if one.order == "tokens" and (tokens in lengths or one.grid in grids)
    ]
    if not layouts:
        raise RequestError(
            f"its attention is over {tokens} items that are not image patches, perhaps channels",
            "choose a method that works at a layer, such as gradcam",
        )
    return decide(layouts, (1, tokens, 1), plain)


def _token_counts(shape: tuple[int, ...], images: int = 1) -> tuple[int, ...]:
    """Return the possible token counts of an output: the length of a sequence, or the number of a map's cells.

    Channels do not count, since attention among channels has no positions.
    """
    if len(shape) == 3:
        # The batch may be the second dimension, as in nn.MultiheadAttention.
        return shape[:2] if shape[1] == images else shape[1:2]
    return (shape[1] * shape[2], shape[2] * shape[3]) if len(shape) == 4 else ()
