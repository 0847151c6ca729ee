"""The layers that can be explained when none is named, best first."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from camcli.engine.layers.probe import NO_GRAPH, UNREACHED, Layer


def ranked(module: nn.Module, layers: Sequence[Layer], graph: bool = True) -> list[str]:
    """The layers that can be the default, best first.

    Among the layers of which a map can be made and that run once, without poolings and what is inside them, without
    modules that only pass on (dropout, identity), and without auxiliary heads (``aux...``): the one that ends last.
    Where patches speak to the class only through prefix tokens, so that behind that layer there are patches that no
    gradient reaches, the last normalisation among those with such tokens, which is the input of the last attention. A
    container counts as its last module unless that is a pooling, since it gives the same tensor. Of a network that
    scores every pixel none at the end that has as many channels as there are classes: its map is that of the scores.

    Args:
        module: the network.
        layers: as :func:`camcli.engine.layers.probe.survey` found them.
        graph: whether those do not count at which there is no gradient since the score has no graph.
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

    usable = [layer for layer in layers if not layer.reason or (not graph and layer.reason == NO_GRAPH)]
    # Where others have a gradient, none is chosen unasked whose own vanishes on noise.
    usable = [layer for layer in usable if not layer.vanished] or usable
    able = [layer for layer in usable if not is_pooled(layer.name) and not passes_on(layer.name)]
    able = [layer for layer in able if layer.calls == 1] or able
    able = sorted((layer for layer in able if not layer.final), key=lambda layer: layer.turn or 0)
    while able and able[-1].scores:
        able.pop()
    end = max((layer.turn or 0 for layer in able), default=0)
    cut_off = [layer for layer in layers if layer.layout and layer.layout.prefix and layer.reason == UNREACHED]
    through_prefix = any((layer.turn or 0) > end for layer in cut_off)
    norms = [layer for layer in able if normalises(layer)]
    return [layer.name for layer in reversed((norms if through_prefix else []) or able)]


def normalises(layer: Layer) -> bool:
    """Whether a layer is a normalisation of tokens some of which are a prefix."""
    return bool(layer.layout and layer.layout.prefix and "norm" in layer.type.lower())
