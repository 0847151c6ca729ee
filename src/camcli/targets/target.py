"""What is explained: a class with its score in the graph, and which number of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from camcli.base.errors import PictureError

Task = Literal["classify", "segment", "detect", "features"]
# What makes probabilities of scores; "probabilities": nothing need, since the scores are some.
Activation = Literal["softmax", "sigmoid", "none", "probabilities"]
Box = tuple[float, float, float, float]
NO_CLASS = -torch.inf


def as_given(scores: Tensor, index: int, rivals: Sequence[int], activation: Activation) -> Tensor:
    """The class's score as the model gives it, ``(...)`` of scores ``(classes, ...)``."""
    del rivals, activation
    return scores[index]


@dataclass(frozen=True, slots=True)
class Score:
    """Which number of a class's is explained.

    Attributes:
        name: what it is called.
        function: from the scores of all classes ``(classes, ...)``, the class, its rivals and what makes probabilities
            to that number ``(...)``.
        words: what it is, for people; empty for the score as it stands.
        against: whether it compares with rivals.
        versus: the rivals; empty for the strongest other class of each image.
        cosine: by which scale and bias scores follow from cosines, if it is these that the function is handed.
        sign: -1 to explain what lowers it (Selvaraju 2017, sec. 3.3: counterfactual explanations).
    """

    name: str = "logit"
    function: Callable[[Tensor, int, Sequence[int], Activation], Tensor] = as_given
    words: str = ""
    against: bool = False
    versus: tuple[int, ...] = ()
    cosine: tuple[float, float] | None = None
    sign: Literal[1, -1] = 1

    @property
    def plain(self) -> bool:
        """Whether it is the class's score as it stands."""
        return self.function is as_given and self.cosine is None and self.sign == 1

    def rivals(self, scores: Tensor, index: int) -> tuple[int, ...]:
        """The classes that a class is compared with, by an image's scores; raises PictureError if there are none."""
        if not self.against:
            return ()
        if self.versus:
            others = tuple(other for other in self.versus if other != index and scores[other] > NO_CLASS)
        else:
            rest = scores.detach().clone()
            rest[index] = NO_CLASS
            best = int(rest.argmax())  # of equal ones the first
            others = (best,) if rest[best] > NO_CLASS else ()
        if not others:
            raise PictureError(
                f"class {index} is compared with itself alone" if self.versus else "there is no other class in it",
                "name another class: --versus CLASS",
            )
        return others

    def __call__(self, scores: Tensor, index: int, rivals: Sequence[int], activation: Activation) -> Tensor:
        """The number, with its sign."""
        if self.cosine is not None:
            scale, bias = self.cosine
            scores = (scores - bias) / scale
        found = self.function(scores, index, rivals, activation)
        return found if self.sign > 0 else -found


LOGIT = Score()


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to explain in one image.

    Attributes:
        index: its class.
        score: the number whose gradient is taken; a scalar in the graph.
        probability: what the model makes of it; None if nothing does.
        number: which of the image's boxes it is, the best being 1; 0 if it is none.
        box: x0, y0, x1, y1 in pixels of the model's input, if it is a box.
        inside: where every pixel has a score, over which of them is summed, ``(h, w)``.
        rivals: the classes that it is compared with.
        among: the classes that it competes with in this image, itself among them; empty for all there are.
        length: of the image's features, where their inner product with a reference is explained; 0 elsewhere.
        note: what a reader of the map must know.
        of_layer: whether it is a channel of the layer that is looked at, and no class: it has no score.
    """

    index: int
    score: Tensor
    probability: float | None
    number: int = 0
    box: Box | None = None
    inside: Tensor | None = None
    rivals: tuple[int, ...] = ()
    among: tuple[int, ...] = ()
    length: float = 0.0
    note: str = ""
    of_layer: bool = False


@runtime_checkable
class Reading(Protocol):
    """A batch's answer."""

    @property
    def classes(self) -> int | None:
        """How many classes there are; None if the answer does not tell."""

    def scores(self, row: int) -> Tensor:
        """The score of every class in an image, ``(classes,)``; -inf for one that is not in it, and for background."""

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:
        """What is explained of a class in an image; raises PictureError if there is nothing.

        Where a row of scores is what the image has, ``among`` can say which classes compete in it; empty: all.
        """

    def total(self) -> Tensor:
        """A sum that the gradient can be tried with."""

    def answer(self, row: int, subject: Subject) -> Tensor:
        """The score, in an image of this answer, of what was explained in another: a scalar in the graph."""

    def answers(self, row: int, subject: Subject) -> Tensor:
        """Likewise the score of every class, ``(classes,)``."""


# ---- one score for each class


def competing(scores: Tensor, among: Sequence[int]) -> Tensor:
    """Scores ``(classes,)``, -inf where a class does not compete; all of them where ``among`` names none."""
    if not among:
        return scores
    hidden = torch.full_like(scores, NO_CLASS)
    hidden[list(among)] = scores[list(among)]
    return hidden
