"""Predictions with one score for each class and pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.targets.readers import probabilities
from camcli.targets.target import LOGIT, NO_SCORE, Target

if TYPE_CHECKING:
    from camcli.targets.target import Activation, Score

# Torchvision's name for the class of background, which is never explained.
BACKGROUND = "__background__"


# ---- one score for each class and pixel


@dataclass(frozen=True, slots=True)
class PixelPredictions:
    """Predictions with class scores summed over a region (Vinogradova et al. 2020, Seg-Grad-CAM)."""

    score_tensor: Tensor
    activation: Activation
    names: tuple[str, ...]
    # Masks are on the scores' device and of their size.
    picture_mask: Tensor | None
    region_mask: Tensor | None
    score: Score = LOGIT

    @property
    def classes(self) -> int:
        return self.score_tensor.shape[1]

    @property
    def _is_exclusive(self) -> bool:
        """True if each pixel belongs to one class alone."""
        if self.activation == "probabilities":
            return probabilities.sum_to_one(self.score_tensor)
        return self.classes > 1 and self.activation == "softmax"

    def class_mask(self, row: int, index: int, winners: Tensor | None = None) -> Tensor:
        """Return the pixels of a class, ``(h, w)``: the given region, else where it is predicted; never padding.

        A class is predicted where its score is highest; if classes are not exclusive, where it is above zero, or above
        a half for probabilities.
        """
        scores = self.score_tensor[row].detach()
        if self.region_mask is not None:
            inside = self.region_mask[row]
        elif not self._is_exclusive:
            inside = scores[index] > (0.5 if self.activation == "probabilities" else 0)
        else:
            inside = (scores.argmax(0) if winners is None else winners) == index
        return inside & self.picture_mask[row] if self.picture_mask is not None else inside

    def scores(self, row: int) -> Tensor:
        table = self.score_tensor[row].detach()
        sums = torch.full((self.classes,), NO_SCORE, device="cpu")
        winners = table.argmax(0)
        for index in range(self.classes):
            inside = self.class_mask(row, index, winners)
            if inside.any() and self._class_name(index) != BACKGROUND:
                sums[index] = table[index][inside].sum().cpu()
        return sums

    def find_targets(self, row: int, index: int, competing: Sequence[int] = ()) -> Sequence[Target]:  # noqa: ARG002
        if self.activation == "probabilities":
            probabilities.check(self.score_tensor[row])
        inside = self.class_mask(row, index)
        if not inside.any():
            raise PictureError(
                "the region lies outside the model's input"
                if self.region_mask is not None
                else f"the model predicts class {index} ({self._class_name(index)}) nowhere in it",
                "name another region" if self.region_mask is not None else "name another class, or a region: --region",
            )
        probability = self._mean_probability(row, index, inside)
        pixels = self.score_tensor[row][:, inside]
        rivals = self.score.find_rivals(pixels.detach().sum(1), index)
        score = self.score(pixels, index, rivals, self.activation).sum()
        return [Target(index, score, probability, region_mask=inside, rivals=rivals)]

    def sum_scores(self) -> Tensor:
        return self.score_tensor.max(1).values.sum()

    def score_target(self, row: int, target: Target) -> Tensor:
        pixels = self.score_tensor[row][:, self._resize_region(target)]
        return self.score(pixels, target.index, target.rivals, self.activation).sum()

    def score_classes(self, row: int, target: Target) -> Tensor:
        return self.score_tensor[row][:, self._resize_region(target)].sum(1)

    def _resize_region(self, target: Target) -> Tensor:
        # The pixels stay those of the original image, whatever is predicted in a variant of it.
        assert target.region_mask is not None
        return resize_masks(target.region_mask[None], self.score_tensor)[0]

    def _class_name(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else str(index)

    def _mean_probability(self, row: int, index: int, inside: Tensor) -> float | None:
        """Return the mean probability over the region."""
        table = self.score_tensor[row].detach()
        if self.activation == "none":
            return None
        if self.activation == "probabilities":
            return float(table[index][inside].mean())
        is_independent = self.classes == 1 or self.activation == "sigmoid"
        return float((table.sigmoid() if is_independent else table.softmax(0))[index][inside].mean())


def resize_masks(masks: Tensor, score_tensor: Tensor) -> Tensor:
    """Bring masks ``(n, h, w)`` to the device and size of scores ``(n, classes, h2, w2)``."""
    masks, size = masks.to(score_tensor.device), (score_tensor.shape[2], score_tensor.shape[3])
    if masks.shape[1:] == size:
        return masks
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0] > 0
