"""Targets of a detector: one of an image's boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.base.errors import RequestError
from camcli.targets.target import WantedBox

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from camcli.engine.network import Network
    from camcli.targets import TargetRule


def box(argument: str, network: Network) -> TargetRule:
    """Select the n-th best box of an image for ``n``, or of a class in it for ``n:CLASS``.

    Raises:
        RequestError: the network finds no boxes, the argument has no number from 1 on, or names no class.
    """
    if network.output_spec.task != "detect":
        raise RequestError(
            f"the target 'box:{argument}' is a box, and {network.name} finds none", "name a class, or a detector"
        )
    number, colon, name = argument.partition(":")
    if not (number.isascii() and number.isdecimal() and int(number) >= 1):
        raise RequestError(
            f"the target 'box:{argument}' has no number of a box",
            "write box:1 for the best of an image, or box:1:dog for its best dog",
        )
    wanted = WantedBox(int(number), network.labels.find(name) if colon else None)

    def rule(path: Path, scores: Tensor) -> list[WantedBox]:  # noqa: ARG001
        return [wanted]

    return rule
