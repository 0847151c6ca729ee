"""What every layer of a network gives for one input, and whether a map can be made there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.capture import point_of
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import replaced, tensor_at, tensors
from camcli.engine.hooks.watch import listened
from camcli.engine.layers.layout import Layout, canonical, decide, readings, settled
from camcli.targets.readers.detection import unfiltered
from camcli.targets.readers.spec import PLAIN, table_of
from camcli.targets.target import Reading

# Why no map can be made at a layer that has a grid: for methods that need no gradient this is no reason.
NO_GRAPH = "no gradient: the model's output has no grad_fn"
UNREACHED = "no gradient reaches it"


@dataclass(frozen=True, slots=True)
class Layer:
    """One module of a network, as it was met in a forward of one image.

    Attributes:
        name: its full name.
        type: its class's name.
        shape: of its output, or of the tensor in it that is looked at, batch first; empty if it gives none.
        layout: how the output is read as a grid, if it can be.
        reason: why no map can be made here, or empty.
        turn: its place in the order in which modules ended; None if it did not run.
        calls: how often it ran; the last time is what the rest describes.
        reached: whether the gradient of the score reaches anything of what it hands on; of a grid's, its cells.
        vanished: whether the score's graph leads there, and the gradient is zero all over: on noise, perhaps not on
            pictures.
        part: which of the tensors in its output is looked at, from 0 on: the first on which the score depends.
        aside: whether the score depends on another of them, which has no grid.
        channels: how many it has, if it is read as a grid.
        scores: whether it has as many channels as there are classes, where the model scores every pixel.
        final: whether it then has the rows and columns of these scores too.
        graph: whether the score has a graph at all, of all layers alike.
    """

    name: str
    type: str
    shape: tuple[int, ...] = ()
    layout: Layout | None = None
    reason: str = ""
    turn: int | None = None
    calls: int = 1
    reached: bool = False
    vanished: bool = False
    part: int = 0
    aside: bool = False
    channels: int = 0
    scores: bool = False
    final: bool = False
    graph: bool = True


def probe_image(
    size: tuple[int, int], dtype: torch.dtype, device: torch.device, count: int = 1, seed: int = 0, channels: int = 3
) -> Float[Tensor, "n d h w"]:
    """Seeded noise to try a network on: unlike a blank image it drives every channel."""
    noise = torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed), device="cpu")
    return noise.to(device, dtype)


def noise_like(
    images: Float[Tensor, "n d h w"], size: tuple[int, int] | None = None, count: int = 0, seed: int = 0
) -> Float[Tensor, "m d h2 w2"]:
    """Likewise, of these images' kind; of another size, or as many as ``count``, if they are given."""
    own = (images.shape[2], images.shape[3])
    return probe_image(size or own, images.dtype, images.device, count or len(images), seed, images.shape[1])


def survey(
    module: nn.Module,
    image: Float[Tensor, "n d h w"],
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
    read: Callable[[Any, int], Reading] = PLAIN.read,
) -> list[Layer]:
    """Every layer below the module, in the order of ``named_modules``; one forward and one backward.

    Args:
        module: takes the image to what ``read`` reads.
        image: one input, or those of a group.
        prefix: how many tokens stand before the patches, if the source says so.
        grid: the patch grid, if the source says so.
        read: from what the module returns for a number of images to what can be explained.

    Raises:
        RequestError: what the module returns cannot be read.
    """
    met = _met(module, image, read)
    size = (image.shape[2], image.shape[3])
    layers = []
    closed = closed_parts(module)
    for name, part in module.named_modules():
        if not name:
            continue
        layer = Layer(name, type(part).__name__, turn=met.turns.get(name))
        hidden = next((one for one in closed if one.hides(name)), None)
        if hidden:
            layer = replace(layer, reason=hidden.words)
        elif name not in met.turns:
            layer = replace(layer, reason="does not run")
        elif name not in met.points:
            layer = replace(layer, reason="gives no tensor")
        else:
            shape = tuple(met.points[name][met.used(name)].shape)
            layer = replace(layer, shape=shape, calls=met.calls[name], part=met.used(name))
        layers.append(layer)

    images = len(image)
    plain = plain_layouts(layers, size, prefix, grid, images)

    def described(layer: Layer) -> Layer:
        if layer.reason:
            return layer
        found = [_with_layout(one, met, size, prefix, grid, plain, images) for one in _parts(layer, met)]
        # Of several tensors the first of which a map can be made; else one that has a grid, aside of the way.
        usable = [one for one in found if not one.reason] or [one for one in found if one.layout] or found
        best = replace(usable[0], graph=met.graph)
        return replace(best, aside=best.part != layer.part)

    found = [described(layer) for layer in layers]
    still = _still(module, image, [layer for layer in found if met.started(layer)])
    return [
        replace(one, reason="the same for every picture", reached=False) if one.name in still else one for one in found
    ]


