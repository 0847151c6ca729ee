"""Which classes of each image are explained: from a call's targets and the image's scores to their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from camcli.errors import RequestError
from camcli.labels import Labels

# From an image's row in the batch and its scores (classes,) to the classes explained; PictureError if it has none.
# The score of a class that is not in the image, where the model says such a thing, is -inf.
Choose = Callable[[int, Tensor], Sequence[int]]
# What a call takes for the classes of a batch.
Targets = int | Sequence[int] | Sequence[Sequence[int]] | Tensor | np.ndarray | Choose | None

ONE_TARGET = "give all pictures of a group the same targets"


def predicted(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """The class with the greatest score."""
    return [int(scores.argmax())] if len(scores) and scores.max() > -torch.inf else []


def found(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """Every class that is in the image, that with the greatest score first: what a detector predicts."""
    order = scores.sort(descending=True, stable=True).indices.tolist()
    return [index for index in order if scores[index] > -torch.inf]


def choice(targets: Targets, images: int, shared: bool = False) -> Choose | None:
    """The function that the targets of a call amount to; None where the model's own prediction counts.

    Args:
        targets: as :meth:`camcli.Explainer.__call__` takes them.
        images: how many there are.
        shared: the images have one prediction together, so that one target will do.

    Raises:
        RequestError: there are not as many targets as images.
    """
    if targets is None:
        return None
    if isinstance(targets, Tensor | np.ndarray):
        targets = targets.tolist()
    if callable(targets):
        return targets
    if isinstance(targets, int):
        return lambda row, scores: [targets]
    wanted = [[one] if isinstance(one, int) else list(one) for one in targets]
    if shared and len(wanted) == 1:
        return lambda row, scores: wanted[0]
    if len(wanted) != images:
        raise RequestError(
            f"{len(wanted)} targets were given for {images} images",
            "give one for each image, or a single number for all",
        )
    return lambda row, scores: wanted[row]


def check_classes(indices: Sequence[int], classes: int, labels: Labels) -> None:
    """See that the model has these classes.

    Raises:
        RequestError: it has not.
    """
    for index in indices:
        if not 0 <= index < classes:
            raise RequestError(
                f"there is no {labels.noun} {index}",
                f"the model has {classes} {labels.nouns}, counted from 0 to {classes - 1}",
            )


def disagreement(said: Sequence[tuple[int, ...]]) -> str:
    """That pictures have different targets, in words."""
    first, second, *_ = dict.fromkeys(said)
    one, other = (", ".join(map(str, classes)) or "none" for classes in (first, second))
    return f"its pictures have different targets: {one} and {other}"
