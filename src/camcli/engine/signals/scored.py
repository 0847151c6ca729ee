"""A forward with the scores of it that are explained: what every signal is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.engine.forward import FROM_INPUT, Forward, Plan, Witness, gradients_at
from camcli.engine.hooks.attention import Attention
from camcli.engine.hooks.tensors import wide
from camcli.engine.layers.layout import canonical
from camcli.targets.target import Reading, Subject


class ScoredForward:
    """One class's score of each image, in the graph of the forward that it comes from.

    Args:
        witness: the network.
        plan: for this size of images.
        forward: of the batch.
        subjects: what is explained, one for each of ``rows``.
        rows: which images of the batch.
        last: whether nothing else goes back from this forward.

    Attributes:
        distinct: of the subjects, by number, one for each score: images of a group may share theirs.
        total: the sum of these scores. Samples do not mix in evaluation mode, so its gradient holds every image's own.
    """

    def __init__(
        self,
        witness: Witness,
        plan: Plan,
        forward: Forward,
        subjects: Sequence[Subject],
        rows: Sequence[int],
        last: bool = False,
    ) -> None:
        self.witness, self.plan, self.forward, self._last = witness, plan, forward, last
        self.subjects, self.rows = list(subjects), list(rows)
        turns = {id(subject.score): turn for turn, subject in reversed(list(enumerate(self.subjects)))}
        self.distinct = sorted(turns.values())
        self.total = torch.stack([self.subjects[turn].score for turn in self.distinct]).sum()

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Of all that is wanted in one backward: by each layer, by the input (""), by what has a bias."""
        wants, forward = self.witness.wants, self.forward
        points: dict[str, Tensor] = {}
        if wants & {"grad", "curve"}:
            points = {name: forward.taps[name] for name in self.witness.layers}
        if wants & FROM_INPUT:
            points[""] = forward.image
        if forward.biases is not None:
            points |= {f"bias {number}": output for number, (output, _) in enumerate(forward.biases.points)}
        if forward.attending is not None:
            met = enumerate(forward.attending.seen)
            points |= {f"attention {number}": one.output for number, one in met if one.output is not None}
        curved = "curve" in wants
        keep = not self._last or curved or "grad_of" in wants or forward.ruled is not None
        return dict(zip(points, gradients_at(self.total, list(points.values()), keep, curved), strict=True))

    @property
    def attentions(self) -> list[Attention]:
        """The attentions of the forward, in running order."""
        assert self.forward.attending is not None
        return self.forward.attending.seen

    def scores_of_all(self) -> Float[Tensor, "n classes"]:
        """The score of every class, in the graph."""
        reading, pairs = self.forward.reading, zip(self.rows, self.subjects, strict=True)
        return torch.stack([reading.answers(row, subject) for row, subject in pairs])

    def select(self, tensor: Tensor) -> Tensor:
        """The rows that are explained."""
        return tensor if len(self.rows) == len(tensor) else tensor[self.rows]

    def images(self) -> Tensor:
        """The images that are explained, without the graph."""
        return self.select(self.forward.image.detach())

    def grid_of(self, tensor: Tensor, layer: str) -> Float[Tensor, "n c h w"]:
        """A layer's output, or what has its form, as cells of the images that are explained.

        Raises:
            PictureError: it does not go by images.
        """
        cells, images = canonical(wide(tensor), self.plan.layouts[layer]), len(self.forward.image)
        if len(cells) != images:
            raise PictureError(
                f"the layer {layer!r} gives {len(cells)} row(s) for {images} images: the network takes them one by "
                "one, or joins them",
                "give it one at a time: --batch-size 1",
            )
        return self.select(cells)

    def feeding(self) -> AbstractContextManager[None]:
        """Hand the network the features of the images that are explained, while it runs on variants of these."""
        return self.witness.feed.about(self.rows)

    def batches(self, variants: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
        """Variants ``(n, ...)`` of all images together, as many as fit, those of the first image first."""
        like, source = self.forward.image, iter(variants)
        while some := list(islice(source, max(1, rows // len(self.rows)))):
            yield torch.stack(some, 1).flatten(0, 1).detach().to(like.device, like.dtype)

    def each(self, values: Tensor) -> Iterator[Tensor]:
        """Values of a batch of variants, variant by variant: each ``(n, ...)``."""
        # A copy outside of inference mode, so that a method may change it in place.
        values, images = wide(values.detach().clone()), len(self.rows)
        return iter(values.reshape(images, -1, *values.shape[1:]).unbind(1))


def score_in(reading: Reading, row: int, subject: Subject) -> Tensor:
    """The score of a subject in one row of what the network answers."""
    return reading.answer(row, subject)


def scores_in(reading: Reading, row: int, subject: Subject) -> Tensor:
    """The scores of every class, as :func:`score_in`."""
    return reading.answers(row, subject)


def answers(
    reading: Reading,
    subjects: Sequence[Subject],
    each: int,
    what: Callable[[Reading, int, Subject], Tensor] = score_in,
) -> Tensor:
    """The score of each subject in each of its variants, those of the first together: ``(n * each,)``."""
    rows = ((row * each + turn, subject) for row, subject in enumerate(subjects) for turn in range(each))
    return torch.stack([what(reading, row, subject) for row, subject in rows])
