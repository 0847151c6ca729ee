"""Predictions of a detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import PictureError, RequestError
from camcli.targets.readers import probabilities
from camcli.targets.readers.find import list_tensors, named_tensors
from camcli.targets.target import NO_SCORE, Target

# A message and its hint.
CANNOT_RESCORE_BOXES = (
    "a detector finds other boxes in a changed image, so a box's score cannot be computed again",
    "choose a method with a single forward pass, such as gradcam or hirescam, without --scales and --augment",
)


# ---- boxes


@dataclass(frozen=True, slots=True)
class BoxPredictions:
    """Predictions with boxes for each image."""

    detections: Sequence[Mapping[str, Tensor]]
    classes: int | None
    min_score: float
    sign: int = 1

    def scores(self, row: int) -> Tensor:
        best = torch.full((self.classes or 0,), NO_SCORE, device="cpu")
        for target in self._list_targets(row):
            if not 0 <= target.index < len(best):
                raise PictureError(
                    f"the model finds a box of class {target.index} in it, but {len(best)} classes are named",
                    "give the names of all its classes: --labels FILE, one name a line",
                )
            best[target.index] = max(best[target.index], target.score.detach().float().cpu())
        return best

    def find_targets(self, row: int, index: int, competing: Sequence[int] = ()) -> Sequence[Target]:  # noqa: ARG002
        of_class = [
            replace(target, score=self.sign * target.score)
            for target in self._list_targets(row)
            if target.index == index
        ]
        if not of_class:
            raise PictureError(
                f"the model finds no box of class {index} with a score of at least {self.min_score:g} in it",
                "lower --min-score, or name another class",
            )
        return of_class

    def sum_scores(self) -> Tensor:
        return torch.cat([one["scores"] for one in self.detections]).sum()

    def score_target(self, row: int, target: Target) -> Tensor:  # noqa: ARG002
        raise RequestError(*CANNOT_RESCORE_BOXES)

    def score_classes(self, row: int, target: Target) -> Tensor:
        return self.score_target(row, target)

    def _list_targets(self, row: int) -> list[Target]:
        """Return the image's boxes as targets, best first."""
        one = self.detections[row]
        order = one["scores"].detach().sort(descending=True, stable=True).indices.tolist()
        return [
            _make_target(one, at, number)
            for number, at in enumerate(order, start=1)
            if float(one["scores"][at].detach()) >= self.min_score
        ]


def _make_target(detections: Mapping[str, Tensor], position: int, box_number: int) -> Target:
    x0, y0, x1, y1 = detections["boxes"][position].detach().float().tolist()
    score = detections["scores"][position]
    # Most detectors give probabilities; a score outside of 0 to 1 is not one.
    probability = float(score.detach()) if probabilities.are_in_unit_range(score[None]) else None
    return Target(int(detections["labels"][position]), score, probability, box_number, (x0, y0, x1, y1))


def read_detections(output: Any, images: int) -> Sequence[Mapping[str, Tensor]]:
    """Return the boxes of each image; raise RequestError if the output does not hold them."""
    good = isinstance(output, list | tuple) and len(output) == images
    if not good or not all(isinstance(one, Mapping) and {"boxes", "labels", "scores"} <= one.keys() for one in output):
        raise RequestError(
            f"the model does not return boxes, labels and scores for each of {images} image(s)",
            list_tensors(list(named_tensors(output))),
        )
    found: Sequence[Mapping[str, Tensor]] = output
    return found


@contextmanager
def unfiltered(module: nn.Module) -> Iterator[None]:
    """Let a torchvision detector give boxes of any score while the block runs: on noise there may be no others."""
    owners: list[Any] = [part for part in (module, getattr(module, "roi_heads", None)) if hasattr(part, "score_thresh")]
    before = [owner.score_thresh for owner in owners]
    try:
        for owner in owners:
            owner.score_thresh = 0.0
        yield
    finally:
        for owner, threshold in zip(owners, before, strict=True):
            owner.score_thresh = threshold
