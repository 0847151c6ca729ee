"""Why no map can be made at a layer, or at any, and what can be done: in words for people."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.layers.probe import Layer
from camcli.engine.layers.ranking import ranked


class LayerError(RequestError):
    """At a layer no map can be made; perhaps at another."""


def no_gradient(module: nn.Module, layers: Sequence[Layer], name: str) -> LayerError:
    """Why the score's gradient does not reach a layer's cells: where it is cut, and a layer that works."""
    return no_grad_fn() if no_graph(layers) else cut_off(module, layers, name)


def cut_off(module: nn.Module, layers: Sequence[Layer], name: str, gradient: bool = True) -> LayerError:
    """Why a layer's cells have no part in the score: where the way is cut, and a layer that works.

    Args:
        module: the network.
        layers: as :func:`camcli.engine.layers.probe.survey` found them.
        name: of the layer.
        gradient: whether it is the gradient that does not reach it; else not even a change of them is felt.
    """
    here = next(layer for layer in layers if layer.name == name)
    behind = sorted(
        (layer for layer in layers if layer.turn is not None and layer.turn > (here.turn or 0)),
        key=lambda layer: layer.turn or 0,
    )
    after = next((layer for layer in behind if layer.reached and not name.startswith(f"{layer.name}.")), None)
    before = [layer for layer in behind if layer.layout and (after is None or (layer.turn or 0) < (after.turn or 0))]
    last = before[-1] if before else here
    if here.aside:
        cause = "the score is made of another of the tensors that it gives, which has no grid"
    elif after is None:
        cause = "behind it nothing that was seen leads to the score"
    elif last.layout and last.layout.prefix:
        cause = (
            f"{after.name!r} ({after.type}) is given only the prefix tokens of {last.name!r}, "
            "so the patches are cut off there"
        )
    else:
        cause = f"it is cut between {last.name!r} and {after.name!r} ({after.type})"
    better = next((one for one in ranked(module, layers, not no_graph(layers)) if one != name), "")
    what = "no gradient of the class score reaches" if gradient else "the class score does not depend on"
    return LayerError(
        f"{what} the map's cells at the layer {name!r}, so every map would be zero: {cause}",
        f"choose another layer: {better!r} works; `camcli layers MODEL` lists those that can be used"
        if better
        else f"no layer can be used: {at_the_input(module)}",
    )


def no_graph(layers: Sequence[Layer]) -> bool:
    """Whether the score had no graph at all when the layers were looked at."""
    return any(not layer.graph for layer in layers)


def no_grad_fn() -> LayerError:
    """That the score has no graph, so that there is no gradient anywhere."""
    return LayerError(
        "the model's output has no grad_fn, so there is no gradient at any layer: its forward, or a part's, "
        "runs under torch.no_grad or torch.inference_mode, or detaches what it returns",
        "take that out of the model; or choose a method that needs no gradient, such as eigencam, ablation-cam, "
        "scorecam or rise",
    )


def no_layer(module: nn.Module, layers: Sequence[Layer]) -> RequestError:
    """That there is no layer to choose by default, and what can be done."""
    if no_graph(layers):
        return no_grad_fn()
    if scores := next((layer.name for layer in layers if layer.scores and not layer.reason), ""):
        return RequestError(
            f"no layer of this network ({type(module).__name__}) has a grid but those that give the scores themselves, "
            "where a map is the class's own score map",
            f"{at_the_input(module)}; or for that map --layer {scores}",
        )
    return RequestError(
        f"no layer of this network ({type(module).__name__}) has a spatial grid that the score's gradient reaches",
        at_the_input(module),
    )


def at_the_input(module: nn.Module) -> str:
    """What can be done where no layer can be looked at, in words for people."""
    relus = any(isinstance(part, nn.ReLU | nn.ReLU6) for part in module.modules())
    return f"use a method that works at the input: --method {'guided-backprop' if relus else 'integrated-gradients'}"
