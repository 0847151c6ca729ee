"""How the output of the layers lies in memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.hooks.capture import Taps, at_layer
from camcli.engine.layers.layout import Layout, asked, decide, readings
from camcli.engine.layers.probe import Layer, plain_layouts, survey
from camcli.engine.setup import Setup
from camcli.targets.target import Reading


def source_facts(setup: Setup, image: Tensor) -> tuple[int | None, tuple[int, int] | None]:
    """What the source says of tokens: how many stand before the patches, and the patch grid of such an image."""
    if setup.network is None:
        return None, None
    return setup.network.prefix, setup.network.grid_at((image.shape[2], image.shape[3]))


def survey_layers(setup: Setup, image: Tensor, heard: list[Any] | None = None) -> list[Layer]:
    """What every layer gives; what the network itself does is kept in ``heard``, if that is given."""

    def read(output: Any, images: int) -> Reading:
        if heard is not None:
            heard.append(output)
        return setup.read(output, images)

    return survey(setup.module, setup.witness.leaf(image).detach(), *source_facts(setup, image), read)


def layout_of(setup: Setup, name: str, taps: Taps, image: Tensor) -> Layout:
    """Read how a layer's output lies in memory.

    Raises:
        RequestError: the layer does not run, or its output is no map of each image.
    """
    if name not in taps and taps.calls[name]:
        raise RequestError(
            f"the layer {name!r} has no run {setup.call}: it runs {times(taps.calls[name])} in one forward",
            "give a smaller --call, or leave it out for the last",
        )
    if name not in taps:
        raise RequestError(
            f"the layer {name!r} does not run when the model is given an image",
            "choose another; `camcli layers MODEL` lists those that do",
        )
    _note_choice(setup, name, taps)
    shape = tuple(taps[name].shape)
    if at_layer(setup.module, name)[1] and shape[2:] == (1, 1):
        return Layout("nchw", (1, 1))
    count, size = len(image), (image.shape[2], image.shape[3])
    try:
        if setup.layout:
            return asked(setup.layout, shape, count)
        _check_rows(setup, shape, count)
        facts = source_facts(setup, image)
        ways = readings(shape, size, *facts, count)
        # How the network's other layers lie may settle it, as it does in `camcli layers`.
        clear = len(ways) == 1 and ways[0].order != "ncl"
        layout = decide(
            ways, shape, frozenset() if clear else plain_layouts(survey_layers(setup, image), size, *facts, count)
        )
    except RequestError as error:
        raise RequestError(f"the layer {name!r}: {error.message}", error.hint) from None
    if layout.prefix and facts[0] is None:
        cells = "x".join(map(str, layout.grid))
        setup.note(
            f"the layer {name!r} is read as {layout}, by its shape; "
            f"if those tokens stand behind the patches: --layout {layout.order}:0:{cells}"
        )
    return layout


def _check_rows(setup: Setup, shape: tuple[int, ...], count: int) -> None:
    """See that a layer says one thing of each picture, where a wrapper may have reshaped them."""
    frames = shape[0] * shape[2] if len(shape) == 5 else 0
    wrapper = setup.network is not None and setup.network.wrapped is not None
    if not (setup.group or wrapper) or not shape or count in (shape[0], frames):
        return
    form = "x".join(map(str, shape))
    said = f"{frames} frames ({form})" if frames else f"{counted(shape[0], 'row')} ({form})"
    pictures = f"a group of {counted(count, 'picture')}" if setup.group else counted(count, "picture")
    raise RequestError(
        f"its output has {said} for {pictures}, so its rows are no pictures",
        "choose a layer where each picture has a row of its own; a wrapper may reshape before and behind it as it "
        "likes",
    )


def _note_choice(setup: Setup, name: str, taps: Taps) -> None:
    """Say which of a layer's runs and which of its tensors is explained, where there are several."""
    calls, parts = taps.calls[name], taps.parts[name]
    if calls > 1:
        turn = f"run {setup.call}" if setup.call else "the last"
        setup.note(f"the layer {name!r} runs {times(calls)} in one forward; {turn} is explained (--call N)")
    if parts > 1:
        place = setup.witness.places.get(name, 0)
        which = f"number {place + 1}, on which the score depends," if place else "the first"
        setup.note(f"the layer {name!r} gives {parts} tensors; {which} is explained")


def times(count: int) -> str:
    """How often, in words."""
    return "once" if count == 1 else f"{count} times"


def counted(count: int, one: str, many: str = "") -> str:
    """So many of a thing, in words."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
