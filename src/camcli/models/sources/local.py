"""A model of the user's own: ``path/to/file.py:function``, or ``package.module:function``."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine import input_channels
from camcli.engine.devices import like
from camcli.engine.hooks.state import frozen
from camcli.engine.network import Network, tells_apart, two_sided
from camcli.images.transform import Prepare
from camcli.models import user_code
from camcli.models.adapters import headless, owning, resize
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit
from camcli.targets.labels import Labels

NAMED = "a model of your own is named path/to/file.py:function, or package.module:function"
RETURNS = (
    "it returns one of:\n"
    '  (module, camcli.Prepare(size=(224, 224), mean=(...), std=(...), resize=(256, 256)), ["cat", "dog", ...])\n'
    "  (module, prepare)  without the names of the classes\n"
    "  a model made by timm.create_model, which carries its preprocessing\n"
    "  a camcli.Network"
)


def names() -> list[str]:
    """None: files are not listed."""
    return []


def has(name: str) -> bool:
    """Whether the name is that of a Python file and a function in it."""
    return name.rpartition(":")[0].endswith(".py")


def cached(name: str) -> bool:
    """Whether the file, or the module, is there."""
    place = name.rpartition(":")[0]
    return Path(place).is_file() if place.endswith(".py") else user_code.is_module(place)


def load(request: Request) -> Network:
    """What the function of the file makes, with weights from a file or at random if asked for.

    Raises:
        RequestError: there is no such file or function, it fails, or what it returns lacks the preprocessing; or it is
            asked for without its head, and is no model of timm's.
    """
    with user_code.neighbours(request.name):
        function = user_code.found(request.name, "function", NAMED)
        made = user_code.called(function, request.name)
        # What is loaded may be changed, and others may hold what was made.
        again = partial(user_code.called, function, request.name)
        made, shared = owning.owned(made, again, deep=bool(request.weights))
    if shared and (request.weights or request.headless):
        raise RequestError(
            f"{request.name} hands out the same network each time, which must stay as it is, and {shared}",
            "build a new one in each call; or return it with its weights loaded, without its head",
        )
    if request.headless and isinstance(made, nn.Module):
        return _checked(_without_head(made, request))
    network = replace(_network(made, request.name), shared=shared)
    if shared:
        note = f"{request.name} hands out the same network each time, and {shared}: it is used as it stands, and slower"
        network = replace(network, notes=(*network.notes, note))
    else:
        network.module.eval()
    _check_head(network, request)
    if request.file:
        content = checkpoint.read(request.file)
        module, notes = fit.fit(lambda _classes: network.module, content, request.name)
        network = replace(network, module=module, weights="file", origin=f"the file {request.file}")
        network = replace(network, notes=(*network.notes, *notes))
    if request.random:
        _reset(network.module, request.name)
        network = replace(network, weights="random", origin=f"random numbers from seed {request.seed}")
    if request.output:
        network = replace(network, outlet=replace(network.outlet, path=request.output))
    if request.wrapped:  # then the wrapper is what takes pictures, and is tried
        prepare = network.prepare.changed(request.size) if request.size else network.prepare
        return replace(network, prepare=prepare)
    return _checked(_sized(network, request.size) if request.size else network)


# What the function returned


def _network(made: Any, name: str) -> Network:
    if isinstance(made, Network):
        return made
    origin = f"as built by {name}"
    if isinstance(made, nn.Module):
        return _carrying(made, name, origin)
    if isinstance(made, tuple) and len(made) in (2, 3) and isinstance(made[0], nn.Module):
        module, prepare, *labels = made
        if isinstance(prepare, Prepare):
            return Network(name, module, prepare, _labels(labels[0] if labels else [], name), "pretrained", origin)
    raise RequestError(f"{name} returned {_described(made)}", RETURNS)


def _carrying(module: nn.Module, name: str, origin: str) -> Network:
    """A bare module, if it carries timm's configuration; ImageNet's preprocessing is never assumed."""
    _check_carrying(module, name)
    from camcli.models.sources.timm import network

    return replace(network(module, name, Request(name), origin), name=name)


def _check_carrying(module: nn.Module, name: str) -> None:
    if not getattr(module, "pretrained_cfg", None):
        raise RequestError(f"{name} returned a model that does not say how pictures are prepared for it", RETURNS)


def _without_head(module: nn.Module, request: Request) -> Network:
    """A bare module that carries timm's configuration, with the weights asked for and without its head."""
    _check_carrying(module, request.name)
    from camcli.models.sources.timm import network, without_head

    origin, notes = f"as built by {request.name}", tuple[str, ...]()
    if request.file:
        content, origin = checkpoint.read(request.file), f"the file {request.file}"
        module, notes = fit.fit(lambda _classes: module, content, request.name, beheaded=without_head)
    if request.random:
        _reset(module, request.name)
        origin = f"random numbers from seed {request.seed}"
    return replace(network(module, request.name, request, origin, notes), name=request.name)


