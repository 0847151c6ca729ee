"""Predictions with one score for each class, of an image or a group, and similarity to other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm

from camcli.targets.readers import probabilities
from camcli.targets.target import LOGIT, Target, mask_competing

if TYPE_CHECKING:
    from camcli.targets.target import Activation, Predictions, Score

# Tolerance of the cosine, which is 1, between an image and itself.
SELF_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class ClassPredictions:
    """Predictions with one row of class scores for each image."""

    score_tensor: Tensor
    activation: Activation
    score: Score = LOGIT

    @property
    def classes(self) -> int:
        return self.score_tensor.shape[1]

    def scores(self, row: int) -> Tensor:
        return self.score_tensor[row].detach().float().cpu()

    def find_targets(self, row: int, index: int, competing: Sequence[int] = ()) -> Sequence[Target]:
        if self.activation == "probabilities":
            probabilities.check(self.score_tensor[row])
        scores = self.scores(row)
        rivals = self.score.find_rivals(mask_competing(scores, competing), index)
        probability = self._compute_probability(scores, index, competing)
        target = Target(index, self.score_tensor[row, index], probability, rivals=rivals, competing=tuple(competing))
        return [replace(target, score=ClassPredictions.score_target(self, row, target))]

    def sum_scores(self) -> Tensor:
        return self.score_tensor.max(1).values.sum()

    def score_target(self, row: int, target: Target) -> Tensor:
        # Rivals and competing classes stay those of the original image, even for a variant of it.
        scores, index, rivals = self.score_tensor[row], target.index, target.rivals
        if target.competing:
            scores, position_of = scores[list(target.competing)], target.competing.index
            index, rivals = position_of(index), tuple(map(position_of, rivals))
        return self.score(scores, index, rivals, self.activation)

    def score_classes(self, row: int, target: Target) -> Tensor:  # noqa: ARG002
        return self.score_tensor[row]

    def _compute_probability(self, scores: Tensor, index: int, competing: Sequence[int] = ()) -> float | None:
        if self.activation == "none" or (self.activation == "softmax" and len(competing) == 1):
            return None
        if self.activation == "probabilities":
            return float(scores[index])
        scores = mask_competing(scores, competing)
        # Softmax of a single score is always 1.
        is_independent = self.classes == 1 or self.activation == "sigmoid"
        return float(scores.sigmoid()[index] if is_independent else scores.softmax(0)[index])


# ---- similarity to other images


@dataclass(frozen=True, slots=True)
class SimilarityPredictions(ClassPredictions):
    """Cosines ``(n, r)`` between features ``(n, c)`` and those of references ``(r, c)``.

    For the reference image itself the cosine is at its maximum and has no gradient. There the inner product with the
    reference is explained, divided by the norm of the image's features, so that its value is the cosine too
    (Stylianou et al. 2019, arXiv:1901.00536).
    """

    products: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))

    @classmethod
    def from_features(cls, features: Tensor, references: Tensor, score: Score) -> Predictions:
        products = features @ F.normalize(references.to(features), dim=1).mT
        lengths = vector_norm(features, dim=1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)
        return cls(products / lengths, "none", score, products)

    def find_targets(self, row: int, index: int, competing: Sequence[int] = ()) -> Sequence[Target]:
        [target] = ClassPredictions.find_targets(self, row, index, competing)
        cosine = float(self.score_tensor[row, index].detach())
        if not self.score.is_plain_logit or 1 - cosine > SELF_TOLERANCE:
            return [target]
        feature_norm = float(self.products[row, index].detach()) / cosine
        note = "it is the reference itself, where the cosine has no gradient: the inner product is explained"
        return [replace(target, score=self.products[row, index] / feature_norm, feature_norm=feature_norm, note=note)]

    def score_target(self, row: int, target: Target) -> Tensor:
        if target.feature_norm:
            return self.products[row, target.index] / target.feature_norm
        return ClassPredictions.score_target(self, row, target)


# ---- one prediction for a group


class GroupPredictions:
    """Predictions for a group of images, which all have the same scores and targets.

    Args:
        predictions: predictions of one row.
    """

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions
        # Cached so that a score is one tensor for all images, and a sum over images can count it once.
        self._targets: dict[tuple[int, tuple[int, ...]], Sequence[Target]] = {}
        self._target_scores: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Tensor] = {}

    @property
    def classes(self) -> int | None:
        """Number of classes."""
        return self._predictions.classes

    def scores(self, row: int) -> Tensor:  # noqa: ARG002
        """Return the one row of scores."""
        return self._predictions.scores(0)

    def find_targets(self, row: int, index: int, competing: Sequence[int] = ()) -> Sequence[Target]:  # noqa: ARG002
        """Return the same targets for every image."""
        key = index, tuple(competing)
        if key not in self._targets:
            self._targets[key] = self._predictions.find_targets(0, index, competing)
        return self._targets[key]

    def sum_scores(self) -> Tensor:
        """Return a sum of scores to try a gradient with."""
        return self._predictions.sum_scores()

    def score_target(self, row: int, target: Target) -> Tensor:  # noqa: ARG002
        """Return the same tensor for every image."""
        key = target.index, target.rivals, target.competing
        if key not in self._target_scores:
            self._target_scores[key] = self._predictions.score_target(0, target)
        return self._target_scores[key]

    def score_classes(self, row: int, target: Target) -> Tensor:  # noqa: ARG002
        """Return the same scores of every class for every image."""
        return self._predictions.score_classes(0, target)
