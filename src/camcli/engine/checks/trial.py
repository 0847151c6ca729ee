"""Trial of a network on noise: whether its scores are probabilities, and whether they stay the same in another run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from camcli.base.errors import CamcliError
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.watch import module_stack
from camcli.targets.readers import probabilities
from camcli.targets.target import Activation

# Greatest relative change of scores when nothing changes: at least, and in units of rounding.
CHANGE_TOLERANCE, CHANGE_TOLERANCE_EPS = 1e-4, 8
# Factor of the noise that shows whether outputs stay within [0, 1] for any input.
NOISE_FACTOR = 100
# Number of further runs on the same image if draws may be the same by chance.
MAX_REPEATS = 3
_DROPOUTS = {
    function: name
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
    if (function := getattr(nn.functional, name, None))
}
_RANDOM_FUNCTIONS = frozenset(
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

# From images to the network's scores: (n, classes) or (n, classes, h, w).
RunScores = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of a trial.

    Attributes:
        gives_probabilities: True if the scores are probabilities already.
        in_unit_range: True if they lie from 0 to 1.
        sums_to_one: True if they sum to 1 over the classes.
        change_between_runs: relative change of the scores in another run on the same image; 0 if by rounding alone.
        change_in_batch: relative change of the scores with another image in the batch; 0 if by rounding alone.
        cause: cause of the change, if it was found.
        batch_error: the error of the network on two images at once; empty if there is none.
        noun: noun for what changes.
    """

    gives_probabilities: bool = False
    in_unit_range: bool = False
    sums_to_one: bool = False
    change_between_runs: float = 0.0
    change_in_batch: float = 0.0
    cause: str = ""
    batch_error: str = ""
    noun: str = "scores"

    @property
    def probabilities_note(self) -> str:
        """Statement that the scores are probabilities, in words."""
        return (
            f"the model's outputs are probabilities already (from 0 to 1 on noise{', summing to 1' * self.sums_to_one})"
        )

    def list_notes(self, activation: Activation, asked: bool) -> list[str]:
        """List remarks for users.

        Args:
            activation: the function that turns scores into probabilities.
            asked: True if the user chose it.
        """
        found = []
        if self.gives_probabilities and asked and activation in ("softmax", "sigmoid"):
            found.append(
                f"{self.probabilities_note}, and --activation {activation} is applied to them again; leave it out to "
                "use them unchanged"
            )
        elif self.gives_probabilities and activation == "probabilities" and not asked:
            found.append(
                f"{self.probabilities_note}: they are shown and explained unchanged, instead of logits; where one is "
                "nearly 0 or 1 its gradient vanishes; if they are logits after all, set --activation"
            )
        if self.change_between_runs:
            found.append(
                f"the model's output is not deterministic: on noise its {self.noun} change between runs by "
                f"{self.change_between_runs:.0%}{self.cause}; so maps differ from run to run"
            )
        if self.change_in_batch:
            found.append(
                "the model's output for an image depends on the others in its batch: on noise its scores change by "
                f"{self.change_in_batch:.0%} beside another{self.cause}; each image is explained in a batch of its "
                "own (images that belong together: --group)"
            )
        if self.batch_error:
            found.append(
                f"the model fails on two images at once ({self.batch_error}), so each is explained in a batch of its "
                "own"
            )
        return found


def try_scores_on_noise(
    module: nn.Module, run: RunScores, image: Tensor, pair: Tensor | None, first: Tensor | None = None
) -> Trial:
    """Try a classifier on noise.

    Args:
        module: the network, in evaluation mode; its parameters do not require grad.
        run: from images to the network's scores; no layer is captured meanwhile.
        image: one image, or one group.
        pair: this image and another; None for a group.
        first: the scores of the image with their graph, if they are known.
    """
    first = _run_without_storage(module, run, image) if first is None else first
    with_graph, is_bounded = first, probabilities.is_bounded(first)
    first = first.detach()
    found = _are_probabilities(run, first, is_bounded, image)
    within, sums = probabilities.are_in_unit_range(first), found and probabilities.sum_to_one(first)
    if not bool(first.isfinite().all()):
        return Trial(found, within, sums)
    first = first.float()
    with torch.no_grad():
        try:
            again, watch = _run_watched(module, run, image if pair is None else pair)
        except CamcliError:
            raise
        except Exception as error:  # any error, since one image alone has caused none
            if pair is None:
                raise
            single = (str(error).strip() or type(error).__name__).splitlines()[0]
            return replace(try_scores_on_noise(module, run, image, None, with_graph), batch_error=single)
        # The scores of one image may cancel out.
        size = again if again.isfinite().all() else None
        mixed = _relative_change(first, again[: len(first)], size)
        # Random draws may be the same by chance.
        more = MAX_REPEATS if watch.draws or (mixed and pair is not None) else 0
        changed = max([mixed * (pair is None), *(_relative_change(first, run(image), size) for _ in range(more))])
    # Scores that change between runs tell nothing about the batch.
    mixed = 0.0 if changed or pair is None else mixed
    cause = _find_cause(watch.draws if changed else watch.batch_norms) if changed or mixed else ""
    return Trial(found, within, sums, changed, mixed, cause)


