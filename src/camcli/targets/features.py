"""Targets other than classes: features of a backbone, channels of a layer, similarity to an image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from camcli.base.errors import RequestError
from camcli.targets import SIMILARITY_LABEL, parse_top_channels, resolve

if TYPE_CHECKING:
    from camcli.engine.network import Network
    from camcli.targets import TargetRule

CHANNEL_NUMBERS = re.compile(r"[0-9]{1,9}(\s*,\s*[0-9]{1,9})*", re.ASCII)


def channel(argument: str, network: Network) -> TargetRule:
    """Select channels by number: of a backbone without a head, else of the layer.

    Raises:
        RequestError: the argument is not numbers, or the backbone has fewer channels.
    """
    if not CHANNEL_NUMBERS.fullmatch(argument.strip()):
        raise RequestError(
            f"the target 'channel:{argument}' does not name channels by index",
            "write channel:12, or channel:12,99 for several; channels:top:5 finds those that matter most to a class",
        )
    indices = list(dict.fromkeys(map(int, argument.split(","))))
    if network.headless:
        for one in indices:
            if one >= len(network.labels):
                raise RequestError(
                    f"there is no channel {one}",
                    f"{network.name} has {len(network.labels)} features, counted from 0 to {len(network.labels) - 1}",
                )
    return lambda path, scores: indices


def channels(argument: str, network: Network) -> TargetRule:
    """Select the class whose top channels are explained: the predicted one for ``top:5``, tabby for ``top:5:tabby``.

    Raises:
        RequestError: the argument is malformed, or names no class.
    """
    return resolve([parse_top_channels(argument)[1]], network)


def similar(argument: str, network: Network) -> TargetRule:
    """Select a reference image of the network, which others are compared with.

    Raises:
        RequestError: the file is not one of the references.
    """
    index = network.labels.find(f"name:{name_similarity(argument)}")
    return lambda path, scores: [index]


def name_similarity(file: str) -> str:
    """Return the name of the score of similarity to an image."""
    return f"{SIMILARITY_LABEL}{file}"
