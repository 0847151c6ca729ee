"""A module of the user's own around a loaded model, so that it takes a batch of images and gives scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.devices import like
from camcli.engine.layers.paths import renamed
from camcli.engine.network import Network
from camcli.models import WRAPPERS, user_code
from camcli.targets.labels import Labels
from camcli.targets.readers.find import first_rows

# How many pictures a wrapper is tried on that says nothing of groups: one would not show whether rows are mixed up.
PROBE = 2


def wrapped(
    network: Network, words: str, group: int = 0, extras: Tensor | Mapping[str, Tensor] | None = None
) -> Network:
    """The network with a module of the user's own around its own, tried on a batch of noise.

    Args:
        network: as its source gave it.
        words: ``path/to/file.py:Class`` or ``package.module:Class``; the class, or function, is called with the
            network's module and gives a module from images ``(n, 3, h, w)`` to scores.
        group: how many pictures are handed to it as one group; 0 if it takes batches of any size.
        extras: features of as many pictures (of two, if ``group`` is 0), its second argument.

    Returns:
        The network; its classes keep their names if there are as many scores as names.

    Raises:
        RequestError: there is no such class; it raises; what it gives is no module, does not hold the model, raises on
            a batch, or gives something without a score for each picture (or one row for a group).
    """
    with user_code.neighbours(words):
        module = user_code.called(user_code.found(words, "class", WRAPPERS), words, network.module)
    if not isinstance(module, nn.Module):
        raise RequestError(
            f"{words} gives a {type(module).__name__}, no torch.nn.Module",
            "it is called with the model's module, and gives a module that takes images (n, 3, h, w) and gives scores",
        )
    module.eval()
    own = {id(part) for part in network.module.modules()} | {id(one) for one in network.module.parameters()}
    if not any(id(part) in own for part in (*module.modules(), *module.parameters())):
        raise RequestError(
            f"the module that {words} gives does not hold the model, so neither its weights nor its layers can be seen",
            "keep it as an attribute of the module: self.network = network",
        )
    layer, pyramid = (
        renamed(module, network.module, name) if name else "" for name in (network.layer, network.pyramid)
    )
    network = replace(
        network,
        module=module,
        wrapped=network.wrapped or network.module,
        layer=layer or "",
        pyramid=pyramid or "",
        origin=f"{network.origin}, wrapped by {words}",
        cosine=None,  # what it gives may be anything
    )
    classes = _classes(network, words, group, extras)
    if classes is None or classes == len(network.labels):
        return network
    # Features have numbers for names; scores made of them are classes.
    return replace(network, labels=Labels.numbered(classes), headless=False)


def _classes(network: Network, words: str, group: int, extras: Tensor | Mapping[str, Tensor] | None) -> int | None:
    """How many scores the wrapped model gives; None if boxes are found."""
    count = group or PROBE
    form = count, network.prepare.channels, *network.prepare.size
    noise = torch.randn(form, generator=torch.Generator().manual_seed(0), device="cpu")
    images = noise.to(like(network.module))
    given = (images,) if extras is None else (images, extras)
    shape = "x".join(map(str, images.shape))
    beside = "" if extras is None else f" and {described(extras)}"
    try:
        with torch.no_grad():
            output: Any = network.module(*given)
    except Exception as error:
        several = (
            "is it meant for several pictures at once? --group N hands it N at a time"
            if not group
            else f"it is handed {group} pictures at a time (--group)"
        )
        hint = user_code.tail(error, user_code.file(words)) or several
        raise RequestError(
            f"{words} fails on images of shape {shape}{beside}: {user_code.said(error)}", hint
        ) from error
    outlet = replace(network.outlet, group=bool(group))
    try:
        # Names that the wrapped model's scores need not have do not help to find them.
        return outlet.read(output, count, network.labels.names, network.activation).classes
    except RequestError as error:
        rows = first_rows(output)
        hint = error.hint
        if not group and rows == 1:
            hint = "for one prediction for several pictures say how many make a group: --group N, or --group folder"
        raise RequestError(f"{words}, given images of shape {shape}{beside}: {error.message}", hint) from None


def described(extras: Tensor | Mapping[str, Tensor]) -> str:
    """The shapes of features, in words."""
    if isinstance(extras, Tensor):
        return f"features of shape {'x'.join(map(str, extras.shape))}"
    return "features " + ", ".join(f"{name} {'x'.join(map(str, one.shape))}" for name, one in extras.items())
