"""Measurement of where the layers' cells lie in the input."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base import timing
from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import providing_extras
from camcli.engine.checks.layer_choice import choose_layer, choose_tensors
from camcli.engine.checks.layouts import read_layout
from camcli.engine.hooks.capture import Activations
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.layers.even_steps import EvenSteps
from camcli.engine.layers.layout import Layout
from camcli.engine.layers.locate import (
    GridLocation,
    describe_locations,
    even_location,
    find_smallest_size,
    locate,
    locate_briefly,
    reduce_size,
    reject_misread_tokens,
    transfer_location,
)
from camcli.engine.layers.probe import noise_like
from camcli.engine.setup import Setup
from camcli.engine.volumes import find_slices
from camcli.images.features import Features


def locate_layers(
    setup: Setup, findings: Findings, image: Float[Tensor, "n d h w"], extras: Features | None = None
) -> None:
    """Measure where the layers' cells lie in the input, in the network's current precision.

    Args:
        setup: settings of the explainer.
        findings: facts known so far; new ones are added.
        image: noise.
        extras: features of these images, or of more images, of which the first are used.

    Raises:
        RequestError: the layer cannot be chosen or read.
    """
    with providing_extras(setup, image, extras), setup.runner.ready():
        choose_layer(setup, findings, image)
        key = setup.size_key(image)
        activations = findings.activations.pop(key, None)
        # If all steps are even, the location follows from the grid, which the check finds.
        if (
            setup.placement != "measured"
            or not setup.layers
            or find_slices(setup.module)
            or findings.even_steps.get(key)
        ):
            return
        if activations is None or key not in findings.even_steps:
            with setup.runner.capturing(setup.layers) as activations, torch.no_grad():
                _watch_steps(setup, findings, image)
        if choose_tensors(setup, activations, image):
            with setup.runner.capturing(setup.layers) as activations, torch.no_grad():
                setup.module(setup.runner.make_leaf(image).clone())
        locate_cells(
            setup,
            findings,
            {name: read_layout(setup, name, activations, image) for name in setup.layers},
            image,
            activations,
        )


def _watch_steps(setup: Setup, findings: Findings, images: Tensor) -> Any:
    """Run the network and find out whether all its steps are even; return its output."""
    closed = find_opaque_modules(setup.module)
    with nullcontext(EvenSteps()) if closed else EvenSteps() as steps:
        output = setup.module(setup.runner.make_leaf(images).clone())
    findings.even_steps[setup.size_key(images)] = steps.even and not closed
    return output


def locate_cells(
    setup: Setup, findings: Findings, layouts: Mapping[str, Layout], image: Tensor, activations: Activations
) -> dict[str, GridLocation]:
    """Find where the cells of each layer lie in inputs of this size, and add notes on it; measured once."""
    key, size = setup.size_key(image), (image.shape[2], image.shape[3])
    if find_slices(setup.module):  # rows of several slices have no common stride: cells share each slice evenly
        return {name: even_location(layout.grid, size, layout.slices) for name, layout in layouts.items()}
    if setup.placement != "measured" or not layouts:
        return {}
    if key not in findings.locations:
        if key not in findings.even_steps:
            with torch.no_grad():
                _watch_steps(setup, findings, image)
        if findings.even_steps[key]:
            found = {name: even_location(layout.grid, size) for name, layout in layouts.items()}
        else:
            # If every layer runs once, the forward can stop after the last.
            stop_early = all(activations.calls[name] == 1 for name in layouts) and not find_opaque_modules(setup.module)
            with timing.within("place"):
                found = _measure(setup, layouts, image, stop_early)
        findings.locations[key] = found
        for note in describe_locations(found, size):
            setup.add_note(note)
    return findings.locations[key]


def _measure(setup: Setup, layouts: Mapping[str, Layout], image: Tensor, stop_early: bool) -> dict[str, GridLocation]:
    """Measure where the cells of each layer lie, at small inputs if these give a clear result."""
    size, group = (image.shape[2], image.shape[3]), setup.group
    # The layout of tokens depends on the size.
    fixed = any(layout.order in ("tokens", "ncl") for layout in layouts.values())
    found: dict[str, GridLocation] = {}
    if not fixed and not group and find_smallest_size(size) != size:
        with suppress(Exception):  # the network may not take small inputs
            found = _measure_at(setup, find_smallest_size(size), layouts, image, stop_early, brief=True)
    remaining = {name: layout for name, layout in layouts.items() if name not in found}
    if not remaining:
        return {name: found[name] for name in layouts}
    try:
        found |= _measure_at(setup, size if fixed else reduce_size(size), remaining, image, stop_early)
    except Exception as error:  # maps can be made without the measurement, whatever the error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        found |= {name: GridLocation(layout.grid, unknown_reason=reason) for name, layout in remaining.items()}
    return {
        name: reject_misread_tokens(one) if layouts[name].order in ("tokens", "ncl") else one
        for name, one in found.items()
    }


def _measure_at(
    setup: Setup,
    size: tuple[int, int],
    layouts: Mapping[str, Layout],
    image: Tensor,
    stop_early: bool,
    brief: bool = False,
) -> dict[str, GridLocation]:
    """Measure where the cells of each layer lie, with inputs of this size."""

    def noise(count: int, seed: int, more: int) -> Tensor:
        return setup.runner.make_leaf(noise_like(image, (size[0] + more, size[1] + more), count, seed)).detach()

    def cells(given: Tensor) -> dict[str, Tensor]:
        return setup.runner.compute_cells(given, layouts, stop_early)

    images = len(image) if setup.group else 0
    with setup.runner.extra_inputs.restricted_to(None if images else [0]):
        found = locate_briefly(cells, noise) if brief else locate(cells, noise, images)
    own = image.shape[2], image.shape[3]
    return {name: transfer_location(one, size, layouts[name].grid, own) for name, one in found.items()}
