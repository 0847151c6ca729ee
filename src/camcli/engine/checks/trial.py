"""What a network says of noise, and of the same noise again: before anything is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camcli.base.errors import CamcliError
from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.hooks.watch import at_work
from camcli.targets.readers import probabilities
from camcli.targets.target import Activation

# Of the scores, how far they may move when nothing changes: at least, and in units of rounding.
STILL, ROUNDED = 1e-4, 8
# So strong is the noise that shows whether outputs keep within [0, 1] whatever comes.
STRONG = 100
# So often the same is given again where it may make a difference.
TURNS = 3
_DROPOUTS = {
    function: name
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
    if (function := getattr(nn.functional, name, None))
}
_DRAWS = frozenset(
    [
        "bernoulli",
        "rand",
        "randn",
        "rand_like",
        "randn_like",
        "randint",
        "randperm",
        "multinomial",
        "normal",
        "poisson",
        "bernoulli_",
        "normal_",
        "uniform_",
        "exponential_",
        "random_",
    ]
)

# From images to the scores, as the network gives them: (n, classes) or (n, classes, h, w).
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found.

    Attributes:
        probabilities: the scores are probabilities already.
        within: they are from 0 to 1.
        sums: they sum to 1 over the classes.
        moved: by what part of their size the scores move when the same is given again; 0 if by rounding alone.
        mixed: by what part they move when another image is beside it in the batch; likewise.
        cause: why that is so, if it was found.
        single: what the network says against two images at once; empty if it takes them.
        noun: what moves.
    """

    probabilities: bool = False
    within: bool = False
    sums: bool = False
    moved: float = 0.0
    mixed: float = 0.0
    cause: str = ""
    single: str = ""
    noun: str = "scores"

    @property
    def words(self) -> str:
        """That the scores are probabilities, for people."""
        return f"the model's outputs are probabilities already (from 0 to 1 on noise{', summing to 1' * self.sums})"

    def notes(self, activation: Activation, asked: bool) -> list[str]:
        """What a user must know.

        Args:
            activation: what makes probabilities of the scores now.
            asked: somebody said so.
        """
        found = []
        if self.probabilities and asked and activation in ("softmax", "sigmoid"):
            found.append(
                f"{self.words}, and --activation {activation} makes probabilities of them once more, as it says; leave "
                "it out to have them as they are"
            )
        elif self.probabilities and activation == "probabilities" and not asked:
            found.append(
                f"{self.words}: they are shown as given, and they are what is explained, not logits; where one is "
                "nearly 0 or 1 its gradient vanishes; if they are scores after all, say what makes probabilities of "
                "them: --activation"
            )
        if self.moved:
            found.append(
                f"the model does not give the same output twice for one image: on noise its {self.noun} move by "
                f"{self.moved:.0%}{self.cause}; so every run draws other maps, and what was done before is one draw of "
                "many"
            )
        if self.mixed:
            found.append(
                "the model's output for an image depends on the others in its batch: on noise its scores move by "
                f"{self.mixed:.0%} beside another{self.cause}; each picture is explained in a batch of its own "
                "(pictures that belong together: --group)"
            )
        if self.single:
            found.append(
                f"the model fails on two pictures at once ({self.single}), so each is explained in a batch of its own"
            )
        return found


def tried(module: nn.Module, run: Run, image: Tensor, pair: Tensor | None, first: Tensor | None = None) -> Trial:
    """Try a network on noise.

    Args:
        module: the network, in evaluation mode, its parameters outside of the graph.
        run: from images to the scores that it gives; no layer is looked at meanwhile.
        image: one image, or one group.
        pair: this image and another, where a batch is no group.
        first: the scores of the image with the form of their graph, if they are known.
    """
    first = _with_form(module, run, image) if first is None else first
    form, squashed = first, probabilities.squashed(first)
    first = first.detach()
    found = _likelihood(run, first, squashed, image)
    within, sums = probabilities.within(first), found and probabilities.exclusive(first)
    if not bool(first.isfinite().all()):
        return Trial(found, within, sums)
    first = first.float()
    with torch.no_grad():
        try:
            again, watch = _watched(module, run, image if pair is None else pair)
        except CamcliError:
            raise
        except Exception as error:  # whatever it is, one image alone was no trouble
            if pair is None:
                raise
            single = (str(error).strip() or type(error).__name__).splitlines()[0]
            return replace(tried(module, run, image, None, form), single=single)
        # Scores may cancel out in one image.
        size = again if again.isfinite().all() else None
        mixed = _distance(first, again[: len(first)], size)
        # Draws may be the same by chance.
        more = TURNS if watch.draws or (mixed and pair is not None) else 0
        moved = max([mixed * (pair is None), *(_distance(first, run(image), size) for _ in range(more))])
    # What changes by itself says nothing of the batch.
    mixed = 0.0 if moved or pair is None else mixed
    cause = _cause(watch.draws if moved else watch.norms) if moved or mixed else ""
    return Trial(found, within, sums, moved, mixed, cause)


