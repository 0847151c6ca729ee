"""Table of a model's layers: output shape, layout, and whether a map can be made there."""

from __future__ import annotations

import torch

from camcli.base.errors import RequestError
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.layers.paths import canonicalize_names, resolve
from camcli.engine.layers.probe import NO_GRAPH, LayerInfo, probe_image, probe_layers
from camcli.engine.layers.refusals import lacks_graph, no_gradient_error
from camcli.models import FILE_SOURCES, RANDOM_WEIGHTS, listing, load, names_cache
from camcli.models.adapters.told import MissingPreprocessError

# A layer's shape does not depend on the prompts; a model that needs prompts gets these.
PLACEHOLDER_PROMPTS = ("a photo", "a drawing")
# Nor does it depend on the values of images, where nothing says them.
ANY_PREPROCESS = "0..1"


LayerRow = tuple[str, str, str, str, str]


def list_layers(
    model: str, layer: str | None = None, depth: int = 0, size: str = "", output: str = ""
) -> tuple[list[LayerRow], RequestError | None]:
    """List a model's layers: name, type, output shape, layout, and whether a map can be made there.

    Only the structure matters, so weights are not fetched: models of the libraries are built with random ones.

    Args:
        model: a model string.
        layer: list only the layers that this path names, with their submodules.
        depth: levels below the top; 0 for all.
        size: of the input, ``256`` or ``256x384``; empty for the model's own.
        output: path to the scores in the model's output, if they are not found automatically.

    Returns:
        The rows, and an error that says why ``layer`` can have no map, if no gradient reaches it.

    Raises:
        RequestError: there is no such model or layer, or the model does not take images of that size.
    """
    source, _ = listing.resolve(model)
    text = PLACEHOLDER_PROMPTS if source == "open_clip" else ()
    weights = "" if source in FILE_SOURCES and not model.endswith((".yaml", ".yml")) else RANDOM_WEIGHTS
    try:
        network = load.load(model, weights=weights, text=text, size=size, output=output)
    except MissingPreprocessError:
        network = load.load(model, preprocess=ANY_PREPROCESS, weights=weights, text=text, size=size, output=output)
    names_cache.write_model(model, network)
    tops = canonicalize_names(network.module, resolve(network.module, [layer])) if layer else []
    image = probe_image(
        network.preprocess.size, torch.float32, torch.device("cpu"), channels=network.preprocess.channels
    )
    found = probe_layers(network.module, image, network.prefix, network.grid, network.read, network.suffix)
    try:
        graph = not lacks_graph(found)
        chosen = network.layer or find_default_layer(network.module, found, image, network.read, graph)
    except RequestError:
        chosen = ""
    rows = []
    for one in found:
        level = one.name.count(".")
        if tops and not any(one.name == top or one.name.startswith(top + ".") for top in tops):
            continue
        if depth and level - (tops[0].count(".") if tops else 0) >= depth:
            continue
        rows.append(_make_row(one, chosen))
    dead = next((one.name for one in found if one.name in tops and one.reason and one.layout), None)
    dead = None if lacks_graph(found) else dead
    return rows, no_gradient_error(network.module, found, dead) if dead else None


def _make_row(layer: LayerInfo, chosen: str) -> LayerRow:
    return (
        layer.name,
        layer.type,
        "x".join(map(str, ("n", *layer.shape[1:]))) if layer.shape else "",
        str(layer.layout) if layer.layout else "",
        _describe_default(layer)
        if layer.name == chosen
        else _describe_missing_gradient(layer) or layer.reason or _describe_map_support(layer),
    )


def _describe_default(layer: LayerInfo) -> str:
    return f"default; {_describe_missing_gradient(layer)}" if _describe_missing_gradient(layer) else "default"


def _describe_missing_gradient(layer: LayerInfo) -> str:
    """Return a note if a layer has no gradient, which some methods do not need; else an empty string."""
    return "without gradient: the model's output has no grad_fn" if layer.reason == NO_GRAPH else ""


def _describe_map_support(layer: LayerInfo) -> str:
    if layer.vanished:
        return "yes, but on noise its gradient is zero"
    return "yes" if layer.calls == 1 else f"yes: the last of {layer.calls} calls"
