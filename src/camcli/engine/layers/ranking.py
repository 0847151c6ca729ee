"""Ranking of the layers that can be explained when none is named."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from camcli.engine.layers.probe import NO_GRAPH, UNREACHED, LayerInfo


def rank_layers(module: nn.Module, layers: Sequence[LayerInfo], needs_graph: bool = True) -> list[str]:
    """Rank the layers that can be the default, best first.

    The best is the layer that ends last among those that a map can be made of and that run once, without poolings and
    modules inside them, modules that only pass their input on (dropout, identity), and auxiliary heads (``aux...``).
    Where patches reach the class only through prefix tokens, so that the gradient reaches no patch after that layer,
    it is the last normalisation of such tokens, the input of the last attention. A container counts as its last module,
    whose output it returns, unless that is a pooling. In a network that scores every pixel, layers at the end with one
    channel per class are left out, since their map is that of the scores.

    Args:
        module: the network.
        layers: as :func:`camcli.engine.layers.probe.probe_layers` found them.
        needs_graph: whether to leave out layers without a gradient because the score has no graph.
    """
    kinds = dict(module.named_modules())
    # PoolFormer has it in the names of all its modules.
    types = {name: type(part).__name__.lower().replace("poolformer", "") for name, part in kinds.items()}
    pools = {name for name, kind in types.items() if "pool" in kind}

    def is_pooled(name: str) -> bool:
        steps = name.split(".")
        inside = any(".".join(steps[: end + 1]) in pools for end in range(len(steps)))
        last = list(kinds[name].named_children()) if isinstance(kinds[name], nn.Sequential) else []
        return inside or bool(last and is_pooled(f"{name}.{last[-1][0]}"))

    def is_passthrough(name: str) -> bool:
        aside = any(step.startswith("aux") for step in name.split("."))
        return aside or type(kinds[name]).__name__.startswith(("Dropout", "DropPath", "Identity"))

    usable = [layer for layer in layers if not layer.reason or (not needs_graph and layer.reason == NO_GRAPH)]
    # A layer whose gradient vanishes on noise is no default while others have a gradient.
    usable = [layer for layer in usable if not layer.vanished] or usable
    candidates = [layer for layer in usable if not is_pooled(layer.name) and not is_passthrough(layer.name)]
    candidates = [layer for layer in candidates if layer.calls == 1] or candidates
    candidates = sorted(
        (layer for layer in candidates if not layer.is_score_map), key=lambda layer: layer.position or 0
    )
    while candidates and candidates[-1].gives_scores:
        candidates.pop()
    end = max((layer.position or 0 for layer in candidates), default=0)
    cut_off = [layer for layer in layers if layer.layout and layer.layout.prefix and layer.reason == UNREACHED]
    through_prefix = any((layer.position or 0) > end for layer in cut_off)
    norms = [layer for layer in candidates if is_token_norm(layer)]
    return [layer.name for layer in reversed((norms if through_prefix else []) or candidates)]


def is_token_norm(layer: LayerInfo) -> bool:
    """Return whether a layer is a normalisation of tokens with a prefix."""
    return bool(layer.layout and layer.layout.prefix and "norm" in layer.type.lower())
