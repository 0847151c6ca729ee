"""A model's layers as a table: what each gives, and whether a map can be made there."""

from __future__ import annotations

import torch

from camcli.base.errors import RequestError
from camcli.engine.layers.default_layer import found_default
from camcli.engine.layers.paths import first_names, resolve
from camcli.engine.layers.probe import NO_GRAPH, Layer, probe_image, survey
from camcli.engine.layers.refusals import no_gradient, no_graph
from camcli.models import RANDOM_WEIGHTS, listing, load

# A layer's shape does not depend on the prompts; a model that needs some gets these.
ANY_PROMPTS = ("a photo", "a drawing")


Cells = tuple[str, str, str, str, str]


def tree(
    model: str, layer: str | None = None, depth: int = 0, size: str = "", output: str = ""
) -> tuple[list[Cells], RequestError | None]:
    """The rows of a model's tree: name, type, output shape, layout, and whether a map can be made there.

    The structure is what counts, so weights are not fetched: models of the libraries are built with random ones.

    Args:
        model: a model string.
        layer: only this layer (or those that this path names) and what is inside.
        depth: levels below the top; 0 for all.
        size: of the input, ``256`` or ``256x384``; empty for the model's own.
        output: where in what the model returns its scores are, if that is not plain.

    Returns:
        The rows, and why the layer named can have no map, if no gradient reaches it.

    Raises:
        RequestError: there is no such model or layer, or the model does not take pictures of that size.
    """
    source, _ = listing.resolve(model)
    text = ANY_PROMPTS if source == "open_clip" else ()
    weights = "" if source in ("bundled", "local") else RANDOM_WEIGHTS
    network = load.load(model, weights=weights, text=text, size=size, output=output)
    tops = first_names(network.module, resolve(network.module, [layer])) if layer else []
    image = probe_image(network.prepare.size, torch.float32, torch.device("cpu"), channels=network.prepare.channels)
    found = survey(network.module, image, network.prefix, network.grid, network.read)
    try:
        graph = not no_graph(found)
        chosen = network.layer or found_default(network.module, found, image, network.read, graph)
    except RequestError:
        chosen = ""
    rows = []
    for one in found:
        level = one.name.count(".")
        if tops and not any(one.name == top or one.name.startswith(top + ".") for top in tops):
            continue
        if depth and level - (tops[0].count(".") if tops else 0) >= depth:
            continue
        rows.append(_row(one, chosen))
    dead = next((one.name for one in found if one.name in tops and one.reason and one.layout), None)
    dead = None if no_graph(found) else dead
    return rows, no_gradient(network.module, found, dead) if dead else None


def _row(layer: Layer, chosen: str) -> Cells:
    return (
        layer.name,
        layer.type,
        "x".join(map(str, ("n", *layer.shape[1:]))) if layer.shape else "",
        str(layer.layout) if layer.layout else "",
        _default(layer) if layer.name == chosen else _without(layer) or layer.reason or _able(layer),
    )


def _default(layer: Layer) -> str:
    return f"default; {_without(layer)}" if _without(layer) else "default"


def _without(layer: Layer) -> str:
    """That a layer will do for some methods."""
    return "without gradient: the model's output has no grad_fn" if layer.reason == NO_GRAPH else ""


def _able(layer: Layer) -> str:
    if layer.vanished:
        return "yes, but on noise its gradient is zero"
    return "yes" if layer.calls == 1 else f"yes: the last of {layer.calls} runs"
