"""Predictions of a detector: its boxes as targets, and what is explained of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from camcli.base.errors import PictureError, RequestError
from camcli.targets.readers import probabilities
from camcli.targets.readers.candidates import Candidates, Detections
from camcli.targets.readers.segmentation import BACKGROUND
from camcli.targets.target import LOGIT, NO_SCORE, Box, Score, Target, WantedBox

# A message and its hint.
CANNOT_RESCORE_BOXES = (
    "a detector finds other boxes in a changed image, so a box's score cannot be computed again",
    "choose a method with a single forward pass, such as odam, or rise, without --scales and --augment",
)
# Least overlap, intersection over union, with a true box of what is explained in its place: a match in COCO's AP50.
LEAST_OVERLAP = 0.5
# How a detector's objectness, a logit, enters scores that are probabilities; others are of the class alone.
WITH_OBJECTNESS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "probability": lambda number, objectness: number * objectness.sigmoid(),
    "logprob": lambda number, objectness: number + F.logsigmoid(objectness),
}


@dataclass(frozen=True, slots=True)
class BoxPredictions:
    """Predictions with boxes for each image."""

    detections: Sequence[Detections]
    names: Sequence[str]
    min_score: float
    score: Score = LOGIT

    @property
    def classes(self) -> int | None:
        return len(self.names) or None

    @property
    def has_candidates(self) -> bool:
        """True if the boxes' candidates are known."""
        return all(one.candidates is not None for one in self.detections)

    def scores(self, row: int) -> Tensor:
        best = torch.full((self.classes or 0,), NO_SCORE, device="cpu")
        one = self.detections[row]
        for at in one.list_best(self.min_score):
            label = int(one.labels[at])
            if not 0 <= label < len(best):
                raise PictureError(
                    f"the model finds a box of class {label} in it, but {len(best)} classes are named",
                    "give the names of all its classes: --labels FILE, one name a line",
                )
            best[label] = max(best[label], one.scores[at].detach().float().cpu())
        return best

    def find_targets(self, row: int, index: int, competing: Sequence[int] = ()) -> Sequence[Target]:  # noqa: ARG002
        one = self.detections[row]
        numbered = enumerate(one.list_best(self.min_score), start=1)
        of_class = [self._make_target(row, at, number) for number, at in numbered if int(one.labels[at]) == index]
        if not of_class:
            raise PictureError(
                f"the model finds no box of class {index} with a score of at least {self.min_score:g} in it",
                "lower --min-score, or name another class",
            )
        return of_class

    def find_box(self, row: int, wanted: WantedBox) -> Target:
        """Return one box of an image: of those found, or the candidate that lies best on a true box.

        Raises:
            PictureError: there are not so many boxes; or nothing overlaps with the true one by at least
                :data:`LEAST_OVERLAP`.
        """
        if wanted.truth is not None:
            return self._find_at(row, wanted, wanted.truth)
        one = self.detections[row]
        labels, found = one.labels, list(enumerate(one.list_best(self.min_score), start=1))
        of_class = [(number, at) for number, at in found if wanted.index in (None, int(labels[at]))]
        if len(of_class) < wanted.number:
            what = "" if wanted.index is None else f" of class {wanted.index}"
            raise PictureError(
                f"the model finds {len(of_class)} boxes{what} with a score of at least {self.min_score:g} in it, and "
                f"none of rank {wanted.number}",
                "lower --min-score, or choose another box",
            )
        number, at = of_class[wanted.number - 1]
        return self._make_target(row, at, number)

    def _find_at(self, row: int, wanted: WantedBox, truth: Box) -> Target:
        """Return what lies best on a true box: of all that overlap enough, what has the greatest logit of its class."""
        one = self.detections[row]
        candidates = one.candidates or one.as_candidates(self.classes)
        indices = [wanted.index] if wanted.index is not None else self._list_named(candidates.logits.shape[1])
        indices = indices[: candidates.asked]
        best, closest = None, (0.0, -1, -1)
        for index in indices:
            boxes, logits = candidates.boxes_of_class(index).detach(), candidates.logits[:, index].detach()
            if not len(boxes):
                continue
            overlaps = box_iou(boxes.float(), boxes.new_tensor([truth]).float())[:, 0]
            closest = max(closest, (float(overlaps.max()), index, int(overlaps.argmax())))
            at = int(logits.where(overlaps >= LEAST_OVERLAP, NO_SCORE).argmax())
            if overlaps[at] >= LEAST_OVERLAP and logits[at] > NO_SCORE:
                best = max(best or (NO_SCORE, 0, 0, 0.0), (float(logits[at]), index, at, float(overlaps[at])))
        if best is None:
            raise _missed_error(one, wanted, self.names, *closest)
        _, index, at, overlap = best
        return self._make_true_target(row, candidates, wanted, (index, at, overlap))

    def _make_true_target(
        self, row: int, candidates: Candidates, wanted: WantedBox, found: tuple[int, int, float]
    ) -> Target:
        index, at, overlap = found
        one = self.detections[row]
        returned = [n for n, kept in enumerate(candidates.kept.tolist()) if kept == at and one.labels[n] == index]
        sure = float(one.scores[returned[0]].detach()) if returned else None
        if one.candidates is None:  # each box is its own candidate
            score, rivals = self._score_returned(one, at)
            classes = self._list_probabilities(row, at)
        else:
            score, rivals = self._score_candidate(candidates, at, index)
            classes = candidates.find_probabilities(at)
            sure = candidates.find_probability(at, index) if sure is None else sure
        fate = _describe_fate(bool(returned), sure, self.min_score)
        x0, y0, x1, y1 = candidates.boxes_of_class(index)[at].detach().float().tolist()
        note = f"explained is what the model considered at the true box {wanted.number} (IoU {overlap:.2f}); it {fate}"
        box = (x0, y0, x1, y1)
        found_at = Target(index, score, sure, wanted.number, box, rivals=rivals, note=note, box_probabilities=classes)
        return replace(found_at, true_box=wanted.truth)

    def _list_named(self, columns: int) -> list[int]:
        """Return the classes that can be explained, of so many columns of logits."""
        return [
            index
            for index in range(min(columns, self.classes or columns))
            if index >= len(self.names) or self.names[index] != BACKGROUND
        ]

    def sum_scores(self) -> Tensor:
        # Of the candidates, as far as there are some: on noise no box may be kept.
        found = [one.scores.sum() if one.candidates is None else one.candidates.logits.sum() for one in self.detections]
        return torch.stack(found).sum()

    def score_target(self, row: int, target: Target) -> Tensor:
        """Return how much a box is still found: the greatest similarity of any box found to it (D-RISE, eq. 2 to 5).

        A similarity is the product of their overlap (IoU), the cosine of their classes' probabilities, and the
        objectness of the box found, if the detector has one. It is 0 if nothing is found.

        Raises:
            RequestError: the target is no box.
        """
        if target.box is None or target.box_probabilities is None:
            raise RequestError(*CANNOT_RESCORE_BOXES)
        one = self.detections[row]
        if not len(one.boxes):
            return one.boxes.new_zeros(())
        probabilities = torch.stack([self._list_probabilities(row, at) for at in range(len(one.boxes))])
        wanted = target.box_probabilities.to(probabilities)
        overlaps: Tensor = box_iou(one.boxes, one.boxes.new_tensor([target.box]))[:, 0]
        similarities = overlaps * F.cosine_similarity(probabilities, wanted[None], dim=1)
        if one.candidates is not None and one.candidates.objectness is not None:
            similarities = similarities * one.candidates.objectness[one.candidates.kept].sigmoid()
        elif one.candidates is None:
            similarities = similarities * one.scores
        return self.score.sign * similarities.amax()

    def score_classes(self, row: int, target: Target) -> Tensor:  # noqa: ARG002
        raise RequestError(*CANNOT_RESCORE_BOXES)

    def _list_probabilities(self, row: int, at: int) -> Tensor:
        """Return the probability of every class for a box found; without candidates 1 for its class alone."""
        one = self.detections[row]
        if one.candidates is not None:
            return one.candidates.find_probabilities(int(one.candidates.kept[at]))
        count = max(self.classes or 0, int(one.labels.max()) + 1)
        return F.one_hot(one.labels[at], count).to(one.boxes)

    def _make_target(self, row: int, at: int, number: int) -> Target:
        one = self.detections[row]
        index, returned = int(one.labels[at]), one.scores[at]
        x0, y0, x1, y1 = one.boxes[at].detach().float().tolist()
        # Most detectors give probabilities; a score outside of 0 to 1 is not one.
        probability = float(returned.detach()) if probabilities.are_in_unit_range(returned[None]) else None
        score, rivals = self._score_returned(one, at)
        if one.candidates is not None:
            score, rivals = self._score_candidate(one.candidates, int(one.candidates.kept[at]), index)
        box, classes = (x0, y0, x1, y1), self._list_probabilities(row, at)
        return Target(index, score, probability, number, box, rivals=rivals, box_probabilities=classes)

    def _score_returned(self, one: Detections, at: int) -> tuple[Tensor, tuple[int, ...]]:
        """Return the explained number of a box without candidates, which is compared with no class."""
        if self.score.of_box:
            return self.score(one.boxes[at], int(one.labels[at]), (), "none"), ()
        return self.score.sign * one.scores[at], ()

    def _score_candidate(self, candidates: Candidates, at: int, index: int) -> tuple[Tensor, tuple[int, ...]]:
        """Return the explained number of a candidate as a box of a class, and the classes that it is compared with."""
        if self.score.of_box:
            return self.score(candidates.boxes_of_class(index)[at], index, (), candidates.activation), ()
        logits = candidates.logits[at]
        named = torch.full_like(logits, NO_SCORE)
        able = self._list_named(len(logits))
        named[able] = logits[able].detach()
        rivals = self.score.find_rivals(named, index)
        number = self.score(logits, index, rivals, candidates.activation)
        if candidates.objectness is not None and self.score.name in WITH_OBJECTNESS:
            number = WITH_OBJECTNESS[self.score.name](self.score.sign * number, candidates.objectness[at])
            number = self.score.sign * number
        return number, rivals


def _missed_error(
    one: Detections, wanted: WantedBox, names: Sequence[str], overlap: float, index: int, at: int
) -> PictureError:
    """Return the error for a true box where there is no candidate, by that which overlaps with it most."""
    nearest = f"the best overlap (IoU) is {overlap:.2f}"
    if overlap > 0:
        sure = one.candidates.find_probability(at, index) if one.candidates else float(one.scores[at].detach())
        name = names[index] if index < len(names) else f"class {index}"
        nearest += f", of a candidate with the probability {sure:.2g} for {name}"
    return PictureError(
        f"nothing that the model considers overlaps with the true box {wanted.number} by {LEAST_OVERLAP:g}: {nearest}",
        "the model proposes no such box here; explain what it finds instead: leave --boxes out",
    )


def _describe_fate(returned: bool, sure: float | None, min_score: float) -> str:
    """Describe what became of a candidate with this probability, and why."""
    if sure is None or sure < min_score:
        said = "" if sure is None else f": its probability is {sure:.2g}, below --min-score {min_score:g}"
        return f"was dropped{said}"
    return "is found" if returned else f"was dropped for a better box that overlaps, with the probability {sure:.2g}"
