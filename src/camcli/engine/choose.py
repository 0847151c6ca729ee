"""Which classes of each image are explained: from a call's targets and the image's scores to their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.engine.forward import Plan
from camcli.engine.maps.result import where_not_finite
from camcli.engine.setup import Setup
from camcli.images.features import Features, one_of
from camcli.targets.labels import Labels
from camcli.targets.readers.classification import GroupPredictions
from camcli.targets.target import Reading, Subject, competing

T = TypeVar("T")
# A class by its number: of Python, of NumPy, or a tensor or array of one.
Class = int | np.integer | Tensor | np.ndarray
# From an image's row in the batch and its scores (classes,) to the classes explained; PictureError if it has none.
# The score of a class that is not in the image, where the model says such a thing, is -inf.
Choose = Callable[[int, Tensor], Sequence[int] | Class]
# What a call takes for the classes of a batch.
Targets = Class | Sequence[Class] | Sequence[Sequence[Class]] | Choose | None

ONE_TARGET = "give all pictures of a group the same targets"


@dataclass(frozen=True, slots=True)
class Batch:
    """Images, and what is said of each of them.

    Attributes:
        images: prepared as the model wants them.
        choose: from an image's row and its scores to its classes.
        seen: for models that score every pixel: which part of each image is picture, and not padding.
        region: likewise, over what is summed.
        extras: features of the images.
        among: from an image's row to the classes that compete in it, which alone can be explained; empty: all.
    """

    images: Tensor
    choose: Choose
    seen: Tensor | None = None
    region: Tensor | None = None
    extras: Features | None = None
    among: Callable[[int], Sequence[int]] = lambda row: ()

    def alone(self, row: int) -> Batch:
        """One of the images."""
        seen, region = (None if some is None else some[row : row + 1] for some in (self.seen, self.region))
        own = None if self.extras is None else one_of(self.extras, row)
        choose, among = self.choose, self.among
        return Batch(
            self.images[row : row + 1], lambda _, scores: choose(row, scores), seen, region, own, lambda _: among(row)
        )


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


def predicted_by(setup: Setup) -> Choose:
    """The function that gives what the network itself predicts, of those classes that can be explained."""
    if setup.outlet.task == "detect":
        return found
    network = setup.network
    return lambda row, scores: predicted(row, scores[: network.labels.open] if network else scores)


def choose_targets(setup: Setup, plan: Plan, reading: Reading, batch: Batch) -> list[list[Subject | PictureError]]:
    """What is explained of each image; of a class of which there is nothing, the reason stands in its place.

    Args:
        setup: what is asked.
        plan: for images of this size.
        reading: what the network says of them.
        batch: the images.
    """
    agreed = replace(batch, choose=_agreed(batch.choose, reading, len(batch.images)))
    return [_chosen(setup, plan, reading, agreed, row) for row in range(len(batch.images))]


def _agreed(choose: Choose, reading: Reading, images: int) -> Choose:
    """Of a group with one prediction, what those of its images say that say anything, if they agree."""
    if not isinstance(reading, GroupPredictions):
        return choose

    scores = reading.scores(0)
    said: list[tuple[int, ...]] = []
    trouble: list[PictureError] = []
    if bool(scores.isfinite().all()):  # else the scores themselves are the trouble, and that is said of each image
        for row in range(images):
            try:
                said.append(tuple(dict.fromkeys(classes_of(choose(row, scores)))))
            except PictureError as error:
                trouble.append(error)
    if len(set(said)) > 1:
        reason = f"the model gives one prediction for the group, and {disagreement(said)}"
        said, trouble = [], [PictureError(reason, ONE_TARGET)]

    def agreed(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
        if trouble and not said:
            raise PictureError(trouble[0].message, trouble[0].hint)
        return said[0] if said else ()

    return agreed


def _chosen(setup: Setup, plan: Plan, reading: Reading, batch: Batch, row: int) -> list[Subject | PictureError]:
    """What is explained of one image."""
    labels = setup.network.labels if setup.network else Labels(())
    among = batch.among(row)
    try:
        scores = reading.scores(row)
        _check_finite(setup, scores, batch.images, row)
        if setup.of_no_class:
            return []
        indices = list(dict.fromkeys(classes_of(batch.choose(row, competing(scores, among)))))
        if not indices:
            raise PictureError(setup.outlet.nothing())
        if setup.of_layer:
            return [_of_channel(plan, index) for index in indices]
        check_classes(indices, len(scores), labels)
    except PictureError as error:
        return [error]
    nouns = labels.nouns if setup.network else "classes"
    subjects: list[Subject | PictureError] = []
    for index in indices:
        try:
            if among and index not in among:
                raise PictureError(f"{setup.label(index)!r} is none of its own {nouns}", "name one of them")
            subjects += reading.subjects(row, index, among)
        except PictureError as error:
            subjects.append(error)
    return subjects


def _check_finite(setup: Setup, scores: Tensor, images: Tensor, row: int) -> None:
    """See that an image's scores are numbers; where a model says what is in an image, -inf is what is not."""
    broken = (
        scores.isfinite().logical_not()
        if setup.outlet.task in ("classify", "features")
        else scores.isnan() | (scores == torch.inf)
    )
    if broken.any():
        raise PictureError(
            "the network's scores contain NaN or infinite values for this image" + where_not_finite(setup, images, row),
            "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
        )


def _of_channel(plan: Plan, index: int) -> Subject:
    """A channel of the layer, of each if there are several."""
    check_channel(plan, index)
    return Subject(index, torch.zeros((), device="cpu"), None, of_layer=True)


def check_channel(plan: Plan, index: int) -> None:
    """See that every layer has a channel.

    Raises:
        RequestError: one has not.
    """
    for name, count in plan.channels.items():
        if not 0 <= index < count:
            raise RequestError(
                f"there is no channel {index} at the layer {name!r}",
                f"it has {count} channels, counted from 0 to {count - 1}",
            )