@dataclass(slots=True)
class _Met:
    """What was met in one forward and one backward.

    Attributes:
        turns: the place of each module in the order in which they ended.
        calls: how often each gave tensors.
        points: of each module's last run the tensors of numbers, where the gradient is taken as at a tap.
        places: of these, their places among all tensors of its output.
        fresh: of these, whether the graph begins there.
        gradients: by those; None where no graph leads from the score.
        graph: whether one leads from the score to the image, or to anything that has more than channels.
        table: the scores' shape, if there is one for each class and pixel.
    """

    turns: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    points: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    fresh: dict[str, frozenset[int]] = field(default_factory=dict)
    gradients: dict[tuple[str, int], Tensor | None] = field(default_factory=dict)
    graph: bool = False
    table: tuple[int, ...] = ()

    def used(self, name: str) -> int:
        """The place of the first tensor that the score depends on, else of the first."""
        places = list(self.points[name])
        gradients = {place: self.gradients.get((name, place)) for place in places}
        led = [place for place, gradient in gradients.items() if gradient is not None]
        moved = [place for place, gradient in gradients.items() if gradient is not None and _is_felt(gradient)]
        return [*moved, *led, *places][0]

    def started(self, layer: Layer) -> bool:
        """Whether the graph starts at a layer of which a map can be made."""
        return not layer.reason and layer.part in self.fresh.get(layer.name, ())


def _met(module: nn.Module, image: Tensor, read: Callable[[Any, int], Reading]) -> _Met:
    met = _Met()

    def hear(name: str, output: Any) -> Any:
        met.turns[name] = len(met.turns)
        if not name:
            return None
        found = {place: one for place, one in enumerate(tensors(output)) if one.is_floating_point()}
        if not found:
            return None
        # As a tap does it, so that what a layer hands on is found where a tap will look for it.
        alone = sum(1 for _ in tensors(output)) == 1
        met.points[name] = {place: point_of(one, alone) for place, one in found.items()}
        met.fresh[name] = frozenset(place for place, one in found.items() if not one.requires_grad)
        met.calls[name] = met.calls.get(name, 0) + 1
        for place, one in found.items():
            output = replaced(output, one, met.points[name][place].clone())
        return output

    with torch.inference_mode(False), torch.enable_grad(), frozen(module), unfiltered(module), listened(module, hear):
        leaf = image.detach().clone().requires_grad_()
        reading = read(module(leaf.clone()), len(image))
        score = reading.total()
        table = table_of(reading)
        met.table = tuple(table.shape) if table is not None and table.ndim == 4 else ()
        if score.requires_grad:
            wanted = [(name, place) for name, some in met.points.items() for place in some]
            points = [met.points[name][place] for name, place in wanted]
            found: Sequence[Tensor | None] = torch.autograd.grad(score, [leaf, *points], allow_unused=True)
            met.gradients = dict(zip(wanted, found[1:], strict=True))
            met.graph = found[0] is not None or any(one is not None and one.ndim > 2 for one in found)
    return met


def _parts(layer: Layer, met: _Met) -> Iterator[Layer]:
    """The layer with each tensor that it gives, that on the way to the score first."""
    places = list(met.points[layer.name])
    for place in sorted(places, key=lambda one: one != layer.part):
        yield replace(layer, shape=tuple(met.points[layer.name][place].shape), part=place)


