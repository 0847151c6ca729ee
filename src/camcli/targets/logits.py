"""Targets that follow from the picture's own scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from camcli.base.errors import PictureError, RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from camcli.engine.network import Network
    from camcli.targets import Target


def predicted(argument: str, network: Network) -> Target:
    """The class with the highest score, of those that can be explained.

    Raises:
        RequestError: an argument was given; it takes none.
    """
    if argument:
        raise RequestError(
            f"the target 'predicted' takes no argument, but {argument!r} was given", "say top:N for several"
        )
    return top("1", network)


def top(argument: str, network: Network) -> Target:
    """The ``argument`` classes with the highest scores, best first.

    Raises:
        RequestError: the argument is no number from 1 to the number of classes.
    """
    there = network.labels.open
    if not (argument.isascii() and argument.isdecimal() and 1 <= int(argument) <= there):
        raise RequestError(
            f"the target 'top:{argument}' is not a number of {network.labels.nouns}",
            f"say top:N with N from 1 to {there}",
        )
    count = int(argument)

    def target(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        # Stable, so that of equal scores the first class wins, as with argmax.
        best = scores[:there].sort(descending=True, stable=True).indices[:count]
        # What a detector has not found, or a segmentation nowhere predicted.
        return [int(index) for index in best if scores[index] > float("-inf")]

    return target


def every(argument: str, network: Network) -> Target:
    """Every class, in order; of ``>0.5`` those whose probability is above it.

    Raises:
        RequestError: as of :func:`above`.
    """
    if argument:
        return above(argument.removeprefix(">"), network)
    there = network.labels.open
    return lambda path, scores: [index for index in range(there) if scores[index] > float("-inf")]


def above(argument: str, network: Network) -> Target:
    """Every class whose probability is above ``argument``, the highest first; where there is none, whose output is.

    A picture in which no class is has a PictureError.

    Raises:
        RequestError: the argument is no number, or none that a probability can be above.
    """
    alike = network.activation == "none"
    given = alike or network.activation == "probabilities"
    try:
        least = float(argument)
    except ValueError:
        least = float("nan")
    if not (-math.inf < least < math.inf and (alike or 0 <= least < 1)):
        raise RequestError(
            f"the target 'all>{argument}' does not say above which probability a class is explained",
            "say all>0.5" + ("" if alike else ", with a number from 0 to below 1"),
        )
    if network.outlet.task not in ("classify", "features"):
        raise RequestError(
            f"{network.name} does not give each class one probability for a picture",
            "for boxes: --min-score; for segmentation: --target top:5",
        )
    what = "output" if alike else "probability"

    def target(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        alone = network.activation == "sigmoid" or len(scores) == 1
        sure = scores if given else scores.sigmoid() if alone else scores.softmax(0)
        order = sure[: network.labels.open].sort(descending=True, stable=True).indices
        found: list[int] = order[sure[order].double() > least].tolist()
        if not found:
            best = f"{network.labels.short(int(order[0]))!r} has {float(sure[order[0]]):.3g}"
            noun = network.labels.noun
            raise PictureError(f"no {noun} has a {what} above {least:g} here: {best}", "lower it, or say predicted")
        return found

    return target
