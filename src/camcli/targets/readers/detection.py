"""Boxes of a detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import PictureError, RequestError
from camcli.targets.readers import probabilities
from camcli.targets.readers.find import list_parts, parts
from camcli.targets.target import NO_CLASS, Subject

# A message and its hint.
NO_BOX_AGAIN = (
    "a detector finds other boxes in a changed image, so a box's score cannot be computed again",
    "choose a method that needs one forward, such as gradcam or hirescam, without --scales and --augment",
)


# ---- boxes


@dataclass(frozen=True, slots=True)
class BoxPredictions:
    """The boxes of each image."""

    found: Sequence[Mapping[str, Tensor]]
    classes: int | None
    min_score: float
    sign: int = 1

    def scores(self, row: int) -> Tensor:
        best = torch.full((self.classes or 0,), NO_CLASS, device="cpu")
        for subject in self._all(row):
            if not 0 <= subject.index < len(best):
                raise PictureError(
                    f"the model finds a box of class {subject.index} in it, but {len(best)} classes are named",
                    "give the names of all its classes: --labels FILE, one name a line",
                )
            best[subject.index] = max(best[subject.index], subject.score.detach().float().cpu())
        return best

    def subjects(self, row: int, index: int, among: Sequence[int] = ()) -> Sequence[Subject]:  # noqa: ARG002
        of_class = [
            replace(subject, score=self.sign * subject.score) for subject in self._all(row) if subject.index == index
        ]
        if not of_class:
            raise PictureError(
                f"the model finds no box of class {index} with a score of at least {self.min_score:g} in it",
                "lower --min-score, or name another class",
            )
        return of_class

    def total(self) -> Tensor:
        return torch.cat([one["scores"] for one in self.found]).sum()

    def answer(self, row: int, subject: Subject) -> Tensor:  # noqa: ARG002
        raise RequestError(*NO_BOX_AGAIN)

    def answers(self, row: int, subject: Subject) -> Tensor:
        return self.answer(row, subject)

    def _all(self, row: int) -> list[Subject]:
        """The image's boxes, best first."""
        one = self.found[row]
        order = one["scores"].detach().sort(descending=True, stable=True).indices.tolist()
        return [
            _subject(one, at, number)
            for number, at in enumerate(order, start=1)
            if float(one["scores"][at].detach()) >= self.min_score
        ]


def _subject(one: Mapping[str, Tensor], at: int, number: int) -> Subject:
    x0, y0, x1, y1 = one["boxes"][at].detach().float().tolist()
    score = one["scores"][at]
    # Most detectors give probabilities; what lies outside of 0 to 1 is none.
    probability = float(score.detach()) if probabilities.within(score[None]) else None
    return Subject(int(one["labels"][at]), score, probability, number, (x0, y0, x1, y1))


def read_detections(output: Any, images: int) -> Sequence[Mapping[str, Tensor]]:
    """The boxes of each image; raises RequestError if a detector does not give them."""
    good = isinstance(output, list | tuple) and len(output) == images
    if not good or not all(isinstance(one, Mapping) and {"boxes", "labels", "scores"} <= one.keys() for one in output):
        raise RequestError(
            f"the model does not give boxes, labels and scores for each of {images} image(s)",
            list_parts(list(parts(output))),
        )
    found: Sequence[Mapping[str, Tensor]] = output
    return found


@contextmanager
def unfiltered(module: nn.Module) -> Iterator[None]:
    """While it lasts, a torchvision detector gives boxes of any score: on noise there may be no others."""
    owners: list[Any] = [part for part in (module, getattr(module, "roi_heads", None)) if hasattr(part, "score_thresh")]
    before = [owner.score_thresh for owner in owners]
    try:
        for owner in owners:
            owner.score_thresh = 0.0
        yield
    finally:
        for owner, threshold in zip(owners, before, strict=True):
            owner.score_thresh = threshold
