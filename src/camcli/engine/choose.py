"""Choice of the classes that are explained of each image, from a call's targets and the image's scores."""

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
from camcli.engine.maps.result import locate_not_finite
from camcli.engine.setup import Setup
from camcli.images.features import Features, select_image
from camcli.targets.labels import Labels
from camcli.targets.readers.classification import GroupPredictions
from camcli.targets.readers.detection import BoxPredictions
from camcli.targets.target import Predictions, Target, WantedBox, mask_competing

T = TypeVar("T")
# A class by its number: a Python or NumPy number, or a tensor or array with a single number.
ClassIndex = int | np.integer | Tensor | np.ndarray
# From an image's row in the batch and its scores (classes,) to the classes or boxes explained; PictureError for none.
# Models that know which classes are in the image give the others the score -inf.
TargetSelector = Callable[[int, Tensor], Sequence[int | WantedBox] | ClassIndex]
# The targets of a batch, as a call takes them.
TargetsArgument = ClassIndex | Sequence[ClassIndex] | Sequence[Sequence[ClassIndex]] | TargetSelector | None

ONE_TARGET_HINT = "give all images of a group the same targets"


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with the arguments of their call.

    Attributes:
        images: preprocessed for the model.
        select: from an image's row and its scores to its classes.
        picture_mask: for models that score every pixel: True where the input shows the image and not padding.
        region_mask: for models that score every pixel: the pixels to sum over.
        extras: features of the images.
        competing: from an image's row to the classes that compete in it, the only ones that can be explained; empty for
            all.
    """

    images: Tensor
    select: TargetSelector
    picture_mask: Tensor | None = None
    region_mask: Tensor | None = None
    extras: Features | None = None
    competing: Callable[[int], Sequence[int]] = lambda row: ()

    def single(self, row: int) -> Batch:
        """Return a batch of one of the images."""
        picture_mask, region_mask = (
            None if mask is None else mask[row : row + 1] for mask in (self.picture_mask, self.region_mask)
        )
        return Batch(
            self.images[row : row + 1],
            lambda _, scores: self.select(row, scores),
            picture_mask,
            region_mask,
            None if self.extras is None else select_image(self.extras, row),
            lambda _: self.competing(row),
        )


def select_highest(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """Select the class with the greatest score."""
    return [int(scores.argmax())] if len(scores) and scores.max() > -torch.inf else []


def select_detected(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
    """Select all classes that are in the image, by descending score: the prediction of a detector."""
    order = scores.sort(descending=True, stable=True).indices.tolist()
    return [index for index in order if scores[index] > -torch.inf]


def as_selector(targets: Any, images: int, shares_prediction: bool = False) -> TargetSelector | None:
    """Convert the targets of a call to a function; None if the model's own prediction is explained.

    Args:
        targets: :data:`TargetsArgument`, as :meth:`camcli.Explainer.__call__` takes them; anything else is refused.
        images: number of images.
        shares_prediction: True if the images share one prediction, so that one target is enough.

    Raises:
        RequestError: the numbers of targets and of images differ, or a target is not an integer.
    """
    if targets is None:
        return None
    if callable(targets) and not isinstance(targets, Tensor):
        return cast("TargetSelector", targets)
    if _is_class(targets):
        classes = parse_classes(targets)
        return lambda row, scores: classes
    if not _is_class_sequence(targets):
        raise _no_class_error(targets)
    wanted = [parse_classes(one) for one in targets]
    if shares_prediction and len(wanted) == 1:
        return lambda row, scores: wanted[0]
    if len(wanted) != images:
        raise RequestError(
            f"{len(wanted)} targets were given for {images} images",
            "give one for each image, or a single number for all",
        )
    return lambda row, scores: wanted[row]


def one_of(name: str, given: T, other: str, also: T) -> T:
    """Return the one that is given of two names for an argument; the first where neither is.

    Raises:
        RequestError: both are.
    """
    empty = [isinstance(one, tuple | list) and not one for one in (given, also)]
    if not any(empty):
        raise RequestError(f"{name}= and {other}= are one argument, and both are given", "leave one out")
    return also if empty[0] else given


def as_shared_selector(target: Any, targets: Any, labels: Labels | None) -> TargetSelector | None:
    """Convert the target of a call, which holds for every image, to a function; None if there is none.

    Raises:
        RequestError: there are targets too; it is a name that no class has, or no class's number.
    """
    if isinstance(target, tuple | list) and not target:
        return None
    if targets is not None:
        raise RequestError(
            "both target= and targets= are given",
            "target= holds for every image, and targets= has an entry for each: leave one out",
        )
    given = as_tuple(to_python(target))
    if labels is None and any(isinstance(one, str) for one in given):
        raise RequestError(f"{given[0]!r} is a name, and a bare module has no names of classes", "give its number")
    classes = tuple(labels.find(one) if labels and isinstance(one, str) else _to_class(one) for one in given)
    return lambda row, scores: classes


def parse_classes(given: Any) -> tuple[int, ...]:
    """Convert classes given by number to a tuple of ints: one, or several in a sequence, tensor or array.

    Raises:
        RequestError: one of them is not an integer.
    """
    several = given if not _is_class(given) and _is_class_sequence(given) else [given]
    return tuple(map(_to_class, several))


def as_tuple(given: T | Iterable[T]) -> tuple[T, ...]:
    """Return a single value or an iterable of values as a tuple; a string is a single value."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)


