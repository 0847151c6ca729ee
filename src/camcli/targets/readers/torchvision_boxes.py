"""Torchvision's detectors: what they considered before they dropped boxes, and all that they drop for a low score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.base.patched import patched

# Greatest distance between a box that was kept and the candidate that it is traced to: of the score and, relative to
# the largest coordinate, of the corners. The numbers are the same but for rounding.
TRACE_TOLERANCE = 1e-3


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


@contextmanager
def giving_candidates(module: nn.Module) -> Iterator[None]:
    """Let a torchvision detector return its candidates beside its boxes while the block runs; others stay as they are.

    Faster R-CNN and its kin consider proposals, each with a box for every class; RetinaNet, FCOS and SSD anchors.

    Raises:
        RequestError: a box of its output is none of its candidates.
    """
    owner: Any = getattr(module, "roi_heads", module)
    transform: Any = getattr(module, "transform", None)
    if not hasattr(owner, "postprocess_detections") or not hasattr(transform, "postprocess"):
        yield
        return
    list_candidates = _list_proposals if owner is not module else _list_anchors
    choose, restore = owner.postprocess_detections, transform.postprocess
    found: list[dict[str, Any]] = []

    def choose_and_keep(heads: Any, second: Any, third: Any, *more: Any) -> Any:
        kept = choose(heads, second, third, *more)
        candidates = list_candidates(owner, heads, second, third, *more)
        found[:] = [_trace(*one, *boxes) for one, boxes in zip(candidates, _split(kept), strict=True)]
        return kept

    def restore_with_candidates(results: Any, shapes: Any, sizes: Any) -> Any:
        results = restore(results, shapes, sizes)
        for result, one, shape, size in zip(results, found, shapes, sizes, strict=True):
            ratio = one["boxes"].new_tensor([size[1] / shape[1], size[0] / shape[0]] * 2)
            result["candidates"] = one | {"boxes": one["boxes"] * ratio}
        return results

    with (
        patched(owner, "postprocess_detections", choose_and_keep),
        patched(transform, "postprocess", restore_with_candidates),
    ):
        yield


def _split(kept: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the boxes, labels and scores of each image."""
    if isinstance(kept, tuple):
        boxes, scores, labels = kept
        return list(zip(boxes, labels, scores, strict=True))
    return [(one["boxes"], one["labels"], one["scores"]) for one in kept]


def _list_proposals(
    owner: Any, logits: Tensor, regression: Tensor, proposals: Sequence[Tensor], shapes: Sequence[tuple[int, int]]
) -> list[tuple[dict[str, Any], Tensor]]:
    """List the proposals of each image, with their scores ``(k, classes)``."""
    counts = [len(one) for one in proposals]
    boxes = owner.box_coder.decode(regression, proposals).split(counts)
    return [
        ({"boxes": _clip(own, shape), "logits": one, "activation": "softmax"}, one.detach().softmax(1))
        for own, one, shape in zip(boxes, torch.split(logits, counts), shapes, strict=True)
    ]


def _list_anchors(
    owner: Any, heads: Mapping[str, Any], anchors: Sequence[Any], shapes: Sequence[tuple[int, int]]
) -> list[tuple[dict[str, Any], Tensor]]:
    """List the anchors of each image, with their scores ``(k, classes)``."""

    def of_all_levels(name: str) -> Tensor:
        part = heads[name]
        return part if isinstance(part, Tensor) else torch.cat(list(part), 1)

    logits, regression = of_all_levels("cls_logits"), of_all_levels("bbox_regression")
    # SSD's anchors are of all levels together, and its classes exclude one another.
    exclusive = not isinstance(heads["cls_logits"], list | tuple)
    found = []
    for row, (own, shape) in enumerate(zip(anchors, shapes, strict=True)):
        decode = getattr(owner.box_coder, "decode_single", owner.box_coder.decode)
        boxes = decode(regression[row], own if isinstance(own, Tensor) else torch.cat(list(own)))
        one = logits[row].detach()
        scores = one.softmax(1) if exclusive else one.sigmoid()
        if "bbox_ctrness" in heads:  # FCOS ranks its boxes by how central their anchor is, too
            scores = (scores * of_all_levels("bbox_ctrness")[row].detach().sigmoid()).sqrt()
        activation = "softmax" if exclusive else "sigmoid"
        found.append(({"boxes": _clip(boxes, shape), "logits": logits[row], "activation": activation}, scores))
    return found


def _clip(boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Clip boxes ``(..., 4)`` to an image of ``shape`` rows and columns."""
    height, width = shape
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], -1)


def _trace(
    candidates: dict[str, Any], scores: Tensor, boxes: Tensor, labels: Tensor, kept_scores: Tensor
) -> dict[str, Any]:
    """Add to the candidates which of them each box kept is: the one with its score and its corners."""
    corners, kept = candidates["boxes"].detach(), []
    for box, label, score in zip(boxes.detach(), labels.tolist(), kept_scores.detach(), strict=True):
        own = corners if corners.ndim == 2 else corners[:, label]
        size = box.abs().max().clamp(min=1)
        distances = (scores[:, label] - score).abs() + (own - box).abs().amax(1) / size
        kept.append(distances.argmin())
        if float(distances[kept[-1]]) > TRACE_TOLERANCE:
            raise RequestError(
                f"a box of class {label} that the detector returns is none of its candidates, so its score cannot be "
                "traced",
                "camcli reads torchvision's own detectors; let your model return its candidates: docs/detection.md",
            )
    return candidates | {"kept": torch.stack(kept) if kept else labels.new_zeros(0)}
