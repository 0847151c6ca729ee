"""The layer that is explained where none is named, and which of its tensors."""

from __future__ import annotations

import warnings
from contextlib import suppress

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.checks.compatibility import check_fused, levelled
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.layouts import survey_layers
from camcli.engine.hooks.capture import Taps
from camcli.engine.hooks.state import quantised
from camcli.engine.layers.default_layer import found_default
from camcli.engine.layers.levels import levels
from camcli.engine.layers.paths import first_names
from camcli.engine.setup import GOES_BACK, Setup


def choose_layer(setup: Setup, findings: Findings, image: Tensor) -> None:
    """Choose the default layer, where a method wants one and none is named."""
    if not findings.plans and setup.wants & GOES_BACK:
        _check_floats(setup, image)
    if setup.at_layer and not setup.layers:
        if levelled(setup) and (found := _levels(setup, image)):
            setup.layers = found
            setup.fuse = "sum" if setup.fuse == "none" else setup.fuse
            return
        known = setup.network.layer if setup.network else ""
        first = first_names(setup.module, [known] if known else [])
        findings.default = True
        take_default(setup, findings, first[0] if first else "", image)
        check_fused(setup, setup.layers)


def is_searched(setup: Setup) -> bool:
    """Whether the default layer is still to be found among all."""
    known = setup.network.layer if setup.network else ""
    return setup.at_layer and not setup.layers and not known


def take_default(setup: Setup, findings: Findings, name: str, image: Tensor) -> None:
    """Take this layer as the default, or the first that will do and has not failed."""
    if not name:
        layers = findings.surveyed.pop(setup.key(image), []) or survey_layers(setup, image)
        images = setup.witness.leaf(image).detach()
        name = found_default(setup.module, layers, images, setup.read, setup.needs_graph, findings.failed)
        setup.witness.places[name] = next(layer.part for layer in layers if layer.name == name)
    setup.layers = (name,)


def _levels(setup: Setup, image: Tensor) -> tuple[str, ...]:
    """The levels that boxes are read from, where the source names no other layer."""
    pyramid = setup.network.pyramid if setup.network else ""
    if setup.network and setup.network.layer and not pyramid:
        return ()
    return levels(setup.module, setup.witness.leaf(image).detach(), setup.read, pyramid)


def _check_floats(setup: Setup, image: Tensor) -> None:
    """See that gradients pass a network of which parts are quantised."""
    parts = quantised(setup.module)
    if not parts:
        return
    with setup.witness.ready(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of operations that no gradient is known of
        leaf, passes = setup.witness.leaf(image, from_input=True), False
        with suppress(RuntimeError):  # their operations may refuse what has a gradient
            total = setup.witness.read(setup.module(leaf), len(image)).total()
            passes = torch.autograd.grad(total, leaf, allow_unused=True)[0] is not None
    if not passes:
        raise RequestError(
            f"the network computes in whole numbers (quantised) at {parts[0]!r}, which no gradient passes",
            "explain the network that it was made of, in floating point; or name a layer and a method that needs "
            "no gradient: --method eigencam, scorecam, ablationcam, ...",
        )


def choose_tensors(setup: Setup, taps: Taps, image: Tensor) -> bool:
    """Of layers that give several tensors, choose the first that the score depends on; whether one changes."""
    places = setup.witness.places
    several = [name for name in taps if taps.parts[name] > 1 and name not in places]
    if several:
        known = {layer.name: layer.part for layer in survey_layers(setup, image)}
        places |= {name: known[name] for name in several}
    return any(places[name] for name in several)
