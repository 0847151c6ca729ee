"""Detectors of transformers (DETR and its relatives): each box with the query that it came from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import batched_nms

from camcli.base.errors import RequestError
from camcli.engine.hooks.patch import replace_forward
from camcli.engine.layers.levels import find_pyramid_levels
from camcli.engine.layers.probe import probe_image, probe_layers
from camcli.engine.layers.ranking import rank_layers
from camcli.engine.network import Network
from camcli.targets.target import Activation

# Queries and classes, the last of them "no object" for a softmax, of the made-up output that a rule is tried on.
TRIAL_SHAPE = (1, 150, 4)
# Queries that the processors of Deformable and Conditional DETR keep.
MOST_KEPT = 100
# Paths of a backbone and of what holds its stages; each of these returns a tensor for each stage.
BACKBONE = re.compile(
    r"(^|\.)((vision_)?backbone|conv_encoder)(\.(conv_encoder|model|vision_backbone|backbone|_backbone|encoder))*$"
)
# What joins the stages of LW-DETR's and RF-DETR's transformers, whose blocks cut the image into windows.
PROJECTOR = "backbone.projector"


@dataclass(frozen=True, slots=True)
class Rule:
    """Rule by which queries become boxes.

    Attributes:
        activation: ``softmax``: each query is a box of its best class but the last, "no object". ``sigmoid``: the most
            probable pairs of query and class are boxes.
        most: the number of pairs that are kept; 0 for that of the queries.
        per_query: True if with a sigmoid too each query is a box of its best class.
        overlap: of two boxes of a class that overlap (IoU) by more than this, the weaker is dropped; 0 to keep both.
        asked: the number of classes, from the first, of which boxes are kept; None for all.
    """

    activation: Activation
    most: int = 0
    per_query: bool = False
    overlap: float = 0.0
    asked: int | None = None

    def choose(
        self, logits: Float[Tensor, "k c"], boxes: Float[Tensor, "k 4"]
    ) -> tuple[Float[Tensor, "m"], Int[Tensor, "m"], Int[Tensor, "m"]]:
        """Return the scores of the boxes, their labels, and the queries that they come from."""
        scores, labels, kept = self._choose_classes(logits)
        if self.overlap:
            chosen = batched_nms(boxes[kept].detach().float(), scores.detach().float(), labels, self.overlap)
            scores, labels, kept = scores[chosen], labels[chosen], kept[chosen]
        asked = labels < (logits.shape[1] if self.asked is None else self.asked)
        return scores[asked], labels[asked], kept[asked]

    def _choose_classes(self, logits: Float[Tensor, "k c"]) -> tuple[Tensor, Tensor, Tensor]:
        if self.activation == "softmax" or self.per_query:
            table = logits.sigmoid() if self.per_query else logits.softmax(-1)[:, :-1]
            scores, labels = table.max(-1)
            return scores, labels, torch.arange(len(logits), device=logits.device)
        count = min(self.most or len(logits), logits.numel())
        scores, places = logits.sigmoid().flatten().topk(count)
        return scores, places % logits.shape[1], places // logits.shape[1]


RULES = (Rule("softmax"), Rule("sigmoid", MOST_KEPT), Rule("sigmoid"))
# Logits of each query, and boxes by centre, width and height, relative to the image.
Detected = tuple[Tensor, Tensor]


def detect(module: Any, given: dict[str, Tensor]) -> Detected:
    """Return what the forward of the module's class makes of its input."""
    output = type(module).forward(module, **given)
    return output.logits, output.pred_boxes


class DetectorForward:
    """A detector's forward that returns what :mod:`camcli.targets.readers.candidates` reads.

    Padding is found in the input: rows at the bottom and columns at the right that are zero throughout, which no colour
    of an image is (:attr:`camcli.images.transform.Preprocess.blank`). It is masked, as transformers does with images of
    several shapes in a batch, and boxes are relative to the rest.

    Args:
        rule: how queries become boxes.
        has_mask: True if the model takes a mask of the pixels that are not padding.
        detect: from the module and its input to logits and boxes.
    """

    def __init__(self, rule: Rule, has_mask: bool, detect: Callable[..., Detected]) -> None:
        self._rule, self._has_mask, self._detect = rule, has_mask, detect

    def __call__(self, module: Any, images: Float[Tensor, "n 3 h w"]) -> list[dict[str, Any]]:
        """Run the module; return boxes and candidates of each image."""
        given: dict[str, Tensor] = {"pixel_values": images}
        sizes = torch.tensor([images.shape[-1], images.shape[-2]], device=images.device).expand(len(images), 2)
        if self._has_mask:
            shown = find_shown(images)
            sizes = torch.stack([shown.any(1).sum(1), shown.any(2).sum(1)], dim=1)
            given = {"pixel_values": images, "pixel_mask": shown.long()}
        logits, boxes = self._detect(module, given)
        corners = to_corners(boxes) * torch.cat([sizes, sizes], 1)[:, None]
        return [self._choose(*one) for one in zip(logits, corners, strict=True)]

    def _choose(self, logits: Tensor, boxes: Tensor) -> dict[str, Any]:
        scores, labels, kept = self._rule.choose(logits, boxes)
        candidates = {"boxes": boxes, "logits": logits, "kept": kept, "asked": self._rule.asked}
        return {"boxes": boxes[kept], "labels": labels, "scores": scores, "candidates": candidates}


