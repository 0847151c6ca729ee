"""What every layer of a network gives for one input, whether a map can be made there, and which layer to choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.capture import first_tensor, frozen, listened
from camcli.errors import RequestError
from camcli.layout import Layout, Order, canonical, decide, readings
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
    """

    name: str
    type: str
    shape: tuple[int, ...] = ()
    layout: Layout | None = None
    reason: str = ""
    turn: int | None = None


def probe_image(size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 3 h w"]:
    """Seeded noise to try a network on: unlike a blank image it drives every channel."""
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(device, dtype)


def survey(
    module: nn.Module,
    image: Float[Tensor, "1 3 h w"],
    prefix: int | None = None,
    grid: tuple[int, int] | None = None,
    read: Callable[[Any, int], Reading] = PLAIN.read,
) -> list[Layer]:
    """Every layer below the module, in the order of ``named_modules``; one forward and one backward.

    Args:
        module: takes the image to what ``read`` reads.
        image: one input.
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
        score = read(module(image.detach().clone().requires_grad_().clone()), 1).total()
        heard = [(name, tensors[-1]) for name, tensors in outputs.items() if tensors[-1].requires_grad]
        gradients: dict[str, Tensor | None] = {}
        if score.requires_grad:
            found = torch.autograd.grad(score, [tensor for _, tensor in heard], allow_unused=True)
            gradients = dict(zip((name for name, _ in heard), found, strict=True))

    size = (image.shape[2], image.shape[3])
    layers = []
    for name, part in module.named_modules():
        if not name:
            continue
        layer = Layer(name, type(part).__name__, turn=turns.get(name))
        if name not in turns:
            layer = replace(layer, reason="does not run")
        elif name not in outputs:
            layer = replace(layer, reason="gives no tensor")
        else:
            layer = replace(layer, shape=tuple(outputs[name][-1].shape))
            if len(outputs[name]) > 1:
                layer = replace(layer, reason=f"runs {len(outputs[name])} times")
        layers.append(layer)

    orders = _plain_orders(layers, size, prefix, grid)
    return [
        layer if layer.reason else _with_layout(layer, gradients.get(layer.name), size, prefix, grid, orders)
        for layer in layers
    ]


def _plain_orders(
    layers: Sequence[Layer], size: tuple[int, int], prefix: int | None, grid: tuple[int, int] | None
) -> frozenset[Order]:
    """The orders in which some layer can only be read."""
    read = (readings(layer.shape, size, prefix, grid) for layer in layers)
    return frozenset(ways[0].order for ways in read if len(ways) == 1)


def _with_layout(
    layer: Layer,
    gradient: Tensor | None,
    size: tuple[int, int],
    prefix: int | None,
    grid: tuple[int, int] | None,
    orders: frozenset[Order],
) -> Layer:
    ways = readings(layer.shape, size, prefix, grid)
    if not ways:
        pieces = layer.shape[0] if layer.shape else 1
        return replace(layer, reason="no grid" if pieces == 1 else f"cuts the image into {pieces} samples")
    try:
        layout = decide(ways, layer.shape, orders)
    except RequestError:
        return replace(layer, reason="ambiguous: " + " or ".join(map(str, ways)))
    if gradient is None or not bool(canonical(gradient, layout).any()):
        return replace(layer, layout=layout, reason="no gradient reaches it")
    return replace(layer, layout=layout)


def default_layer(module: nn.Module, layers: Sequence[Layer]) -> str:
    """The layer that is explained when none is named.

    Among the layers of which a map can be made, without poolings and what is inside them, and without modules that
    only pass on (dropout, identity): the one that ends last. Where patches speak to the class only through prefix
    tokens, the last normalisation among them, which is the input of the last attention: behind it no gradient reaches
    the patches. A container counts as its last module unless that is a pooling, since it gives the same tensor.

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
        return type(kinds[name]).__name__.startswith(("Dropout", "DropPath", "Identity"))

    able = [layer for layer in layers if not layer.reason and not is_pooled(layer.name) and not passes_on(layer.name)]
    mixed = [layer for layer in able if layer.layout and layer.layout.prefix and "norm" in layer.type.lower()]
    by_turn = sorted(mixed or able, key=lambda layer: layer.turn or 0)
    if not by_turn:
        raise RequestError(
            f"no layer of this network ({type(module).__name__}) has a spatial grid that the score's gradient reaches",
            "use a method that works at the input: --method guided-backprop",
        )
    return by_turn[-1].name
