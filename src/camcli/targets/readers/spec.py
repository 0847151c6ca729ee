"""How what a model returns is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from camcli.targets.readers.classification import ClassPredictions, GroupPredictions, SimilarityPredictions
from camcli.targets.readers.detection import BoxPredictions, read_detections
from camcli.targets.readers.find import at, chosen, pooled
from camcli.targets.readers.segmentation import PixelPredictions, resize_masks
from camcli.targets.target import LOGIT

if TYPE_CHECKING:
    from camcli.targets.target import Activation, Reading, Score, Task


@dataclass(frozen=True, slots=True)
class Outlet:
    """How what a model returns is read.

    Attributes:
        task: ``classify``: one score for each class. ``segment``: one for each class and pixel. ``detect``: boxes, each
            with its class and score, a mapping of ``boxes``, ``labels`` and ``scores`` for each image. ``features``:
            channels over cells, perhaps not pooled; a channel's score is its mean over them (see :func:`pooled`).
        path: where in the output the answer lies, such as ``logits``, ``0`` or ``aux.0``; empty for the rule of
            :func:`chosen`.
        min_score: boxes below it are left out.
        score: which number of a class's is explained.
        references: of a network that gives features, those of other pictures ``(r, c)``: each "class" is then the
            likeness to one of them, the cosine.
        prefix: of features that are tokens, how many stand before those of the patches: they are no cells.
        group: whether the images of a batch belong together, so that one row of scores may answer for all of them.
        two_sided: whether a single score tells two classes apart: it is that of the second, and minus it (1 minus
            it, where it is a probability) that of the first.
    """

    task: Task = "classify"
    path: str = ""
    min_score: float = 0.5
    score: Score = LOGIT
    references: Tensor | None = None
    prefix: int = 0
    group: bool = False
    two_sided: bool = False

    def says(
        self,
        activation: Activation,
        classes: int,
        region: bool = False,
        headless: bool = False,
        cosine: tuple[float, float] | None = None,
    ) -> str:
        """What is explained, in words for people; where scores follow from ``cosine`` the classes are prompts."""
        own = _of_prompts(activation, *cosine) if cosine else self._says(activation, classes, region, headless)
        said = self.score.words or own
        return said if self.score.sign > 0 else f"{said}, negated: what lowers it is warm"

    def _says(self, activation: Activation, classes: int, region: bool, headless: bool) -> str:
        if self.task == "detect":
            return f"the score of each box of at least {self.min_score:g}, a map for each"
        if self.task == "segment":
            where = "the region given" if region else "the pixels where the model predicts it"
            if activation == "probabilities":
                return f"a class's probabilities, as the model gives them, summed over {where}"
            return f"class logits (before {activation}), summed over {where}"
        if self.references is not None:
            return "similarity to the reference: the cosine of their features"
        if self.task == "features":
            return "a feature of the backbone before pooling: its mean over the cells"
        if headless:
            return "a pooled feature of the backbone"
        if activation == "none":
            return "the model's output: what raises it is warm"
        if activation == "probabilities":
            return (
                "the model's single probability, as it gives it: what raises it is warm"
                if classes == 1
                else "a class's probability, as the model gives it"
            )
        if classes == 1:
            return "the model's single logit (before sigmoid): what raises it is warm"
        if self.two_sided:
            return "the model's single logit (before sigmoid) for its second class, and its negative for the first"
        if activation == "sigmoid":
            return "class logit (before sigmoid): classes do not exclude one another"
        return "class logit (before softmax)"

    def nothing(self) -> str:
        """Why an image has no class of its own accord."""
        if self.task == "detect":
            return f"the model finds no box with a score of at least {self.min_score:g} in it"
        return (
            "the model predicts nothing but background in it" if self.task == "segment" else "its target gives no class"
        )

    def read(
        self,
        output: Any,
        images: int,
        names: Sequence[str] = (),
        activation: Activation = "softmax",
        seen: Tensor | None = None,
        region: Tensor | None = None,
    ) -> Reading:
        """What a model returned for a batch, read.

        Args:
            output: what it returned.
            images: how many it was given.
            names: of the classes, if they are known.
            activation: what makes probabilities of the scores.
            seen: for ``segment``: which part of each input is picture and not padding, ``(n, h, w)``.
            region: for ``segment``: over what is summed, ``(n, h, w)``; None for where the class is predicted.

        Raises:
            RequestError: there is no answer in it, or several things could be the answer.
        """
        if self.task == "detect":
            found_boxes = read_detections(at(output, self.path), images)
            return BoxPredictions(found_boxes, len(names) or None, self.min_score, self.score.sign)
        width = len(names) if self.references is None else self.references.shape[1]
        if self.task == "segment":
            found = chosen(output, images, width, self.path, self.task, self.group)
            # Once for all classes: to the scores' device, and to their size.
            inside, where = (None if masks is None else resize_masks(masks, found) for masks in (seen, region))
            return PixelPredictions(found.float(), activation, tuple(names), inside, where, self.score)
        found = self.row(output, images, width)
        if self.two_sided and found.shape[1] == 1:
            found = torch.cat([1 - found if activation == "probabilities" else -found, found], 1)
        reading: Reading = ClassPredictions(found, activation, self.score)
        if self.references is not None:
            reading = SimilarityPredictions.to(found, self.references, self.score)
        return GroupPredictions(reading) if len(found) < images else reading

    def row(self, output: Any, images: int, width: int = 0) -> Tensor:
        """The scores or pooled features in what a model returned, ``(n, width)``.

        Args:
            output: what it returned.
            images: how many it was given.
            width: how many scores or channels there are; 0 if nobody knows.

        Raises:
            RequestError: there are none in it, or several things could be them.
        """
        found = chosen(output, images, width, self.path, self.task, self.group)
        if self.task == "features":
            found = pooled(found, width, self.prefix)
        return found.reshape(len(found), -1)


PLAIN = Outlet()


def _of_prompts(activation: Activation, scale: float, bias: float) -> str:
    added = f"{'plus' if bias > 0 else 'minus'} {abs(bias):.4g}" if bias else ""
    before = f", before {activation}" if activation != "none" else ""
    return " ".join(filter(None, [f"prompt logit: {scale:.4g} times its cosine with the image", added])) + before


def table_of(reading: Reading) -> Tensor | None:
    """The scores of a batch, ``(n, classes)`` or ``(n, classes, h, w)``, as the model gives them; None of boxes."""
    one = reading._one if isinstance(reading, GroupPredictions) else reading
    return one.table if isinstance(one, ClassPredictions | PixelPredictions) else None


def of_boxes(reading: Reading, row: int = 0) -> Tensor | None:
    """Of each box in an image its four sides, class and score ``(boxes, 6)``, as given; None where there are none."""
    if not isinstance(reading, BoxPredictions):
        return None
    one = reading.found[row]
    found = [one["boxes"].detach(), one["labels"].detach()[:, None], one["scores"].detach()[:, None]]
    return torch.cat([part.float().cpu() for part in found], dim=1)