def find_shown(images: Float[Tensor, "n c h w"]) -> Bool[Tensor, "n h w"]:
    """Return where inputs are not padding: all but the rows at the bottom and columns at the right without a colour.

    An image that has no colour anywhere has no padding.

    Args:
        images: normalised images.
    """
    coloured = (images.detach() != 0).any(1)
    rows, columns = (_reach_back(coloured.any(axis)) for axis in (2, 1))
    return (rows[:, :, None] & columns[:, None, :]) | ~coloured.any((1, 2), keepdim=True)


def _reach_back(marks: Bool[Tensor, "n length"]) -> Bool[Tensor, "n length"]:
    """Return which places are before or at the last mark."""
    return marks.flip(1).int().cummax(1).values.flip(1).bool()


def to_corners(boxes: Float[Tensor, "*k 4"]) -> Float[Tensor, "*k 4"]:
    """Convert boxes from centre, width and height to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def make_detector(module: Any, processor: Any, name: str) -> Rule:
    """Make a model return boxes with the queries that they came from, in place; return how they are chosen.

    Raises:
        RequestError: its processor makes boxes of its output in a way that is not known.
    """
    rule = _find_rule(processor, name)
    replace_detection(module, rule)
    return rule


def replace_detection(module: Any, rule: Rule, detect: Callable[..., Detected] = detect) -> None:
    """Make a model return boxes by a rule, in place, with the queries that they came from."""
    has_mask = "pixel_mask" in inspect.signature(type(module).forward).parameters
    # A bound method, since deepcopy rebinds it to the copy of the module.
    replace_forward(module, MethodType(DetectorForward(rule, has_mask, detect), module))


def _find_rule(processor: Any, name: str) -> Rule:
    """Find the rule that gives the processor's own boxes of a made-up output."""
    noise = torch.Generator().manual_seed(0)
    logits = torch.randn(TRIAL_SHAPE, generator=noise)
    boxes = torch.rand(*TRIAL_SHAPE[:2], 4, generator=noise)
    made_up = SimpleNamespace(logits=logits, pred_boxes=boxes)
    try:
        [wanted] = processor.post_process_object_detection(made_up, threshold=0.0, target_sizes=[(100, 200)])
    except Exception as error:  # processors of other models need other outputs
        raise _unknown_rule_error(processor, name, f"it fails: {error}") from error
    found = next((rule for rule in RULES if _gives(rule, logits[0], to_corners(boxes[0]) * 100, dict(wanted))), None)
    if found is None:
        raise _unknown_rule_error(processor, name, "its boxes are not those of the greatest probabilities")
    return found


def _gives(rule: Rule, logits: Tensor, boxes: Tensor, wanted: Mapping[str, Tensor]) -> bool:
    """Return whether a rule gives these boxes; those wanted are in an image of 100 x 200 pixels."""
    scores, labels, kept = rule.choose(logits, boxes)
    stretched = boxes[kept] * torch.tensor([2.0, 1.0, 2.0, 1.0])
    return (
        len(scores) == len(wanted["scores"])
        and torch.equal(labels, wanted["labels"])
        and torch.allclose(scores, wanted["scores"])
        and torch.allclose(stretched, wanted["boxes"])
    )


def _unknown_rule_error(processor: Any, name: str, reason: str) -> RequestError:
    return RequestError(
        f"the boxes of {name} cannot be traced to its queries ({type(processor).__name__}): {reason}",
        "camcli reads detectors that give a class and a box for each query, as DETR, RT-DETR, D-FINE and YOLOS do; "
        "another can be wrapped in a function of yours: -m my_model.py:make",
    )


def find_layers(network: Network) -> Network:
    """Return a network that knows its feature pyramid, and the layer to explain, which all boxes depend on.

    That is what joins the stages of a transformer in windows, or the last layer of the backbone. A detector that is a
    transformer itself has neither.
    """
    noise = probe_image(network.preprocess.size, torch.float32, torch.device("cpu"))
    levels = find_pyramid_levels(network.module, noise, network.read)
    pyramid = levels[0].rpartition(":")[0] if len(levels) > 1 else ""
    paths = [path for path, _ in network.module.named_modules()]
    joined = next((path for path in paths if path.endswith(PROJECTOR)), "")
    return replace(network, pyramid=pyramid, layer=joined or _find_backbone_layer(network, paths, noise))


def _find_backbone_layer(network: Network, paths: Sequence[str], noise: Float[Tensor, "1 3 h w"]) -> str:
    backbones = [path for path in paths if BACKBONE.search(path)]
    if not backbones:
        return ""
    layers = probe_layers(network.module, noise, network.prefix, network.grid, network.read)
    ranked = (
        rank_layers(network.module, [one for one in layers if one.name.startswith(f"{path}.")])
        for path in sorted(backbones, key=len, reverse=True)
    )
    return next((name for some in ranked for name in some), "")
