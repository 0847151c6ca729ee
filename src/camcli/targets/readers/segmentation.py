"""One score for each class and pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.targets.readers import probabilities
from camcli.targets.target import LOGIT, NO_CLASS, Subject

if TYPE_CHECKING:
    from camcli.targets.target import Activation, Score

# Torchvision's word for the class of what is no object: nobody asks why a wall is no dog.
BACKGROUND = "__background__"


# ---- one score for each class and pixel


@dataclass(frozen=True, slots=True)
class PixelPredictions:
    """Class scores summed over a region (Vinogradova et al. 2020, Seg-Grad-CAM)."""

    table: Tensor
    activation: Activation
    names: tuple[str, ...]
    # Masks are where the scores are, and as large.
    seen: Tensor | None
    region: Tensor | None
    score: Score = LOGIT

    @property
    def classes(self) -> int:
        return self.table.shape[1]

    @property
    def _exclusive(self) -> bool:
        """Whether a pixel is of one class alone."""
        if self.activation == "probabilities":
            return probabilities.exclusive(self.table)
        return self.classes > 1 and self.activation == "softmax"

    def mask(self, row: int, index: int, winners: Tensor | None = None) -> Tensor:
        """The pixels of a class, ``(h, w)``: those given, else where it is predicted; never the padding.

        It is predicted where it scores highest; where classes do not exclude one another above zero, or above a half
        if the scores are probabilities.
        """
        scores = self.table[row].detach()
        if self.region is not None:
            inside = self.region[row]
        elif not self._exclusive:
            inside = scores[index] > (0.5 if self.activation == "probabilities" else 0)
        else:
            inside = (scores.argmax(0) if winners is None else winners) == index
        return inside & self.seen[row] if self.seen is not None else inside

    def scores(self, row: int) -> Tensor:
        table = self.table[row].detach()
        sums = torch.full((self.classes,), NO_CLASS, device="cpu")
        winners = table.argmax(0)
        for index in range(self.classes):
            inside = self.mask(row, index, winners)
            if inside.any() and self._name(index) != BACKGROUND:
                sums[index] = table[index][inside].sum().cpu()
        return sums

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:  # noqa: ARG002
        if self.activation == "probabilities":
            probabilities.check(self.table[row])
        inside = self.mask(row, index)
        if not inside.any():
            raise PictureError(
                "the region lies outside the model's input"
                if self.region is not None
                else f"the model predicts class {index} ({self._name(index)}) nowhere in it",
                "name another region" if self.region is not None else "name another class, or a region: --region",
            )
        probability = self._probability(row, index, inside)
        pixels = self.table[row][:, inside]
        rivals = self.score.rivals(pixels.detach().sum(1), index)
        score = self.score(pixels, index, rivals, self.activation).sum()
        return [Subject(index, score, probability, inside=inside, rivals=rivals)]

    def total(self) -> Tensor:
        return self.table.max(1).values.sum()

    def answer(self, row: int, subject: Subject) -> Tensor:
        pixels = self.table[row][:, self._region_of(subject)]
        return self.score(pixels, subject.index, subject.rivals, self.activation).sum()

    def answers(self, row: int, subject: Subject) -> Tensor:
        return self.table[row][:, self._region_of(subject)].sum(1)

    def _region_of(self, subject: Subject) -> Tensor:
        # The pixels stay those of the picture itself: what a variant of it is taken for elsewhere is another question.
        assert subject.inside is not None
        return resize_masks(subject.inside[None], self.table)[0]

    def _name(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else str(index)

    def _probability(self, row: int, index: int, inside: Tensor) -> float | None:
        """The mean over the region."""
        table = self.table[row].detach()
        if self.activation == "none":
            return None
        if self.activation == "probabilities":
            return float(table[index][inside].mean())
        alone = self.classes == 1 or self.activation == "sigmoid"
        return float((table.sigmoid() if alone else table.softmax(0))[index][inside].mean())


def resize_masks(masks: Tensor, table: Tensor) -> Tensor:
    """Masks ``(n, h, w)`` where scores ``(n, classes, h2, w2)`` are, and as large."""
    masks, size = masks.to(table.device), (table.shape[2], table.shape[3])
    if masks.shape[1:] == size:
        return masks
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0] > 0
