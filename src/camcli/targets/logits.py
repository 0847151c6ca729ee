"""Targets that follow from the picture's own scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from camcli.labels import Labels
    from camcli.targets import Target


def predicted(argument: str, labels: Labels) -> Target:
    """The class with the highest score.

    Raises:
        RequestError: an argument was given; it takes none.
    """
    if argument:
        raise RequestError(
            f"the target 'predicted' takes no argument, but {argument!r} was given", "say top:N for several"
        )
    return top("1", labels)


def top(argument: str, labels: Labels) -> Target:
    """The ``argument`` classes with the highest scores, best first.

    Raises:
        RequestError: the argument is no number from 1 to the number of classes.
    """
    if not (argument.isascii() and argument.isdecimal() and 1 <= int(argument) <= len(labels)):
        raise RequestError(
            f"the target 'top:{argument}' is not a number of classes", f"say top:N with N from 1 to {len(labels)}"
        )
    count = int(argument)

    def target(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        # Stable, so that of equal scores the first class wins, as with argmax.
        best = scores.sort(descending=True, stable=True).indices[:count]
        # What a detector has not found, or a segmentation nowhere predicted.
        return [int(index) for index in best if scores[index] > float("-inf")]

    return target