def drawn(module: nn.Module, run: Run, before: Tensor) -> Trial:
    """Whether a detector finds the same boxes again in one image; of others nobody knows what moved to where.

    Args:
        module: the network.
        run: gives the boxes ``(boxes, 6)`` of an image that it is not handed here.
        before: what it gave.
    """
    with torch.no_grad():
        again, watch = _watched(module, run, before)
        # Sides are of pixels, scores of less than one: each counts by its own greatest. Draws may be alike by chance.
        size = before.abs().amax(0).clamp(min=torch.finfo(before.dtype).tiny) if len(before) else before.new_ones(6)
        others = [again, *(run(before) for _ in range(TURNS if watch.draws else 0))]
    moved = max(_distance(before / size, one / size) for one in others) if len(before) or len(again) else 0.0
    return Trial(moved=moved, cause=_cause(watch.draws) if moved else "", noun="boxes and their scores")


def _with_form(module: nn.Module, run: Run, image: Tensor) -> Tensor:
    """The scores of an image with the form of their graph, of which nothing is kept for a way back."""
    if closed_parts(module):
        with torch.no_grad():
            return run(image)
    given = image.detach().clone().requires_grad_().clone()
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda _tensor: None, _gone):
            return run(given)
    except _GradientTakenError:
        with torch.enable_grad():
            return run(given)


class _GradientTakenError(RuntimeError):
    """The network takes a gradient within its own forward."""


def _gone(_nothing: Any) -> Tensor:
    raise _GradientTakenError("nothing was kept for a way back")


def _likelihood(run: Run, first: Tensor, squashed: bool | None, image: Tensor) -> bool:
    """Whether the scores of an image are probabilities.

    Those are that a sigmoid or a softmax made; others that sum to 1, and those of which nobody can tell what made them,
    if they stay so however strong the noise is. By chance one or two logits lie from 0 to 1 too.
    """
    if squashed or not probabilities.within(first):
        return bool(squashed) and probabilities.within(first)
    sums = probabilities.exclusive(first)
    if squashed is False and not sums:
        return False
    with torch.no_grad():
        others = [run(strength * image) for strength in (STRONG, -STRONG)]
    others = [one for one in others if one.isfinite().all()]
    return all(probabilities.within(one) and (not sums or probabilities.exclusive(one)) for one in others)


def _distance(one: Tensor, other: Tensor, more: Tensor | None = None) -> float:
    """By what part of the greatest score, in these and in ``more``, scores differ; 0 if by rounding alone."""
    if one.shape != other.shape:
        return 1.0
    if not bool(other.isfinite().all()):
        return 0.0
    eps = torch.finfo(other.dtype).eps
    size = max(float(some.abs().max()) for some in (one, other, one if more is None else more))
    apart = float((one - other.float()).abs().max()) / size if size else 0.0
    return apart if apart > max(STILL, ROUNDED * eps) else 0.0


# ---- why


class _Watch(TorchFunctionMode):
    """Notes what draws numbers, and what takes its statistics from the batch, and in which module."""

    def __init__(self, running: Sequence[nn.Module], names: dict[nn.Module, str]) -> None:
        super().__init__()
        self._running, self._names = running, names
        self.draws: list[str] = []
        self.norms: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            training = kwargs.get("training", args[2] if len(args) > 2 else True)
            if training and kwargs.get("p", args[1] if len(args) > 1 else 0.5):
                self.draws.append(f"{_DROPOUTS[func]} is called with training=True{self._where}")
        elif (name := getattr(func, "__name__", "")) in _DRAWS:
            self.draws.append(f"{name} draws random numbers{self._where}")
        elif func is nn.functional.batch_norm and kwargs.get("training", args[5] if len(args) > 5 else False):
            self.norms.append(f"a batch norm takes its statistics from the batch{self._where}")
        return func(*args, **kwargs)

    @property
    def _where(self) -> str:
        named = [one for one in self._running if self._names.get(one)]
        return f" in {self._names[named[-1]]!r} ({type(named[-1]).__name__})" if named else ""


def _watched(module: nn.Module, run: Run, images: Tensor) -> tuple[Tensor, _Watch]:
    """The scores of images, and what was seen on the way to them; nothing in code that is closed."""
    with ExitStack() as stack:
        running = [] if closed_parts(module) else stack.enter_context(at_work(module))
        watch = _Watch(running, {part: name for name, part in module.named_modules()})
        if not closed_parts(module):
            stack.enter_context(watch)
        return run(images), watch


def _cause(seen: Sequence[str]) -> str:
    found = list(dict.fromkeys(seen))
    more = f", and {len(found) - 1} more such" if len(found) > 1 else ""
    return f" ({found[0]}{more})" if found else ""
