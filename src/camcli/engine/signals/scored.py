"""A forward with the scores that are explained, from which all signals are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import PictureError, TrialEndedError
from camcli.base.passes import counting, read_group
from camcli.base.words import count_of
from camcli.engine.forward import Forward, Plan, Runner, compute_gradients
from camcli.engine.hooks.attention import Attention
from camcli.engine.hooks.tensors import at_least_float32
from camcli.engine.layers.layout import to_nchw
from camcli.engine.needs import NEEDS_INPUT_GRAPH
from camcli.targets.target import Predictions, Target


class ScoredForward:
    """One class's score of each image, in the graph of its forward.

    Args:
        runner: the network.
        plan: for this size of images.
        forward: of the batch.
        targets: the targets explained, one for each of ``rows``.
        rows: indices of the images in the batch.
        is_last: True if this is the last backward through the forward's graph.

    Attributes:
        distinct_indices: indices of the targets, one for each distinct score: images of a group may share a score.
        total: sum of the distinct scores. Images do not mix in evaluation mode, so its gradient is the gradient of
            every image's own score.
    """

    def __init__(
        self,
        runner: Runner,
        plan: Plan,
        forward: Forward,
        targets: Sequence[Target],
        rows: Sequence[int],
        is_last: bool = False,
    ) -> None:
        self.runner, self.plan, self.forward, self._is_last = runner, plan, forward, is_last
        self.targets, self.rows = list(targets), list(rows)
        first_indices = {id(target.score): index for index, target in reversed(list(enumerate(self.targets)))}
        self.distinct_indices = sorted(first_indices.values())
        self.total = torch.stack([self.targets[index].score for index in self.distinct_indices]).sum()

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """The gradients, all by one backward, at each layer, the input (key ""), the biases and the attentions."""
        signal_names, forward = self.runner.signal_names, self.forward
        points: dict[str, Tensor] = {}
        if signal_names & {"grad", "hvp"}:
            points = {name: forward.activations[name] for name in self.runner.layers}
        if signal_names & NEEDS_INPUT_GRAPH:
            points[""] = forward.images
        if forward.bias_capture is not None:
            points |= {f"bias {number}": output for number, (output, _) in enumerate(forward.bias_capture.points)}
        if forward.attention_capture is not None:
            attentions = enumerate(forward.attention_capture.attentions)
            points |= {f"attention {number}": one.output for number, one in attentions if one.output is not None}
        create_graph = "hvp" in signal_names
        keep = not self._is_last or create_graph or "grad_of" in signal_names or forward.backward_rules is not None
        return dict(zip(points, compute_gradients(self.total, list(points.values()), keep, create_graph), strict=True))

    @property
    def attentions(self) -> list[Attention]:
        """The attentions of the forward, in running order."""
        assert self.forward.attention_capture is not None
        return self.forward.attention_capture.attentions

    def score_classes(self) -> Float[Tensor, "n classes"]:
        """Return the scores of all classes, in the graph."""
        predictions, pairs = self.forward.predictions, zip(self.rows, self.targets, strict=True)
        return torch.stack([predictions.score_classes(row, target) for row, target in pairs])

    def select(self, tensor: Tensor) -> Tensor:
        """Select the rows of the images that are explained."""
        return tensor if len(self.rows) == len(tensor) else tensor[self.rows]

    def images(self) -> Tensor:
        """Return the images that are explained, detached from the graph."""
        return self.select(self.forward.images.detach())

    def to_cells(self, tensor: Tensor, layer: str) -> Float[Tensor, "n c h w"]:
        """Convert a layer's output, or a tensor of its shape, to cells of the images that are explained.

        Raises:
            PictureError: its first dimension is not that of the images.
        """
        cells, images = to_nchw(at_least_float32(tensor), self.plan.layouts[layer]), len(self.forward.images)
        if len(cells) != images:
            raise PictureError(
                f"the layer {layer!r} returns {count_of(len(cells), 'row')} for {count_of(images, 'image')}: the "
                "network processes them one by one, or merges them",
                "use batches of one: --batch-size 1",
            )
        return self.select(cells)

    def restricting_extras(self) -> AbstractContextManager[None]:
        """Pass the network the features of the explained images while the block runs it on variants of these."""
        return self.runner.extra_inputs.restricted_to(self.rows)

    def batch_variants(self, variants: Iterable[Tensor], rows: int, noun: str = "masks") -> Iterator[Tensor]:
        """Batch variants ``(n, ...)`` of all images, as many as fit, those of the first image first."""
        like, source = self.forward.images, iter(variants)
        room, group = max(1, rows // len(self.rows)), read_group(variants)
        with counting(variants, noun, len(self.rows)) as passes:
            while some := list(islice(source, min(room, group - passes.done % group) if group else room)):
                yield torch.stack(some, 1).flatten(0, 1).detach().to(like.device, like.dtype)
                passes.done += len(some)
                if passes.suffices:
                    raise TrialEndedError(passes.estimate_seconds() or 0.0)

    def split_variants(self, values: Tensor) -> Iterator[Tensor]:
        """Split the values of a batch of variants into variants: each ``(n, ...)``."""
        # A copy outside inference mode, which a method may change in place.
        values, images = at_least_float32(values.detach().clone()), len(self.rows)
        return iter(values.reshape(images, -1, *values.shape[1:]).unbind(1))


def read_target_score(predictions: Predictions, row: int, target: Target) -> Tensor:
    """Return the score of a target in one row of the predictions."""
    return predictions.score_target(row, target)


def read_class_scores(predictions: Predictions, row: int, target: Target) -> Tensor:
    """Return the scores of all classes in one row of the predictions."""
    return predictions.score_classes(row, target)


def score_variants(
    predictions: Predictions,
    targets: Sequence[Target],
    variants_per_target: int,
    read_score: Callable[[Predictions, int, Target], Tensor] = read_target_score,
) -> Tensor:
    """Return the score of each target in each of its variants, those of the first target first: ``(n * k,)``."""
    rows = (
        (row * variants_per_target + turn, target)
        for row, target in enumerate(targets)
        for turn in range(variants_per_target)
    )
    return torch.stack([read_score(predictions, row, target) for row, target in rows])
