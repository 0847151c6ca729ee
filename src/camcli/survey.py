"""What every layer of a network gives for one input, whether a map can be made there, and which layer to choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.capture import closed_parts, first_tensor, frozen, listened
from camcli.errors import RequestError
from camcli.layout import Layout, canonical, decide, readings, settled
from camcli.outlet import PLAIN, Reading, unfiltered


@dataclass(frozen=True, slots=True)
class Layer:
    """One module of a network, as it was met in a forward of one image.

    Attributes:
        name: its full name.
        type: its class's name.
        shape: of its output (or of the first tensor in it), batch first; empty if it gives none.
        layout: how the output is read as a grid, if it can be.
        reason: why no map can be made here, or empty.
        turn: its place in the order in which modules ended; None if it did not run.
        calls: how often it ran; the last time is what the rest describes.
        reached: whether the gradient of the score reaches anything of its output; of a grid's, its cells.
    """

    name: str
    type: str
    shape: tuple[int, ...] = ()
    layout: Layout | None = None
    reason: str = ""
    turn: int | None = None
    calls: int = 1
    reached: bool = False


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
    outputs: dict[str, list[Tensor]] = {}
    turns: dict[str, int] = {}

    def hear(name: str, output: Any) -> None:
        turns[name] = len(turns)
        tensor = first_tensor(output)
        if tensor is not None:
            outputs.setdefault(name, []).append(tensor)

    with torch.inference_mode(False), torch.enable_grad(), frozen(module), unfiltered(module), listened(module, hear):
        score = read(module(image.detach().clone().requires_grad_().clone()), len(image)).total()
        heard = [(name, tensors[-1]) for name, tensors in outputs.items() if tensors[-1].requires_grad]
        gradients: dict[str, Tensor | None] = {}
        if score.requires_grad:
            found = torch.autograd.grad(score, [tensor for _, tensor in heard], allow_unused=True)
            gradients = dict(zip((name for name, _ in heard), found, strict=True))

    size = (image.shape[2], image.shape[3])
    layers = []
    closed = closed_parts(module)
    for name, part in module.named_modules():
        if not name:
            continue
        layer = Layer(name, type(part).__name__, turn=turns.get(name))
        hidden = next((one for one in closed if one.hides(name)), None)
        if hidden:
            layer = replace(layer, reason=hidden.words)
        elif name not in turns:
            layer = replace(layer, reason="does not run")
        elif name not in outputs:
            layer = replace(layer, reason="gives no tensor")
        else:
            layer = replace(layer, shape=tuple(outputs[name][-1].shape), calls=len(outputs[name]))
        layers.append(layer)

    images = len(image)
    plain = plain_layouts(layers, size, prefix, grid, images)
    return [
        layer if layer.reason else _with_layout(layer, gradients.get(layer.name), size, prefix, grid, plain, images)
        for layer in layers
    ]


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
    gradient: Tensor | None,
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    plain: frozenset[Layout],
    images: int = 1,
) -> Layer:
    layer = replace(layer, reached=gradient is not None and bool(gradient.any()))
    ways = settled(readings(layer.shape, size, prefix, grid, images), plain)
    if not ways:
        pieces = layer.shape[0] if layer.shape else images
        if pieces == images and len(layer.shape) == 5:
            return replace(layer, reason="a volume or a film, no grid in the picture's plane")
        if images > 1 and pieces != images:
            return replace(layer, reason=f"gives {pieces} rows for {images} pictures")
        return replace(layer, reason="no grid" if pieces == images else f"cuts the image into {pieces} samples")
    if len(ways) > 1:
        return replace(layer, reason="ambiguous: " + " or ".join(map(str, ways)))
    [layout] = ways
    reached = gradient is not None and bool(canonical(gradient, layout).any())
    return replace(layer, layout=layout, reached=reached, reason="" if reached else "no gradient reaches it")


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


def no_gradient(module: nn.Module, layers: Sequence[Layer], name: str) -> RequestError:
    """Why the score's gradient does not reach a layer's cells: where it is cut, and a layer that works."""
    here = next(layer for layer in layers if layer.name == name)
    behind = sorted(
        (layer for layer in layers if layer.turn is not None and layer.turn > (here.turn or 0)),
        key=lambda layer: layer.turn or 0,
    )
    after = next((layer for layer in behind if layer.reached and not name.startswith(f"{layer.name}.")), None)
    before = [layer for layer in behind if layer.layout and (after is None or (layer.turn or 0) < (after.turn or 0))]
    last = before[-1] if before else here
    if after is None:
        cause = "behind it nothing that was seen leads to the score"
    elif last.layout and last.layout.prefix:
        cause = (
            f"{after.name!r} ({after.type}) is given only what the prefix tokens of {last.name!r} say, "
            "so the patches are cut off there"
        )
    else:
        cause = f"it is cut between {last.name!r} and {after.name!r} ({after.type})"
    try:
        better = f"; {default_layer(module, layers)!r} works"
    except RequestError:
        better = ""
    return RequestError(
        f"no gradient of the class score reaches the map's cells at the layer {name!r}, so every map would be zero: "
        + cause,
        f"choose an earlier layer{better}; `camcli layers MODEL` lists those that can be used",
    )


def first_not_finite(module: nn.Module, image: Float[Tensor, "1 d h w"]) -> str:
    """The first module whose output holds NaN or infinite values, as words for a message; empty if none does."""
    found: list[str] = []
    kinds = dict(module.named_modules())

    def hear(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        if not found and tensor is not None and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            found.append(f"{name!r} ({type(kinds[name]).__name__})" if name else "the model itself")

    with torch.no_grad(), frozen(module), listened(module, hear):
        module(image)
    return found[0] if found else ""


def default_layer(module: nn.Module, layers: Sequence[Layer]) -> str:
    """The layer that is explained when none is named.

    Among the layers of which a map can be made and that run once, without poolings and what is inside them, without
    modules that only pass on (dropout, identity), and without auxiliary heads (``aux...``): the one that ends last.
    Where patches speak to the class only through prefix tokens, so that behind that layer there are patches that no
    gradient reaches, the last normalisation among those with such tokens, which is the input of the last attention. A
    container counts as its last module unless that is a pooling, since it gives the same tensor.

    Raises:
        RequestError: there is no such layer.
    """
    kinds = dict(module.named_modules())
    pools = {name for name, part in kinds.items() if "pool" in type(part).__name__.lower()}

    def is_pooled(name: str) -> bool:
        steps = name.split(".")
        inside = any(".".join(steps[: end + 1]) in pools for end in range(len(steps)))
        last = list(kinds[name].named_children()) if isinstance(kinds[name], nn.Sequential) else []
        return inside or bool(last and is_pooled(f"{name}.{last[-1][0]}"))

    def passes_on(name: str) -> bool:
        aside = any(step.startswith("aux") for step in name.split("."))
        return aside or type(kinds[name]).__name__.startswith(("Dropout", "DropPath", "Identity"))

    able = [layer for layer in layers if not layer.reason and not is_pooled(layer.name) and not passes_on(layer.name)]
    able = [layer for layer in able if layer.calls == 1] or able
    end = max((layer.turn or 0 for layer in able), default=0)
    cut_off = [layer for layer in layers if layer.layout and layer.layout.prefix and not layer.reached]
    through_prefix = any((layer.turn or 0) > end for layer in cut_off)
    norms = [layer for layer in able if layer.layout and layer.layout.prefix and "norm" in layer.type.lower()]
    by_turn = sorted((norms if through_prefix else []) or able, key=lambda layer: layer.turn or 0)
    if not by_turn:
        raise RequestError(
            f"no layer of this network ({type(module).__name__}) has a spatial grid that the score's gradient reaches",
            "use a method that works at the input: --method guided-backprop",
        )
    return by_turn[-1].name