def try_boxes_on_noise(module: nn.Module, run: RunScores, before: Tensor) -> Trial:
    """Try a detector on noise: whether it finds the same boxes again in one image; batches of several are not tried.

    Args:
        module: the network.
        run: returns the boxes ``(boxes, 6)`` of the same image again, whatever its argument.
        before: the boxes of the first run.
    """
    with torch.no_grad():
        again, watch = _run_watched(module, run, before)
        # Sides are in pixels and scores below 1, so each column has its own scale. Draws may be the same by chance.
        size = before.abs().amax(0).clamp(min=torch.finfo(before.dtype).tiny) if len(before) else before.new_ones(6)
        others = [again, *(run(before) for _ in range(MAX_REPEATS if watch.draws else 0))]
    changed = max(_relative_change(before / size, one / size) for one in others) if len(before) or len(again) else 0.0
    return Trial(
        change_between_runs=changed, cause=_find_cause(watch.draws) if changed else "", noun="boxes and their scores"
    )


def _run_without_storage(module: nn.Module, run: RunScores, image: Tensor) -> Tensor:
    """Return the scores of an image with their graph, without storing tensors for a backward."""
    if find_opaque_modules(module):
        with torch.no_grad():
            return run(image)
    given = image.detach().clone().requires_grad_().clone()
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda _tensor: None, _drop):
            return run(given)
    except _GradientTakenError:
        with torch.enable_grad():
            return run(given)


class _GradientTakenError(RuntimeError):
    """Raised when the network computes a gradient within its own forward."""


def _drop(_nothing: Any) -> Tensor:
    raise _GradientTakenError("no activations were stored for a backward pass")


def _are_probabilities(run: RunScores, first: Tensor, is_bounded: bool | None, image: Tensor) -> bool:
    """Return whether the scores of an image are probabilities.

    They are if a sigmoid or softmax made them. Scores that sum to 1, and scores of unknown origin, are if they keep
    their range and sum however strong the noise is: one or two logits may lie from 0 to 1 by chance.
    """
    if is_bounded or not probabilities.are_in_unit_range(first):
        return bool(is_bounded) and probabilities.are_in_unit_range(first)
    sums = probabilities.sum_to_one(first)
    if is_bounded is False and not sums:
        return False
    with torch.no_grad():
        others = [run(strength * image) for strength in (NOISE_FACTOR, -NOISE_FACTOR)]
    others = [one for one in others if one.isfinite().all()]
    return all(probabilities.are_in_unit_range(one) and (not sums or probabilities.sum_to_one(one)) for one in others)


def _relative_change(one: Tensor, other: Tensor, more: Tensor | None = None) -> float:
    """Return the difference of scores relative to the greatest, in these and in ``more``; 0 if by rounding alone."""
    if one.shape != other.shape:
        return 1.0
    if not bool(other.isfinite().all()):
        return 0.0
    eps = torch.finfo(other.dtype).eps
    size = max(float(some.abs().max()) for some in (one, other, one if more is None else more))
    change = float((one - other.float()).abs().max()) / size if size else 0.0
    return change if change > max(CHANGE_TOLERANCE, CHANGE_TOLERANCE_EPS * eps) else 0.0


# ---- causes of a change


class _RandomnessWatch(TorchFunctionMode):
    """Records random draws and batch norms that use batch statistics, with their modules."""

    def __init__(self, running_modules: Sequence[nn.Module], names: dict[nn.Module, str]) -> None:
        super().__init__()
        self._running_modules, self._names = running_modules, names
        self.draws: list[str] = []
        self.batch_norms: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            training = kwargs.get("training", args[2] if len(args) > 2 else True)
            if training and kwargs.get("p", args[1] if len(args) > 1 else 0.5):
                self.draws.append(f"{_DROPOUTS[func]} is called with training=True{self._where}")
        elif (name := getattr(func, "__name__", "")) in _RANDOM_FUNCTIONS:
            self.draws.append(f"{name} draws random numbers{self._where}")
        elif func is nn.functional.batch_norm and kwargs.get("training", args[5] if len(args) > 5 else False):
            self.batch_norms.append(f"a batch norm uses batch statistics{self._where}")
        return func(*args, **kwargs)

    @property
    def _where(self) -> str:
        named = [one for one in self._running_modules if self._names.get(one)]
        return f" in {self._names[named[-1]]!r} ({type(named[-1]).__name__})" if named else ""


def _run_watched(module: nn.Module, run: RunScores, images: Tensor) -> tuple[Tensor, _RandomnessWatch]:
    """Run on images, and watch for random draws and batch statistics; nothing is seen in opaque code."""
    with ExitStack() as stack:
        running = [] if find_opaque_modules(module) else stack.enter_context(module_stack(module))
        watch = _RandomnessWatch(running, {part: name for name, part in module.named_modules()})
        if not find_opaque_modules(module):
            stack.enter_context(watch)
        return run(images), watch


def _find_cause(watch: Sequence[str]) -> str:
    found = list(dict.fromkeys(watch))
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f" ({found[0]}{more})" if found else ""
