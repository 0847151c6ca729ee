"""Which classes of each image are explained: from a call's targets and the image's scores to their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.targets.labels import Labels

T = TypeVar("T")
# A class by its number: of Python, of NumPy, or a tensor or array of one.
Class = int | np.integer | Tensor | np.ndarray
# From an image's row in the batch and its scores (classes,) to the classes explained; PictureError if it has none.
# The score of a class that is not in the image, where the model says such a thing, is -inf.
Choose = Callable[[int, Tensor], Sequence[int] | Class]
# What a call takes for the classes of a batch.
Targets = Class | Sequence[Class] | Sequence[Sequence[Class]] | Choose | None

ONE_TARGET = "give all pictures of a group the same targets"


def predicted(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """The class with the greatest score."""
    return [int(scores.argmax())] if len(scores) and scores.max() > -torch.inf else []


def found(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """Every class that is in the image, that with the greatest score first: what a detector predicts."""
    order = scores.sort(descending=True, stable=True).indices.tolist()
    return [index for index in order if scores[index] > -torch.inf]


def choice(targets: Any, images: int, shared: bool = False) -> Choose | None:
    """The function that the targets of a call amount to; None where the model's own prediction counts.

    Args:
        targets: :data:`Targets`, as :meth:`camcli.Explainer.__call__` takes them; anything else is refused.
        images: how many there are.
        shared: the images have one prediction together, so that one target will do.

    Raises:
        RequestError: there are not as many targets as images, or one is no whole number.
    """
    if targets is None:
        return None
    if callable(targets) and not isinstance(targets, Tensor):
        return cast("Choose", targets)
    if _is_one(targets):
        alone = classes_of(targets)
        return lambda row, scores: alone
    if not _is_several(targets):
        raise _no_class(targets)
    wanted = [classes_of(one) for one in targets]
    if shared and len(wanted) == 1:
        return lambda row, scores: wanted[0]
    if len(wanted) != images:
        raise RequestError(
            f"{len(wanted)} targets were given for {images} images",
            "give one for each image, or a single number for all",
        )
    return lambda row, scores: wanted[row]


def classes_of(given: Any) -> tuple[int, ...]:
    """The classes that are given by number: one, or several in a sequence, tensor or array.

    Raises:
        RequestError: one of them is no whole number.
    """
    several = given if not _is_one(given) and _is_several(given) else [given]
    return tuple(map(_class, several))


def one_or_several(given: T | Iterable[T]) -> tuple[T, ...]:
    """What may be given alone or in a sequence, as one; a string is no sequence."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)


def plain(given: Any) -> Any:
    """Numbers of NumPy and PyTorch as Python's; anything else as it is."""
    return given.tolist() if isinstance(given, Tensor | np.ndarray | np.generic) else given


def _is_one(given: Any) -> bool:
    return isinstance(given, Integral | float) or (isinstance(given, Tensor | np.ndarray) and not given.ndim)


def _is_several(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes)


def _class(given: Any) -> int:
    value = plain(given)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _no_class(given)
    return int(value)


def _no_class(given: Any) -> RequestError:
    kind = str(given.dtype).removeprefix("torch.") if isinstance(given, Tensor | np.ndarray) else type(given).__name__
    what = repr(given if not isinstance(given, Tensor | np.ndarray) else given.tolist())[:80]
    return RequestError(
        f"{what} ({kind}) is no class's number",
        "give whole numbers, counted from 0: network.labels.find('tabby') gives that of a name, one_hot.argmax(1) that "
        "of a row of 0 and 1",
    )


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
