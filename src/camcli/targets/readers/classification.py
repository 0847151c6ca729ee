"""One score for each class, for an image or a group of images; likeness to other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from camcli.targets.readers import probabilities
from camcli.targets.target import LOGIT, Subject, competing

if TYPE_CHECKING:
    from camcli.targets.target import Activation, Reading, Score

# How far a cosine may be from 1 for a picture that is the reference itself.
ITSELF = 1e-5


@dataclass(frozen=True, slots=True)
class ClassPredictions:
    """One row of class scores for each image."""

    table: Tensor
    activation: Activation
    score: Score = LOGIT

    @property
    def classes(self) -> int:
        return self.table.shape[1]

    def scores(self, row: int) -> Tensor:
        return self.table[row].detach().float().cpu()

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:
        if self.activation == "probabilities":
            probabilities.check(self.table[row])
        scores = self.scores(row)
        rivals = self.score.rivals(competing(scores, among), index)
        probability = self._probability(scores, index, among)
        subject = Subject(index, self.table[row, index], probability, rivals=rivals, among=tuple(among))
        return [replace(subject, score=ClassPredictions.answer(self, row, subject))]

    def total(self) -> Tensor:
        return self.table.max(1).values.sum()

    def answer(self, row: int, subject: Subject) -> Tensor:
        # Rivals and competitors stay those of the picture itself, whoever they would be in a variant of it.
        scores, index, rivals = self.table[row], subject.index, subject.rivals
        if subject.among:
            scores, place = scores[list(subject.among)], subject.among.index
            index, rivals = place(index), tuple(map(place, rivals))
        return self.score(scores, index, rivals, self.activation)

    def answers(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        return self.table[row]

    def _probability(self, scores: Tensor, index: int, among: Sequence[int] = ()) -> float | None:
        if self.activation == "none" or (self.activation == "softmax" and len(among) == 1):
            return None
        if self.activation == "probabilities":
            return float(scores[index])
        scores = competing(scores, among)
        # Softmax of a single score is 1 whatever it says.
        alone = self.classes == 1 or self.activation == "sigmoid"
        return float(scores.sigmoid()[index] if alone else scores.softmax(0)[index])


# ---- likeness to other pictures


@dataclass(frozen=True, slots=True)
class SimilarityPredictions(ClassPredictions):
    """Cosines ``(n, r)`` between features ``(n, c)`` and those of references ``(r, c)``.

    Where a picture is the reference itself the cosine is at its greatest and has no gradient. There the inner product
    with the reference is explained, in units of the picture's own length, so that its value is the cosine too: what
    each place has in it (Stylianou et al. 2019, arXiv:1901.00536).
    """

    products: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))

    @classmethod
    def to(cls, features: Tensor, references: Tensor, score: Score) -> Reading:
        products = features @ F.normalize(references.to(features), dim=1).mT
        lengths = features.norm(dim=1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)
        return cls(products / lengths, "none", score, products)

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:
        [subject] = ClassPredictions.subjects(self, row, index, among)
        cosine = float(self.table[row, index].detach())
        if not self.score.plain or 1 - cosine > ITSELF:
            return [subject]
        length = float(self.products[row, index].detach()) / cosine
        note = "it is the reference itself, where the cosine has no gradient: the inner product is explained"
        return [replace(subject, score=self.products[row, index] / length, length=length, note=note)]

    def answer(self, row: int, subject: Subject) -> Tensor:
        if subject.length:
            return self.products[row, subject.index] / subject.length
        return ClassPredictions.answer(self, row, subject)


# ---- one prediction for a group


class GroupPredictions:
    """One prediction for all images of a group: each of its images has the same scores, and the same subjects.

    Args:
        one: the prediction, a reading of one row.
    """

    def __init__(self, one: Reading) -> None:
        self._one = one
        # So that a score is one tensor for all images: whoever adds scores up counts it once.
        self._subjects: dict[tuple[int, tuple[int, ...]], Sequence[Subject]] = {}
        self._answers: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Tensor] = {}

    @property
    def classes(self) -> int | None:
        """How many classes there are."""
        return self._one.classes

    def scores(self, row: int) -> Tensor:  # noqa: ARG002
        """The one row of scores."""
        return self._one.scores(0)

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:  # noqa: ARG002
        """The same subjects for every image."""
        asked = index, tuple(among)
        if asked not in self._subjects:
            self._subjects[asked] = self._one.subjects(0, index, among)
        return self._subjects[asked]

    def total(self) -> Tensor:
        """A sum that the gradient can be tried with."""
        return self._one.total()

    def answer(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        """The same tensor for every image."""
        asked = subject.index, subject.rivals, subject.among
        if asked not in self._answers:
            self._answers[asked] = self._one.answer(0, subject)
        return self._answers[asked]

    def answers(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        """Likewise the score of every class."""
        return self._one.answers(0, subject)