def _check_head(network: Network, request: Request) -> None:
    """See that what is asked about the head is so already: only of timm's models is it known how to take it off."""
    if request.headless and not network.headless:
        raise RequestError(f"nothing says where the head of {request.name} is", headless.OWN)
    if request.pool == "none" and network.outlet.task != "features":
        raise RequestError(f"nothing says where the pooling of {request.name} is", headless.OWN)


def _labels(given: Any, name: str) -> Labels:
    if isinstance(given, Labels):
        return given
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(label, str) for label in given):
        return Labels(tuple(given))
    raise RequestError(
        f"the names of the classes that {name} returned are {_described(given)}", "give a list of strings"
    )


def _sized(network: Network, size: tuple[int, int]) -> Network:
    """The network for another input size, as it is; how its patches lie then is read from what it gives."""
    return replace(
        network,
        module=resize.resized(
            network.module, network.prepare.size, size, network.name, channels=network.prepare.channels
        ),
        prepare=network.prepare.changed(size),
        grid=None,
    )


def _described(made: Any) -> str:
    if isinstance(made, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in made)}"
    return f"a {type(made).__name__}"


def _checked(network: Network) -> Network:
    """The network, once it has shown on an empty picture that it gives scores; named by number if it must be."""
    classes = _classes(network)
    if classes is None:
        return network
    if not len(network.labels):
        return replace(network, labels=Labels.numbered(classes, "channel" if network.headless else "class"))
    if classes == 1 and tells_apart(network, network.labels):
        return two_sided(network, network.labels)
    if len(network.labels) != classes:
        raise RequestError(
            f"{network.name} gives {classes} scores, and names {len(network.labels)} classes",
            "return one name for each score",
        )
    return network


def _classes(network: Network) -> int | None:
    """How many classes an empty picture is scored for; None if boxes are found."""
    size, channels = network.prepare.size, network.prepare.channels
    picture = torch.zeros(1, channels, *size).to(like(network.module))
    try:
        with torch.no_grad(), frozen(network.module):
            output = network.module(picture)
    except Exception as error:
        _check_channels(network, input_channels.taken(network.module, size, channels))
        raise RequestError(
            f"{network.name} fails on a picture of {tuple(picture.shape)}: {user_code.said(error)}",
            "does the Prepare's size fit the model?",
        ) from error
    if network.outlet.task == "detect" and not len(network.labels):
        raise RequestError(
            f"nothing says what the classes of {network.name}'s boxes are", "give the names of all as labels, in order"
        )
    try:
        return network.read(output, 1).classes if network.outlet.task != "detect" else None
    except RequestError as error:
        raise RequestError(f"{network.name}: {error.message}", error.hint) from None


def _check_channels(network: Network, taken: int | None) -> None:
    """Where a network fails, see that it is not for the channels of its images."""
    made = network.prepare.channels
    if taken not in (None, made):
        assert taken is not None
        numbers = ", ".join(["0.5"] * taken) + "," * (taken == 1)
        raise RequestError(
            f"{network.name} takes images of {input_channels.channels_in_words(taken)}, and its Prepare makes "
            f"{input_channels.channels_in_words(made)}: so many numbers its mean and std have",
            f"give one mean and one std for each channel: camcli.Prepare(..., mean=({numbers}), std=({numbers}))",
        )


def _reset(module: nn.Module, name: str) -> None:
    """Random numbers in every layer, drawn as each layer draws its own."""
    for path, part in module.named_modules():
        reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
        if callable(reset):
            reset()
        elif any(True for _ in part.parameters(recurse=False)):
            raise RequestError(
                f"{name} cannot be given random weights: {path or 'the model'} ({type(part).__name__}) has parameters "
                "and no reset_parameters()",
                "return the untrained model from a function of its own, with weights='random' in a camcli.Network",
            )
