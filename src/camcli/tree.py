"""A model's layers as a table: what each gives, and whether a map can be made there."""

from __future__ import annotations

import torch

from camcli import models
from camcli.errors import RequestError
from camcli.job import RANDOM_WEIGHTS
from camcli.layers import first_names, resolve
from camcli.survey import Layer, default_layer, no_gradient, probe_image, survey

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
    source, _ = models.resolve(model)
    text = ANY_PROMPTS if source == "open_clip" else ()
    weights = "" if source in ("bundled", "local") else RANDOM_WEIGHTS
    network = models.load(model, weights=weights, text=text, size=size, output=output)
    tops = first_names(network.module, resolve(network.module, [layer])) if layer else []
    image = probe_image(network.prepare.size, torch.float32, torch.device("cpu"), channels=network.prepare.channels)
    found = survey(network.module, image, network.prefix, network.grid, network.read)
    try:
        chosen = network.layer or default_layer(network.module, found)
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
    dead = next((one.name for one in found if one.name in tops and one.layout and not one.reached), None)
    return rows, no_gradient(network.module, found, dead) if dead else None


def _row(layer: Layer, chosen: str) -> Cells:
    return (
        layer.name,
        layer.type,
        "x".join(map(str, ("n", *layer.shape[1:]))) if layer.shape else "",
        str(layer.layout) if layer.layout else "",
        "default" if layer.name == chosen else layer.reason or _able(layer),
    )


def _able(layer: Layer) -> str:
    return "yes" if layer.calls == 1 else f"yes: the last of {layer.calls} runs"