def _still(module: nn.Module, image: Tensor, layers: Sequence[Layer]) -> set[str]:
    """The layers that say the same of another image: what they give is no picture's."""
    if not layers:
        return set()
    said: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    parts = {layer.name: layer.part for layer in layers}

    def hear(name: str, output: Any) -> None:
        if name in said and (tensor := tensor_at(output, parts[name])) is not None:
            said[name].append(tensor.detach().clone())

    with torch.no_grad(), frozen(module), unfiltered(module), listened(module, hear):
        for one in (image, image.flip(3)):
            module(one.clone())
    halves = {name: (some[: len(some) // 2], some[len(some) // 2 :]) for name, some in said.items()}
    return {name for name, (one, other) in halves.items() if all(map(torch.equal, one, other))}


def _is_felt(gradient: Tensor) -> bool:
    """Whether a gradient is anything but zero: mostly a part of it tells."""
    part = gradient.select(-1, gradient.shape[-1] // 2) if gradient.ndim and gradient.shape[-1] else gradient
    return bool(part.any()) or bool(gradient.any())


def plain_layouts(
    layers: Sequence[Layer],
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    images: int = 1,
) -> frozenset[Layout]:
    """The layouts of the layers that can be read in one way only, whatever the others do."""
    read = (
        [one for one in readings(layer.shape, size, prefix, grid, images) if one.order != "ncl"] for layer in layers
    )
    return frozenset(ways[0] for ways in read if len(ways) == 1)


def _with_layout(
    layer: Layer,
    met: _Met,
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    plain: frozenset[Layout],
    images: int = 1,
) -> Layer:
    gradient = met.gradients.get((layer.name, layer.part))
    vanished = gradient is not None and not _is_felt(gradient)
    layer = replace(layer, reached=gradient is not None and not vanished, vanished=vanished)
    ways = settled(readings(layer.shape, size, prefix, grid, images), plain)
    if not ways:
        pieces = layer.shape[0] if layer.shape else images
        if pieces == images and len(layer.shape) == 5:
            return replace(layer, reason="a volume or a video: no grid in the image plane")
        if images > 1 and pieces != images:
            return replace(layer, reason=f"gives {pieces} rows for {images} pictures")
        return replace(layer, reason="no grid" if pieces == images else f"cuts the image into {pieces} samples")
    if len(ways) > 1:
        return replace(layer, reason="ambiguous: " + " or ".join(map(str, ways)))
    [layout] = ways
    form = canonical(torch.empty(layer.shape, device="meta"), layout).shape
    scores = bool(met.table) and form[1] == met.table[1]
    reached = gradient is not None and _is_felt(canonical(gradient, layout))
    reason = "" if reached or vanished else UNREACHED if met.graph else NO_GRAPH
    return replace(
        layer,
        layout=layout,
        reached=reached,
        reason=reason,
        channels=form[1],
        scores=scores,
        final=scores and form[2:] == met.table[2:],
    )


def token_layout(
    layers: Sequence[Layer],
    tokens: int,
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    images: int = 1,
) -> Layout:
    """How the tokens of a network's attention lie on a grid: as in the layers that give as many tokens, or the cells.

    Args:
        layers: the network's, as :func:`survey` found them.
        tokens: how many the attention is over.
        size: of the model's input.
        prefix: how many tokens stand before the patches, if the source says so.
        grid: the patch grid, if the source says so.
        images: how many the network was given.

    Raises:
        RequestError: no layer gives that many, or a grid of them behind a few others; or several readings remain.
    """
    lengths = {length for layer in layers for length in _lengths(layer.shape, images)}
    # A layer with rows and columns says the grid, one with tokens what stands before it too.
    plain = plain_layouts(layers, size, prefix, grid, images)
    grids = {one.grid for one in plain}
    ways = [
        one
        for one in readings((1, tokens, 1), size, prefix, grid)
        # A pooling by attention may put a token of its own before the cells of a map.
        if one.order == "tokens" and (tokens in lengths or one.grid in grids)
    ]
    if not ways:
        raise RequestError(
            f"its attention is over {tokens} things that are no patches of the image, perhaps channels",
            "choose a method that works at a layer, such as gradcam",
        )
    return decide(ways, (1, tokens, 1), plain)


def _lengths(shape: tuple[int, ...], images: int = 1) -> tuple[int, ...]:
    """How many tokens an output of this shape can hold: of a sequence its length, of a map its cells.

    Channels do not count: some networks have attention among them, over what is no place.
    """
    if len(shape) == 3:
        # Behind nn.MultiheadAttention the images may be second.
        return shape[:2] if shape[1] == images else shape[1:2]
    return (shape[1] * shape[2], shape[2] * shape[3]) if len(shape) == 4 else ()