def to_python(given: Any) -> Any:
    """Convert numbers of NumPy and PyTorch to Python's; return anything else unchanged."""
    return given.tolist() if isinstance(given, Tensor | np.ndarray | np.generic) else given


def parse_targets(given: Any) -> tuple[int | WantedBox, ...]:
    """Convert targets as :func:`parse_classes` does, where boxes may be among them.

    Raises:
        RequestError: one of them is neither an integer nor a box.
    """
    several = given if isinstance(given, list | tuple) else [given]
    if any(isinstance(one, WantedBox) for one in several):
        return tuple(one if isinstance(one, WantedBox) else _to_class(one) for one in several)
    return parse_classes(given)


def _is_class(given: Any) -> bool:
    return isinstance(given, Integral | float) or (isinstance(given, Tensor | np.ndarray) and not given.ndim)


def _is_class_sequence(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str | bytes)


def _to_class(given: Any) -> int:
    value = to_python(given)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _no_class_error(given)
    return int(value)


def _no_class_error(given: Any) -> RequestError:
    kind = str(given.dtype).removeprefix("torch.") if isinstance(given, Tensor | np.ndarray) else type(given).__name__
    value = repr(given if not isinstance(given, Tensor | np.ndarray) else given.tolist())[:80]
    return RequestError(
        f"{value} ({kind}) is not a class index",
        "give integers from 0 on: network.labels.find('tabby') returns the index of a name, one_hot.argmax(1) that of "
        "a one-hot row",
    )


def check_classes(indices: Sequence[int], classes: int, labels: Labels) -> None:
    """Check that the model has these classes.

    Raises:
        RequestError: it does not have one of them.
    """
    for index in indices:
        if not 0 <= index < classes:
            raise RequestError(
                f"there is no {labels.noun} {index}",
                f"the model has {classes} {labels.nouns}, counted from 0 to {classes - 1}",
            )


def describe_disagreement(choices: Sequence[tuple[int, ...]]) -> str:
    """Describe in words that images have different targets."""
    first, second, *_ = dict.fromkeys(choices)
    one, other = (", ".join(map(str, classes)) or "none" for classes in (first, second))
    return f"its images have different targets: {one} and {other}"


def default_selector(setup: Setup) -> TargetSelector:
    """Return a function that selects the network's own prediction among the classes that can be explained."""
    if setup.output_spec.task == "detect":
        return select_detected
    network = setup.network
    return lambda row, scores: select_highest(row, scores[: network.labels.explainable_count] if network else scores)


def choose_targets(
    setup: Setup, plan: Plan, predictions: Predictions, batch: Batch
) -> list[list[Target | PictureError]]:
    """Choose the targets of each image; an error takes the place of a target that cannot be explained.

    Args:
        setup: settings of the explainer.
        plan: for images of this size.
        predictions: of the images.
        batch: the images.
    """
    agreed = replace(batch, select=_select_agreed(batch.select, predictions, len(batch.images)))
    return [_choose_for_image(setup, plan, predictions, agreed, row) for row in range(len(batch.images))]


