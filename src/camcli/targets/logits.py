"""Targets chosen by the image's own scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from camcli.base.errors import PictureError, RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from camcli.engine.network import Network
    from camcli.targets import TargetRule


def predicted(argument: str, network: Network) -> TargetRule:
    """Select the class with the highest score, of those that can be explained.

    Raises:
        RequestError: an argument was given.
    """
    if argument:
        raise RequestError(
            f"the target 'predicted' takes no argument, but {argument!r} was given",
            "use top:N for several, rank:N for one of them",
        )
    return top("1", network)


def top(argument: str, network: Network) -> TargetRule:
    """Select the ``argument`` classes with the highest scores, best first.

    Raises:
        RequestError: the argument is not a number from 1 to the number of classes.
    """
    count = _read_number(f"top:{argument}", network)
    return lambda path, scores: _sort_classes(scores, network)[:count]


def rank(argument: str, network: Network) -> TargetRule:
    """Select the class with the ``argument``-th highest score alone.

    The rule raises PictureError for an image with fewer classes.

    Raises:
        RequestError: the argument is not a number from 1 to the number of classes.
    """
    place = _read_number(f"rank:{argument}", network)

    def rule(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        found = _sort_classes(scores, network)
        if found and len(found) < place:
            noun = network.labels.noun if len(found) == 1 else network.labels.nouns
            raise PictureError(f"the image has only {len(found)} {noun}, and none of rank {place}", "use predicted")
        return found[place - 1 : place]

    return rule


def _read_number(word: str, network: Network) -> int:
    kind, _, argument = word.partition(":")
    available = network.labels.explainable_count
    if not (argument.isascii() and argument.isdecimal() and 1 <= int(argument) <= available):
        raise RequestError(
            f"the target {word!r} is not a number of {network.labels.nouns}",
            f"use {kind}:N with N from 1 to {available}",
        )
    return int(argument)


def _sort_classes(scores: Tensor, network: Network) -> list[int]:
    """Return the classes of an image from the highest score to the lowest."""
    # Stable, so that the first of equal classes wins, as with argmax.
    best = scores[: network.labels.explainable_count].sort(descending=True, stable=True)
    # Without classes that a detector did not find, or that a segmentation predicts nowhere.
    return best.indices[best.values > float("-inf")].tolist()


def every(argument: str, network: Network) -> TargetRule:
    """Select every class in order, or for ``>0.5`` those whose probability is above it.

    Raises:
        RequestError: see :func:`above_threshold`.
    """
    if argument:
        return above_threshold(argument.removeprefix(">"), network)
    available = network.labels.explainable_count
    return lambda path, scores: [index for index in range(available) if scores[index] > float("-inf")]


def above_threshold(argument: str, network: Network) -> TargetRule:
    """Select every class whose probability, or raw output if there is none, exceeds ``argument``, highest first.

    The rule raises PictureError for an image without such a class.

    Raises:
        RequestError: the argument is not a number that a probability can exceed.
    """
    is_raw_output = network.activation == "none"
    as_given = is_raw_output or network.activation == "probabilities"
    try:
        threshold = float(argument)
    except ValueError:
        threshold = float("nan")
    if not (-math.inf < threshold < math.inf and (is_raw_output or 0 <= threshold < 1)):
        raise RequestError(
            f"the target 'all>{argument}' needs a probability as threshold",
            "write all>0.5" + ("" if is_raw_output else ", with a number from 0 to below 1"),
        )
    if network.output_spec.task not in ("classify", "features"):
        raise RequestError(
            f"{network.name} does not return one probability per class for an image",
            "for boxes: --min-score; for segmentation: --target top:5",
        )
    noun_of_value = "output" if is_raw_output else "probability"

    def rule(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        is_independent = network.activation == "sigmoid" or len(scores) == 1
        probabilities = scores if as_given else scores.sigmoid() if is_independent else scores.softmax(0)
        order = probabilities[: network.labels.explainable_count].sort(descending=True, stable=True).indices
        found: list[int] = order[probabilities[order].double() > threshold].tolist()
        if not found:
            best = f"{network.labels.short(int(order[0]))!r} has {float(probabilities[order[0]]):.3g}"
            noun = network.labels.noun
            raise PictureError(
                f"no {noun} has a {noun_of_value} above {threshold:g} here: {best}", "lower it, or use predicted"
            )
        return found

    return rule
