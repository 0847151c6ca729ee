"""Where the cells of the layers lie in the input."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.engine.checks.findings import Findings
from camcli.engine.checks.images import feeding
from camcli.engine.checks.layer_choice import choose_layer, choose_tensors
from camcli.engine.checks.layouts import layout_of
from camcli.engine.hooks.capture import Taps
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.layers.even_steps import EvenSteps
from camcli.engine.layers.layout import Layout
from camcli.engine.layers.locate import (
    FEW,
    Located,
    carried,
    evenly,
    least,
    locate,
    locate_briefly,
    of_tokens,
    smaller,
    words_of,
)
from camcli.engine.layers.probe import noise_like
from camcli.engine.setup import Setup
from camcli.images.features import Features


def locate_layers(
    setup: Setup, findings: Findings, image: Float[Tensor, "n d h w"], extras: Features | None = None
) -> None:
    """Measure where the layers' cells lie in the input, in the precision that the network has now.

    Args:
        setup: what is asked.
        findings: what is known so far.
        image: noise.
        extras: features of these images, or of others, of which the first count.

    Raises:
        RequestError: the layer cannot be chosen or read.
    """
    with feeding(setup, image, extras), setup.witness.ready():
        choose_layer(setup, findings, image)
        key = setup.key(image)
        taps = findings.taps.pop(key, None)
        # Where all steps are even, what the check finds out anyhow is enough.
        if setup.place != "measured" or not setup.layers or findings.even.get(key):
            return
        if taps is None or key not in findings.even:
            with setup.witness.tapping(setup.layers) as taps, torch.no_grad():
                _watch_steps(setup, findings, image)
        if choose_tensors(setup, taps, image):
            with setup.witness.tapping(setup.layers) as taps, torch.no_grad():
                setup.module(setup.witness.leaf(image).clone())
        locate_cells(setup, findings, {name: layout_of(setup, name, taps, image) for name in setup.layers}, image, taps)


def _watch_steps(setup: Setup, findings: Findings, images: Tensor) -> Any:
    """Run the network, and see whether all its steps are even; gives what it returns."""
    closed = closed_parts(setup.module)
    with nullcontext(EvenSteps()) if closed else EvenSteps() as steps:
        output = setup.module(setup.witness.leaf(images).clone())
    findings.even[setup.key(images)] = steps.even and not closed
    return output


def locate_cells(
    setup: Setup, findings: Findings, layouts: Mapping[str, Layout], image: Tensor, taps: Taps
) -> dict[str, Located]:
    """Where the cells of each layer lie in inputs like this, and what is to be said of it; measured once."""
    key, size = setup.key(image), (image.shape[2], image.shape[3])
    if setup.place != "measured" or not layouts:
        return {}
    if key not in findings.located:
        if key not in findings.even:
            with torch.no_grad():
                _watch_steps(setup, findings, image)
        if findings.even[key]:
            found = {name: evenly(layout.grid, size) for name, layout in layouts.items()}
        else:
            # Of layers that run once, nothing behind the last need be computed.
            once = all(taps.calls[name] == 1 for name in layouts) and not closed_parts(setup.module)
            found = _measure(setup, layouts, image, once)
        findings.located[key] = found
        for note in words_of(found, size):
            setup.note(note)
    return findings.located[key]


def _measure(setup: Setup, layouts: Mapping[str, Layout], image: Tensor, once: bool) -> dict[str, Located]:
    """Where the cells of each layer lie, measured at small inputs where these leave no doubt."""
    size, group = (image.shape[2], image.shape[3]), setup.group
    # How tokens lie depends on the size.
    fixed = any(layout.order in ("tokens", "ncl") for layout in layouts.values())
    found: dict[str, Located] = {}
    if not fixed and not group and least(size) != size and len(layouts) <= FEW:
        with suppress(Exception):  # it may take no such inputs
            found = _measure_at(setup, least(size), layouts, image, once, brief=True)
    open_ = {name: layout for name, layout in layouts.items() if name not in found}
    if not open_:
        return {name: found[name] for name in layouts}
    try:
        found |= _measure_at(setup, size if fixed else smaller(size), open_, image, once)
    except Exception as error:  # whatever it is, maps can be made without
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        found |= {name: Located(layout.grid, unknown=reason) for name, layout in open_.items()}
    return {name: of_tokens(one) if layouts[name].order in ("tokens", "ncl") else one for name, one in found.items()}


def _measure_at(
    setup: Setup, size: tuple[int, int], layouts: Mapping[str, Layout], image: Tensor, once: bool, brief: bool = False
) -> dict[str, Located]:
    """Likewise, by inputs of this size."""

    def noise(count: int, seed: int, more: int) -> Tensor:
        return setup.witness.leaf(noise_like(image, (size[0] + more, size[1] + more), count, seed)).detach()

    def cells(given: Tensor) -> dict[str, Tensor]:
        return setup.witness.cells(given, layouts, once)

    images = len(image) if setup.group else 0
    with setup.witness.feed.about(None if images else [0]):
        found = locate_briefly(cells, noise) if brief else locate(cells, noise, images)
    own = image.shape[2], image.shape[3]
    return {name: carried(one, size, layouts[name].grid, own) for name, one in found.items()}
