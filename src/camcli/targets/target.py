"""Targets of explanations, the scores that are explained, and the protocol of predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from camcli.base.errors import PictureError

Task = Literal["classify", "segment", "detect", "features"]
# The function from scores to probabilities; "probabilities" if the scores are probabilities already.
Activation = Literal["softmax", "sigmoid", "none", "probabilities"]
Box = tuple[float, float, float, float]
NO_SCORE = -torch.inf


def logit(scores: Tensor, index: int, rivals: Sequence[int], activation: Activation) -> Tensor:
    """Return the class's score as the model returns it, ``(...)`` of scores ``(classes, ...)``."""
    del rivals, activation
    return scores[index]


@dataclass(frozen=True, slots=True)
class Score:
    """Kind of score that is explained.

    Attributes:
        name: name of the score.
        function: from the scores of all classes ``(classes, ...)``, the class, its rivals and the activation to the
            explained number ``(...)``.
        description: description for the user; empty for the plain logit.
        has_rivals: True if the class is compared with rivals.
        fixed_rivals: the rivals; empty for the strongest other class of each image.
        cosine_scaling: scale and bias between cosines and scores, if the function takes cosines; else None.
        of_box: True if the function takes the corners of a detector's box ``(4,)`` in place of scores.
        sign: -1 to explain what lowers the score (Selvaraju 2017, sec. 3.3: counterfactual explanations).
    """

    name: str = "logit"
    function: Callable[[Tensor, int, Sequence[int], Activation], Tensor] = logit
    description: str = ""
    has_rivals: bool = False
    fixed_rivals: tuple[int, ...] = ()
    cosine_scaling: tuple[float, float] | None = None
    sign: Literal[1, -1] = 1
    of_box: bool = False

    @property
    def is_plain_logit(self) -> bool:
        """True if the class's score is explained as it is."""
        return self.function is logit and self.cosine_scaling is None and self.sign == 1

    def find_rivals(self, scores: Tensor, index: int) -> tuple[int, ...]:
        """Return the classes to compare a class with, by an image's scores; raise PictureError if there are none."""
        if not self.has_rivals:
            return ()
        if self.fixed_rivals:
            others = tuple(other for other in self.fixed_rivals if other != index and scores[other] > NO_SCORE)
        else:
            rest = scores.detach().clone()
            rest[index] = NO_SCORE
            best = int(rest.argmax())  # the first of equal ones
            others = (best,) if rest[best] > NO_SCORE else ()
        if not others:
            raise PictureError(
                f"class {index} is compared only with itself" if self.fixed_rivals else "there is no other class in it",
                "name another class: --versus CLASS",
            )
        return others

    def __call__(self, scores: Tensor, index: int, rivals: Sequence[int], activation: Activation) -> Tensor:
        """Compute the explained number, with its sign."""
        if self.cosine_scaling is not None:
            scale, bias = self.cosine_scaling
            scores = (scores - bias) / scale
        found = self.function(scores, index, rivals, activation)
        return found if self.sign > 0 else -found


LOGIT = Score()


@dataclass(frozen=True, slots=True)
class Target:
    """Target of an explanation in one image: a class, a box, a region or a channel.

    Attributes:
        index: index of the class.
        score: the number whose gradient is taken, a scalar in the graph.
        probability: probability of the class; None if the model returns none.
        box_number: number of the box in the image, 1 for the best; 0 if the target is not a box.
        box: x0, y0, x1, y1 of the box in pixels of the model's input.
        true_box: the true box that the box stands for, if a file of them is explained.
        box_probabilities: of every class for the box, ``(classes,)``, which boxes in changed images are compared with.
        region_mask: the pixels that a score of each pixel is summed over, ``(h, w)``.
        rivals: the classes that the class is compared with.
        competing: the classes that compete in this image, this one among them; empty for all.
        feature_norm: norm of the image's features, where their inner product with a reference is explained; else 0.
        note: remark for the reader of the map.
        is_layer_channel: True for a channel of the explained layer, which has no score, instead of a class.
    """

    index: int
    score: Tensor
    probability: float | None
    box_number: int = 0
    box: Box | None = None
    region_mask: Tensor | None = None
    rivals: tuple[int, ...] = ()
    competing: tuple[int, ...] = ()
    feature_norm: float = 0.0
    note: str = ""
    is_layer_channel: bool = False
    box_probabilities: Tensor | None = None
    true_box: Box | None = None


@dataclass(frozen=True, slots=True)
class WantedBox:
    """One box that is asked for in an image, in place of a class.

    Attributes:
        number: the rank of a box among those found, by score, from 1 on; of a true box, its number in the file.
        index: its class; None for any.
        truth: corners of a true box in pixels of the input, whose best candidate is explained; None for a box found.
    """

    number: int
    index: int | None = None
    truth: Box | None = None


@runtime_checkable
class Predictions(Protocol):
    """Predictions of a network for a batch."""

    @property
    def classes(self) -> int | None:
        """Number of classes; None if the predictions do not determine it."""

    def scores(self, row: int) -> Tensor:
        """Return an image's score of every class, ``(classes,)``; -inf for background and classes not in it."""

    def find_targets(self, row: int, index: int, competing: Sequence[int] = ()) -> Sequence[Target]:
        """Return the targets of a class in an image; raise PictureError if there are none.

        For one row of scores an image, ``competing`` limits the classes that compete in it; empty for all.
        """

    def sum_scores(self) -> Tensor:
        """Return a sum of scores to try a gradient with."""

    def score_target(self, row: int, target: Target) -> Tensor:
        """Return the score in these predictions of a target from others, a scalar in the graph."""

    def score_classes(self, row: int, target: Target) -> Tensor:
        """Return the scores of every class for a target from other predictions, ``(classes,)``."""


# ---- one score for each class


def mask_competing(scores: Tensor, competing_classes: Sequence[int]) -> Tensor:
    """Set the scores ``(classes,)`` of classes that do not compete to -inf; an empty sequence keeps all."""
    if not competing_classes:
        return scores
    masked = torch.full_like(scores, NO_SCORE)
    masked[list(competing_classes)] = scores[list(competing_classes)]
    return masked