def choose_classes(setup: Setup, predictions: Predictions, batch: Batch) -> list[list[int] | PictureError]:
    """Choose the classes of each image whose concepts may matter to them; an error where they cannot be explained."""

    def choose(row: int) -> list[int] | PictureError:
        scores = predictions.scores(row)
        try:
            classes = parse_classes(batch.select(row, mask_competing(scores, batch.competing(row))))
            check_classes(classes, len(scores), setup.network.labels if setup.network else Labels(()))
        except PictureError as error:
            return error
        return list(dict.fromkeys(classes))

    return [choose(row) for row in range(len(batch.images))]


def _select_agreed(select: TargetSelector, predictions: Predictions, images: int) -> TargetSelector:
    """Return a selector for a group with one prediction: the common choice of its images, if they agree."""
    if not isinstance(predictions, GroupPredictions):
        return select

    scores = predictions.scores(0)
    choices: list[tuple[int, ...]] = []
    errors: list[PictureError] = []
    if bool(scores.isfinite().all()):  # otherwise _check_finite reports the scores, for each image
        for row in range(images):
            try:
                choices.append(tuple(dict.fromkeys(parse_classes(select(row, scores)))))
            except PictureError as error:
                errors.append(error)
    if len(set(choices)) > 1:
        reason = f"the model returns one prediction for the group, and {describe_disagreement(choices)}"
        choices, errors = [], [PictureError(reason, ONE_TARGET_HINT)]

    def select_common(row: int, scores: Tensor) -> Sequence[int]:  # noqa: ARG001
        if errors and not choices:
            raise PictureError(errors[0].message, errors[0].hint)
        return choices[0] if choices else ()

    return select_common


def _choose_for_image(
    setup: Setup, plan: Plan, predictions: Predictions, batch: Batch, row: int
) -> list[Target | PictureError]:
    """Choose the targets of one image."""
    labels = setup.network.labels if setup.network else Labels(())
    competing = batch.competing(row)
    try:
        scores = predictions.scores(row)
        _check_finite(setup, scores, batch.images, row)
        if setup.finds_concepts:
            return []
        wanted = list(dict.fromkeys(parse_targets(batch.select(row, mask_competing(scores, competing)))))
        indices = [one for one in wanted if not isinstance(one, WantedBox)]
        if not wanted:
            raise PictureError(setup.output_spec.describe_no_target())
        if setup.explains_channels:
            return [_make_channel_target(plan, index) for index in indices]
        check_classes(indices, len(scores), labels)
    except PictureError as error:
        return [error]
    nouns = labels.nouns if setup.network else "classes"
    targets: list[Target | PictureError] = []
    for index in wanted:
        try:
            if isinstance(index, WantedBox):
                targets.append(_find_box(setup, predictions, row, index))
                continue
            if competing and index not in competing:
                raise PictureError(f"{setup.label(index)!r} is none of its own {nouns}", "name one of them")
            targets += predictions.find_targets(row, index, competing)
        except PictureError as error:
            targets.append(error)
    return targets


def _find_box(setup: Setup, predictions: Predictions, row: int, wanted: WantedBox) -> Target:
    """Find one box of an image.

    Raises:
        RequestError: the model finds no boxes.
        PictureError: the image has no such box.
    """
    if not isinstance(predictions, BoxPredictions):
        name = setup.network.name if setup.network else "the model"
        raise RequestError(f"{name} finds no boxes, and a box is to be explained", "name a class")
    return predictions.find_box(row, wanted)


def _check_finite(setup: Setup, scores: Tensor, images: Tensor, row: int) -> None:
    """Check that an image's scores are finite; -inf is allowed from models that use it for classes not in the image."""
    broken = (
        scores.isfinite().logical_not()
        if setup.output_spec.task in ("classify", "features")
        else scores.isnan() | (scores == torch.inf)
    )
    if broken.any():
        raise PictureError(
            "the network's scores contain NaN or infinite values for this image"
            + locate_not_finite(setup, images, row),
            "the weights contain such values, or half precision overflows (then --precision fp32 helps)",
        )


def _make_channel_target(plan: Plan, index: int) -> Target:
    """Build the target for a channel of the layer, or of each layer if there are several."""
    check_channel(plan, index)
    return Target(index, torch.zeros((), device="cpu"), None, is_layer_channel=True)


def check_channel(plan: Plan, index: int) -> None:
    """Check that every layer has a channel of this index.

    Raises:
        RequestError: a layer has not.
    """
    for name, count in plan.channel_counts.items():
        if not 0 <= index < count:
            raise RequestError(
                f"there is no channel {index} at the layer {name!r}",
                f"it has {count} channels, counted from 0 to {count - 1}",
            )
