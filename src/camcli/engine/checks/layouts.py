"""Detection of the memory layout of the layers' output."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.hooks.capture import Activations, find_layer
from camcli.engine.layers.layout import Layout, decide, parse_layout, possible_layouts
from camcli.engine.layers.probe import LayerInfo, probe_layers, unambiguous_layouts
from camcli.engine.setup import Setup
from camcli.engine.volumes import find_slices
from camcli.targets.target import Predictions


def read_source_layout(setup: Setup, image: Tensor) -> tuple[int | None, tuple[int, int] | None]:
    """Return the number of tokens before the patches and the patch grid of such an image, as the source gives them."""
    if setup.network is None:
        return None, None
    return setup.network.prefix, setup.network.grid_at((image.shape[2], image.shape[3]))


def probe_network(setup: Setup, image: Tensor, outputs: list[Any] | None = None) -> list[LayerInfo]:
    """Collect facts about every layer's output; the network's own output is appended to ``outputs``, if given."""

    def read(output: Any, images: int) -> Predictions:
        if outputs is not None:
            outputs.append(output)
        return setup.read_predictions(output, images)

    suffix = setup.network.suffix if setup.network else 0
    leaf = setup.runner.make_leaf(image).detach()
    return probe_layers(setup.module, leaf, *read_source_layout(setup, image), read, suffix)


def read_layout(setup: Setup, name: str, activations: Activations, image: Tensor) -> Layout:
    """Detect the memory layout of a layer's output.

    Raises:
        RequestError: the layer does not run, or its output is no map of each image.
    """
    if name not in activations and activations.calls[name]:
        raise RequestError(
            f"the layer {name!r} has no call {setup.call}: it is called {format_times(activations.calls[name])} per "
            "forward pass",
            "give a smaller --call, or leave it out for the last",
        )
    if name not in activations:
        raise RequestError(
            f"the layer {name!r} is not called when the model is run on an image",
            "choose another; `camcli layers MODEL` lists those that are",
        )
    _note_choice(setup, name, activations)
    shape = tuple(activations[name].shape)
    if find_layer(setup.module, name)[1] and shape[2:] == (1, 1):
        return Layout("nchw", (1, 1))
    count, size = len(image), (image.shape[2], image.shape[3])
    suffix = setup.network.suffix if setup.network else 0
    try:
        if setup.layout:
            return parse_layout(setup.layout, shape, count, suffix)
        _check_rows(setup, shape, count)
        facts, slices = read_source_layout(setup, image), find_slices(setup.module)
        candidates = possible_layouts(shape, size, *facts, count, slices, suffix)
        # The layout of the network's other layers may resolve an ambiguity, as in `camcli layers`.
        clear = len(candidates) == 1 and candidates[0].order != "ncl"
        others = (
            frozenset()
            if clear
            else unambiguous_layouts(probe_network(setup, image), size, *facts, count, slices, suffix)
        )
        layout = decide(candidates, shape, others)
    except RequestError as error:
        raise RequestError(f"the layer {name!r}: {error.message}", error.hint) from None
    if layout.prefix and facts[0] is None:
        cells = "x".join(map(str, layout.grid))
        setup.add_note(
            f"the layer {name!r} is read as {layout}, by its shape; if those tokens come after the patches: --layout "
            f"{layout.order}:0:{cells}"
        )
    return layout


def _check_rows(setup: Setup, shape: tuple[int, ...], count: int) -> None:
    """Check that a layer has one row per image, since a wrapper may have reshaped them."""
    frames = shape[0] * shape[2] if len(shape) == 5 else 0
    wrapper = setup.network is not None and setup.network.wrapped_module is not None
    if not (setup.group or wrapper) or not shape or count in (shape[0], frames):
        return
    form = "x".join(map(str, shape))
    rows = f"{frames} frames ({form})" if frames else f"{pluralize(shape[0], 'row')} ({form})"
    pictures = f"a group of {pluralize(count, 'image')}" if setup.group else pluralize(count, "image")
    raise RequestError(
        f"its output has {rows} for {pictures}, so its rows do not correspond to images",
        "choose a layer with one row per image; a wrapper may reshape before and after it",
    )


def _note_choice(setup: Setup, name: str, activations: Activations) -> None:
    """Add notes on the call and the tensor of a layer that are explained, if there are several."""
    calls, parts = activations.calls[name], activations.tensor_counts[name]
    if calls > 1:
        turn = f"call {setup.call}" if setup.call else "the last"
        setup.add_note(
            f"the layer {name!r} is called {format_times(calls)} per forward pass; {turn} is explained (--call N)"
        )
    if parts > 1:
        place = setup.runner.tensor_indices.get(name, 0)
        which = f"number {place + 1}, on which the score depends," if place else "the first"
        setup.add_note(f"the layer {name!r} returns {parts} tensors; {which} is explained")


def format_times(count: int) -> str:
    """Format a number of times in words."""
    return "once" if count == 1 else f"{count} times"


def pluralize(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
