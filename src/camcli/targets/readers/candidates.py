"""Boxes that a detector's network returns, and the candidates that they were chosen from.

For each image of a batch the network returns a mapping:

- ``boxes`` ``(m, 4)``: corners x0, y0, x1, y1 of the boxes kept, in pixels of the network's input;
- ``labels`` ``(m,)``: their classes;
- ``scores`` ``(m,)``: how sure the detector is of each, from 0 to 1; in the graph if there are no candidates;
- ``candidates``, where they can be had: a mapping of what was there before weak and overlapping boxes were dropped (see
  :class:`Candidates`): ``boxes``, ``logits``, ``kept`` and perhaps ``objectness``, ``activation`` and ``asked``.

With candidates a box is explained by the logits of the candidate that it came from, so that it has every kind of score
that a class has (:data:`camcli.targets.scores.SCORES`). Without, by its entry of ``scores``. How logits become
probabilities is the candidates' ``activation``, else the network's
(:attr:`camcli.engine.network.Network.activation`).

Torchvision's detectors return no candidates themselves: :mod:`camcli.targets.readers.torchvision_boxes` adds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.targets.readers.find import list_tensors, named_tensors
from camcli.targets.target import NO_SCORE, Activation


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of one image, before any was dropped: an anchor, a proposal or a query each.

    Attributes:
        boxes: corners in pixels of the input, in the graph: ``(k, 4)``, or ``(k, classes, 4)`` if a candidate has a box
            for each class.
        logits: scores of the classes before softmax or sigmoid, in the graph, ``(k, classes)``. The column is the
            label; columns after the last class, such as "no object", take part in the softmax alone.
        kept: the candidate that each box kept came from, ``(m,)``.
        activation: ``softmax`` or ``sigmoid``, which makes probabilities of the logits.
        objectness: logit of there being any object, ``(k,)``; None if the detector does not multiply its probability
            with that of the class.
        asked: number of classes, from the first, that can be explained; the others only compete. None for all.
    """

    boxes: Tensor
    logits: Tensor
    kept: Tensor
    activation: Activation
    objectness: Tensor | None = None
    asked: int | None = None

    def boxes_of_class(self, index: int) -> Tensor:
        """Return the box that each candidate has as a box of this class, ``(k, 4)``."""
        return self.boxes if self.boxes.ndim == 2 else self.boxes[:, index]

    def find_probabilities(self, at: int) -> Tensor:
        """Return the probability of every class for a candidate, ``(classes,)``."""
        logits = self.logits[at].detach()
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(0)

    def find_probability(self, at: int, index: int) -> float:
        """Return the probability that a candidate is a box of a class, times that of its objectness if it has one."""
        objectness = 1.0 if self.objectness is None else self.objectness[at].detach().sigmoid()
        return float(self.find_probabilities(at)[index] * objectness)


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes that a detector found in one image.

    Attributes:
        boxes: corners in pixels of the input, ``(m, 4)``.
        labels: classes, ``(m,)``.
        scores: as returned, ``(m,)``.
        candidates: what they were chosen from; None if that is unknown.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    candidates: Candidates | None = None

    def list_best(self, min_score: float) -> list[int]:
        """Return the indices of the boxes with at least this score, best first."""
        scores = self.scores.detach()
        order = scores.sort(descending=True, stable=True).indices.tolist()
        return [at for at in order if float(scores[at]) >= min_score]

    def as_candidates(self, classes: int | None) -> Candidates:
        """Return the boxes found as their own candidates, each with a score of its own class alone."""
        count = max(classes or 0, int(self.labels.max()) + 1 if len(self.labels) else 0)
        scores = torch.full((len(self.labels), count), NO_SCORE, dtype=self.scores.dtype, device=self.scores.device)
        scores.scatter_(1, self.labels[:, None], self.scores.detach()[:, None])
        own = torch.arange(len(self.labels), device=self.scores.device)
        return Candidates(self.boxes, scores, own, "softmax")


def read_detections(output: Any, images: int, activation: Activation) -> Sequence[Detections]:
    """Read the boxes of each image, as the module says.

    Args:
        output: what the network returned.
        images: number of images in the batch.
        activation: the network's, of candidates without their own.

    Raises:
        RequestError: the output does not hold them, or its candidates do not go with its boxes.
    """
    good = isinstance(output, list | tuple) and len(output) == images
    if not good or not all(isinstance(one, Mapping) and {"boxes", "labels", "scores"} <= one.keys() for one in output):
        raise RequestError(
            f"the model does not return boxes, labels and scores for each of {count_of(images, 'image')}",
            list_tensors(list(named_tensors(output))),
        )
    return [Detections(one["boxes"], one["labels"], one["scores"], _read_candidates(one, activation)) for one in output]


def _read_candidates(one: Mapping[str, Any], activation: Activation) -> Candidates | None:
    given, boxes = one.get("candidates"), one["boxes"]
    if given is None:
        return None
    if not isinstance(given, Mapping) or not {"boxes", "logits", "kept"} <= given.keys():
        raise RequestError(
            "the model's candidates are not a mapping of boxes, logits and kept",
            list_tensors(list(named_tensors(given))),
        )
    found = Candidates(
        given["boxes"],
        given["logits"],
        given["kept"],
        given.get("activation") or activation,
        given.get("objectness"),
        given.get("asked"),
    )
    count, classes = found.logits.shape if found.logits.ndim == 2 else (-1, -1)
    forms: dict[str, list[tuple[int, ...]]] = {
        "boxes": [(count, 4), (count, classes, 4)],
        "kept": [(len(boxes),)],
        "objectness": [(count,)],
    }
    tensors = {"boxes": found.boxes, "kept": found.kept, "objectness": found.objectness}
    wrong = [name for name, one in tensors.items() if one is not None and tuple(one.shape) not in forms[name]]
    if wrong or (len(boxes) and not 0 <= int(found.kept.min()) <= int(found.kept.max()) < count):
        raise RequestError(
            f"the {wrong[0] if wrong else 'kept'} of the model's candidates do not fit {len(boxes)} boxes that were "
            "kept: logits (k, classes), boxes (k, 4) or (k, classes, 4), objectness (k,), kept (m,) from 0 to k - 1",
            list_tensors(list(named_tensors(given))),
        )
    return found
