"""Errors for layers at which no map can be made, with hints what to do instead."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.layers.probe import LayerInfo
from camcli.engine.layers.ranking import rank_layers


class LayerError(RequestError):
    """No map can be made at a layer; perhaps one can at another."""


def no_gradient_error(module: nn.Module, layers: Sequence[LayerInfo], name: str) -> LayerError:
    """Return the error for a layer whose cells the score's gradient does not reach, with a layer that works."""
    return no_grad_fn_error() if lacks_graph(layers) else cut_off_error(module, layers, name)


def cut_off_error(module: nn.Module, layers: Sequence[LayerInfo], name: str, gradient: bool = True) -> LayerError:
    """Return the error for a layer whose cells do not affect the score: where the path is cut, and a layer that works.

    Args:
        module: the network.
        layers: as :func:`camcli.engine.layers.probe.probe_layers` found them.
        name: the layer's name.
        gradient: True if no gradient reaches the cells; False if not even changing them changes the score.
    """
    here = next(layer for layer in layers if layer.name == name)
    behind = sorted(
        (layer for layer in layers if layer.position is not None and layer.position > (here.position or 0)),
        key=lambda layer: layer.position or 0,
    )
    after = next((layer for layer in behind if layer.reached and not name.startswith(f"{layer.name}.")), None)
    before = [
        layer for layer in behind if layer.layout and (after is None or (layer.position or 0) < (after.position or 0))
    ]
    last = before[-1] if before else here
    if here.is_bypassed:
        cause = "the score depends on another of the tensors that it returns, which has no grid"
    elif after is None:
        cause = "no module after it was found to lead to the score"
    elif last.layout and last.layout.prefix:
        cause = (
            f"{after.name!r} ({after.type}) takes only the prefix tokens of {last.name!r}, so the patches are dropped "
            "there"
        )
    else:
        cause = f"it is cut between {last.name!r} and {after.name!r} ({after.type})"
    better = next((one for one in rank_layers(module, layers, not lacks_graph(layers)) if one != name), "")
    what = "no gradient of the class score reaches" if gradient else "the class score does not depend on"
    return LayerError(
        f"{what} the map's cells at the layer {name!r}, so every map would be zero: {cause}",
        f"choose another layer: {better!r} works; `camcli layers MODEL` lists those that can be used"
        if better
        else f"no layer can be used: {suggest_input_method(module)}",
    )


def lacks_graph(layers: Sequence[LayerInfo]) -> bool:
    """Return whether the score had no graph at all when the layers were probed."""
    return any(not layer.has_graph for layer in layers)


def no_grad_fn_error() -> LayerError:
    """Return the error for a score without a graph, so that there is no gradient at any layer."""
    return LayerError(
        "the model's output has no grad_fn, so there is no gradient at any layer: its forward pass, or part of it, "
        "runs under torch.no_grad or torch.inference_mode, or detaches its output",
        "remove that from the model; or choose a method that needs no gradient, such as eigencam, ablation-cam, "
        "scorecam or rise",
    )


def no_layer_error(module: nn.Module, layers: Sequence[LayerInfo]) -> RequestError:
    """Return the error for a network without a default layer."""
    if lacks_graph(layers):
        return no_grad_fn_error()
    if scores := next((layer.name for layer in layers if layer.gives_scores and not layer.reason), ""):
        return RequestError(
            f"the only layers of this network ({type(module).__name__}) with a grid compute the scores themselves, "
            "where a map is the class's own score map",
            f"{suggest_input_method(module)}; or for that map --layer {scores}",
        )
    return RequestError(
        f"no layer of this network ({type(module).__name__}) has a spatial grid that the score's gradient reaches",
        suggest_input_method(module),
    )


def suggest_input_method(module: nn.Module) -> str:
    """Suggest a method that works at the input, for networks without a layer to explain."""
    if not any(True for _ in module.parameters()):  # another library computes it
        return "use a method that only hides parts of the image: --method occlusion or rise"
    relus = any(isinstance(part, nn.ReLU | nn.ReLU6) for part in module.modules())
    return f"use a method that works at the input: --method {'guided-backprop' if relus else 'integrated-gradients'}"
