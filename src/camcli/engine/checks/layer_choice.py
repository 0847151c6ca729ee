"""Choice of the default layer, and of one of several tensors that a layer returns."""

from __future__ import annotations

import warnings
from contextlib import suppress

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.checks.compatibility import check_fusion, explains_pyramid
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.layouts import probe_network
from camcli.engine.hooks.capture import Activations
from camcli.engine.hooks.state import find_quantised_modules
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.layers.levels import find_pyramid_levels
from camcli.engine.layers.paths import canonicalize_names
from camcli.engine.setup import GRADIENT_SIGNALS, Setup


def choose_layer(setup: Setup, findings: Findings, image: Tensor) -> None:
    """Choose the default layer if a method needs one and none is named."""
    if not findings.plans and setup.signal_names & GRADIENT_SIGNALS:
        _check_not_quantised(setup, image)
    if setup.uses_layer and not setup.layers:
        if explains_pyramid(setup) and (found := _find_pyramid_levels(setup, image)):
            setup.layers = found
            setup.fuse = "sum" if setup.fuse == "none" else setup.fuse
            return
        known = setup.network.layer if setup.network else ""
        first = canonicalize_names(setup.module, [known] if known else [])
        findings.takes_default_layer = True
        take_default_layer(setup, findings, first[0] if first else "", image)
        check_fusion(setup, setup.layers)


def needs_layer_search(setup: Setup) -> bool:
    """Return whether the default layer still has to be searched for."""
    known = setup.network.layer if setup.network else ""
    return setup.uses_layer and not setup.layers and not known


def take_default_layer(setup: Setup, findings: Findings, name: str, image: Tensor) -> None:
    """Use this layer as the default, or the first one that works and has not failed."""
    if not name:
        layers = findings.layer_infos.pop(setup.size_key(image), []) or probe_network(setup, image)
        images = setup.runner.make_leaf(image).detach()
        name = find_default_layer(
            setup.module, layers, images, setup.read_predictions, setup.needs_graph, findings.failed_layers
        )
        setup.runner.tensor_indices[name] = next(layer.tensor_index for layer in layers if layer.name == name)
    setup.layers = (name,)


def _find_pyramid_levels(setup: Setup, image: Tensor) -> tuple[str, ...]:
    """Find the levels that boxes are read from, unless the source names another layer."""
    pyramid = setup.network.pyramid if setup.network else ""
    if setup.network and setup.network.layer and not pyramid:
        return ()
    return find_pyramid_levels(setup.module, setup.runner.make_leaf(image).detach(), setup.read_predictions, pyramid)


def _check_not_quantised(setup: Setup, image: Tensor) -> None:
    """Check that gradients pass a network with quantised modules."""
    parts = find_quantised_modules(setup.module)
    if not parts:
        return
    with setup.runner.ready(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns about operations without a gradient
        leaf, passes = setup.runner.make_leaf(image, from_input=True), False
        with suppress(RuntimeError):  # quantised operations may refuse tensors that require grad
            total = setup.runner.read_predictions(setup.module(leaf), len(image)).sum_scores()
            passes = torch.autograd.grad(total, leaf, allow_unused=True)[0] is not None
    if not passes:
        raise RequestError(
            f"the network is quantised at {parts[0]!r}, and no gradient passes integer arithmetic",
            "explain the floating-point model that it was made from; or name a layer and a method that needs no "
            "gradient: --method eigencam, scorecam, ablationcam, ...",
        )


def choose_tensors(setup: Setup, activations: Activations, image: Tensor) -> bool:
    """Choose the first tensor that the score depends on, for layers that return several; return True if one changes."""
    indices = setup.runner.tensor_indices
    several = [name for name in activations if activations.tensor_counts[name] > 1 and name not in indices]
    if several:
        known = {layer.name: layer.tensor_index for layer in probe_network(setup, image)}
        indices |= {name: known[name] for name in several}
    return any(indices[name] for name in several)
