"""Targets that are no classes: features of a backbone, channels of a layer, another picture."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from camcli.base.errors import RequestError
from camcli.targets import resolve, strongest_of

if TYPE_CHECKING:
    from camcli.engine.network import Network
    from camcli.targets import Target

NUMBERS = re.compile(r"[0-9]{1,9}(\s*,\s*[0-9]{1,9})*", re.ASCII)


def channel(argument: str, network: Network) -> Target:
    """The channels of these numbers: of the backbone where it has no head, else of the layer.

    Raises:
        RequestError: these are no numbers, or the backbone has fewer channels.
    """
    if not NUMBERS.fullmatch(argument.strip()):
        raise RequestError(
            f"the target 'channel:{argument}' does not name channels by their numbers",
            "say channel:12, or channel:12,99 for several; channels:top:5 finds those that matter most to a class",
        )
    found = list(dict.fromkeys(map(int, argument.split(","))))
    if network.headless:
        for one in found:
            if one >= len(network.labels):
                raise RequestError(
                    f"there is no channel {one}",
                    f"{network.name} has {len(network.labels)} features, counted from 0 to {len(network.labels) - 1}",
                )
    return lambda path, scores: found


def channels(argument: str, network: Network) -> Target:
    """The class whose channels are asked for: ``top:5`` of the predicted one, ``top:5:tabby`` of that.

    Raises:
        RequestError: it is malformed, or names no class.
    """
    return resolve([strongest_of(argument)[1]], network)


def similar(argument: str, network: Network) -> Target:
    """The picture that others are compared with, one of the network's references.

    Raises:
        RequestError: it is none of them.
    """
    index = network.labels.find(f"name:{likeness(argument)}")
    return lambda path, scores: [index]


def likeness(file: str) -> str:
    """What a score of likeness to a picture is called."""
    return f"similar to {file}"
