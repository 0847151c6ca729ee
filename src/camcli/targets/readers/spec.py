"""Specification of a model's output, and the reading of outputs as predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from camcli.base.deprecated import accept_old_arguments, with_old_names
from camcli.targets.readers.candidates import read_detections
from camcli.targets.readers.classification import ClassPredictions, GroupPredictions, SimilarityPredictions
from camcli.targets.readers.detection import BoxPredictions
from camcli.targets.readers.find import find_scores, get_path, pool_features
from camcli.targets.readers.segmentation import PixelPredictions, resize_masks
from camcli.targets.target import LOGIT

if TYPE_CHECKING:
    from camcli.targets.target import Activation, Predictions, Score, Task


# Names of the last release.
OLD_NAMES = {"says": "describe_score", "nothing": "describe_no_target", "row": "read_rows"}


@with_old_names(attributes=OLD_NAMES)
@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Specification of how a model's output is read.

    Attributes:
        task: ``classify``: one score for each class. ``segment``: one for each class and pixel. ``detect``: boxes, each
            with its class and score (see :mod:`camcli.targets.readers.candidates`). ``features``:
            channels over cells, perhaps not pooled; a channel's score is its mean over them (see
            :func:`camcli.targets.readers.find.pool_features`).
        path: path of the scores in the output, such as ``logits``, ``0`` or ``aux.0``; empty for the rule of
            :func:`camcli.targets.readers.find.find_scores`.
        min_score: least score of boxes to keep.
        score: kind of score that is explained.
        references: for a network that gives features, those of other images ``(r, c)``: each "class" is then the
            cosine similarity to one of them.
        prefix: for features that are tokens, the number of tokens before those of the patches, which are not cells.
        group: True if the images of a batch belong together and may share one row of scores.
        two_sided: True if a single score separates two classes: it is the score of the second, and its negative (1
            minus it for a probability) that of the first.
        has_candidates: True if a detector returns candidates, so that its boxes have logits; found out on noise.
    """

    task: Task = "classify"
    path: str = ""
    min_score: float = 0.5
    score: Score = LOGIT
    references: Tensor | None = None
    prefix: int = 0
    group: bool = False
    two_sided: bool = False
    has_candidates: bool = False

    def describe_score(
        self,
        activation: Activation,
        classes: int,
        region: bool = False,
        headless: bool = False,
        cosine: tuple[float, float] | None = None,
    ) -> str:
        """Describe the explained score; given the scale and bias ``cosine``, classes are prompts."""
        default = (
            _describe_prompt_score(activation, *cosine)
            if cosine
            else self._describe_default_score(activation, classes, region, headless)
        )
        description = self.score.description or default
        return description if self.score.sign > 0 else f"{description}, negated: regions that lower it are highlighted"

    def _describe_default_score(self, activation: Activation, classes: int, region: bool, headless: bool) -> str:
        if self.task == "detect":
            what = f"class logit (before {activation})" if self.has_candidates else "score"
            return f"the {what} of each box that is explained, a map for each"
        if self.task == "segment":
            where = "the region given" if region else "the pixels where the model predicts it"
            if activation == "probabilities":
                return f"class probabilities, as returned by the model, summed over {where}"
            if activation == "none":
                where = where if region else "the pixels where it is above 0"
                return f"the model's output, summed over {where}"
            return f"class logits (before {activation}), summed over {where}"
        if self.references is not None:
            return "similarity to the reference: the cosine of their features"
        if self.task == "features":
            return "a feature of the backbone before pooling: its mean over the cells"
        if headless:
            return "a pooled feature of the backbone"
        if activation == "none":
            return "the model's output: regions that raise it are highlighted"
        if activation == "probabilities":
            return (
                "the model's single probability, as returned: regions that raise it are highlighted"
                if classes == 1
                else "class probability, as returned by the model"
            )
        if classes == 1:
            return "the model's single logit (before sigmoid): regions that raise it are highlighted"
        if self.two_sided:
            return "the model's single logit (before sigmoid) for its second class, and its negative for the first"
        if activation == "sigmoid":
            return "class logit (before sigmoid) of independent classes"
        return "class logit (before softmax)"

    def describe_no_target(self) -> str:
        """Return the reason why an image has no target."""
        if self.task == "detect":
            return f"the model finds no box with a score of at least {self.min_score:g} in it"
        return (
            "the model predicts nothing but background in it" if self.task == "segment" else "its target gives no class"
        )

    @accept_old_arguments({"seen": "picture_mask", "region": "region_mask"})
    def read(
        self,
        output: Any,
        images: int,
        names: Sequence[str] = (),
        activation: Activation = "softmax",
        picture_mask: Tensor | None = None,
        region_mask: Tensor | None = None,
    ) -> Predictions:
        """Read a model's output for a batch as predictions.

        Args:
            output: what the model returned.
            images: number of images in the batch.
            names: names of the classes, if known.
            activation: function from scores to probabilities.
            picture_mask: for ``segment``: the pixels of each input that are not padding, ``(n, h, w)``.
            region_mask: for ``segment``: the region to sum over, ``(n, h, w)``; None for where the class is predicted.

        Raises:
            RequestError: there are no scores in the output, or several tensors could be the scores.
        """
        if self.task == "detect":
            found_boxes = read_detections(get_path(output, self.path), images, activation)
            return BoxPredictions(found_boxes, names, self.min_score, self.score)
        width = len(names) if self.references is None else self.references.shape[1]
        if self.task == "segment":
            found = find_scores(output, images, width, self.path, self.task, self.group)
            # Once for all classes.
            inside, where = (
                None if masks is None else resize_masks(masks, found) for masks in (picture_mask, region_mask)
            )
            return PixelPredictions(found.float(), activation, tuple(names), inside, where, self.score)
        found = self.read_rows(output, images, width)
        if self.two_sided and found.shape[1] == 1:
            found = torch.cat([1 - found if activation == "probabilities" else -found, found], 1)
        predictions: Predictions = ClassPredictions(found, activation, self.score)
        if self.references is not None:
            predictions = SimilarityPredictions.from_features(found, self.references, self.score)
        return GroupPredictions(predictions) if len(found) < images else predictions

    def read_rows(self, output: Any, images: int, width: int = 0) -> Tensor:
        """Read the scores or pooled features in a model's output, ``(n, width)``.

        Args:
            output: what the model returned.
            images: number of images in the batch.
            width: number of scores or channels; 0 if unknown.

        Raises:
            RequestError: there are none in the output, or several tensors could be them.
        """
        found = find_scores(output, images, width, self.path, self.task, self.group)
        if self.task == "features":
            found = pool_features(found, width, self.prefix)
        return found.reshape(len(found), -1)


DEFAULT_OUTPUT_SPEC = OutputSpec()


def _describe_prompt_score(activation: Activation, scale: float, bias: float) -> str:
    added = f"{'plus' if bias > 0 else 'minus'} {abs(bias):.4g}" if bias else ""
    before = f", before {activation}" if activation != "none" else ""
    return " ".join(filter(None, [f"prompt logit: {scale:.4g} times its cosine with the image", added])) + before


def get_score_tensor(predictions: Predictions) -> Tensor | None:
    """Return a batch's scores as the model returns them, ``(n, classes)`` or ``(n, classes, h, w)``; None for boxes."""
    one = predictions._predictions if isinstance(predictions, GroupPredictions) else predictions
    return one.score_tensor if isinstance(one, ClassPredictions | PixelPredictions) else None


def get_boxes(predictions: Predictions, row: int = 0) -> Tensor | None:
    """Return corners, class and score of each box in an image, ``(boxes, 6)``; None if not from a detector."""
    if not isinstance(predictions, BoxPredictions):
        return None
    one = predictions.detections[row]
    found = [one.boxes.detach(), one.labels.detach()[:, None], one.scores.detach()[:, None]]
    return torch.cat([part.float().cpu() for part in found], dim=1)
