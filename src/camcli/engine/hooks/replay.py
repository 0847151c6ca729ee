"""Rerun of the part of a network after a layer, with recorded outputs for everything before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.engine.hooks.patch import patched_forward
from camcli.engine.hooks.tensors import first_tensor, replace_tensor, tensor_at, tree_map

# Gives a module's output instead of running it; None: the module runs.
Answer = Callable[[], Any] | None
Answers = dict[nn.Module, deque[Answer]]
# Stands for the network's input among the indices of recorded calls.
IMAGES = -1


@dataclass(slots=True)
class Recording:
    """Outputs recorded in a forward up to a layer.

    The calls kept are the outermost that ended before the layer began: those made directly by the modules that were
    still running when the layer ran. In a replay such a module's own code runs, but every call in it is answered.

    Attributes:
        images: the batch size.
        call: which of the layer's runs counts, from 1 on.
        earlier_calls: the calls kept, in order, each a module and its output.
        output: the layer's output.
        tensor_index: which tensor of the layer's output is explained, from 0 on.
        largest_sizes: the values per image of the largest output up to the layer, and from it on.
        versions: how often each kept output had been changed in place when it was recorded.
    """

    images: int
    call: int = 1
    earlier_calls: list[tuple[nn.Module, Any]] = field(default_factory=list)
    output: Any = None
    tensor_index: int = 0
    largest_sizes: tuple[int, int] = (1, 1)
    versions: list[int] = field(default_factory=list)

    @property
    def tensor(self) -> Tensor:
        """The explained tensor of the layer's output."""
        found = tensor_at(self.output, self.tensor_index)
        assert found is not None
        return found

    def find_changed_modules(self) -> frozenset[nn.Module]:
        """Return the modules whose output was changed in place after it was recorded."""
        pairs = zip(self.earlier_calls, self.versions, strict=True)
        return frozenset(module for (module, output), version in pairs if count_inplace_writes(output) != version)

    def select(self, indices: Sequence[int]) -> Recording:
        """Return the recording for some of the images only."""
        if list(indices) == list(range(self.images)):
            return self

        def select_rows(tensor: Tensor) -> Tensor:
            if not tensor.ndim or len(tensor) % self.images:
                return tensor
            pieces = tensor.reshape(self.images, -1, *tensor.shape[1:])
            return pieces[list(indices)].flatten(0, 1)

        before = [(module, tree_map(output, select_rows)) for module, output in self.earlier_calls]
        return replace(self, images=len(indices), earlier_calls=before, output=tree_map(self.output, select_rows))


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """Plan for rerunning the part of a network after a layer.

    Attributes:
        copied: the modules whose output is changed in place later, so that copies of it are kept and handed out.
        required: indices of the recorded calls that the score depends on, and ``IMAGES`` if it depends on the images;
            only these are repeated for every variant. None: all of them.
        whole_network: True to run the whole network and replace the layer's output only.
    """

    copied: frozenset[nn.Module] = frozenset()
    required: frozenset[int] | None = None
    whole_network: bool = False


@contextmanager
def record(
    model: nn.Module,
    layer: nn.Module,
    call: int,
    images: int,
    copied: frozenset[nn.Module] = frozenset(),
    tensor_index: int = 0,
) -> Iterator[Recording]:
    """Record, while the block runs, the outputs that a replay from the layer on needs.

    Args:
        model: the network.
        layer: one of its modules.
        call: which of the layer's runs counts, from 1 on.
        images: the batch size.
        copied: modules whose output is kept as a copy, since it is changed in place later.
        tensor_index: which tensor of the layer's output is explained, from 0 on.
    """
    recording = Recording(images, call, tensor_index=tensor_index)
    frames: list[list[tuple[nn.Module, Any]]] = []
    runs = 0

    def begin(_module: nn.Module, _inputs: Any) -> None:
        if recording.output is None:
            frames.append([])

    def end(module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal runs
        before, behind = recording.largest_sizes
        tensor = first_tensor(output)
        size = 0 if tensor is None else tensor.numel() // images
        if recording.output is not None:
            recording.largest_sizes = before, max(behind, size)
            return
        recording.largest_sizes = max(before, size), behind
        frames.pop()
        runs += module is layer
        if module is layer and runs == call:
            recording.earlier_calls = [one for frame in frames for one in frame]
            recording.versions = [count_inplace_writes(one) for _, one in recording.earlier_calls]
            recording.output = tree_map(output, Tensor.detach)
            recording.largest_sizes = max(before, size), size
        elif frames:
            frames[-1].append((module, tree_map(output, _copy if module in copied else Tensor.detach)))

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(begin).remove)
            hooks.callback(module.register_forward_hook(end).remove)
        yield recording


@contextmanager
def replay(
    layer: nn.Module, recording: Recording, given: Tensor | None, plan: ReplayPlan, variants: int = 0
) -> Iterator[None]:
    """Replay the recorded outputs while the block runs, so that one forward computes only what is after the layer.

    Every recorded call returns its recorded output, repeated for each of the ``k`` variants of each image; the
    variants of one image are consecutive. Afterwards all modules are restored.

    Args:
        layer: the layer.
        recording: the recording of an ordinary forward.
        given: what replaces the layer's output, ``(images * k, ...)``, in its memory layout; None to run the layer.
        plan: the replay plan.
        variants: ``k``, where ``given`` is None.
    """
    variants = variants if given is None else len(given) // recording.images

    def give_output(place: int, module: nn.Module, output: Any) -> Any:
        if plan.required is None or place in plan.required:
            output = repeat_for_variants(output, recording.images, variants)
        return tree_map(output, Tensor.clone) if module in plan.copied else output

    answers: Answers = {}
    if plan.whole_network:
        answers[layer] = deque([None] * (recording.call - 1))
    else:
        for place, (module, output) in enumerate(recording.earlier_calls):
            answers.setdefault(module, deque()).append(partial(give_output, place, module, output))
    layer_answer = None if given is None else partial(_replace_output, recording, given, variants)
    answers.setdefault(layer, deque()).append(layer_answer)
    with ExitStack() as patches:
        for module, queue in answers.items():
            patches.enter_context(_answer_from_queue(module, queue))
        yield
    if answers[layer]:
        raise RuntimeError("the layer did not run again")


def required_outputs(
    layer: nn.Module, recording: Recording, images: Tensor, run: Callable[[Tensor], Tensor]
) -> frozenset[int]:
    """Find the recorded calls that the score depends on when only the part after the layer runs.

    Args:
        layer: the layer.
        recording: the recording of an ordinary forward.
        images: the network's input.
        run: the forward, from the images to a scalar score.

    Returns:
        The indices of the calls, and ``IMAGES`` if the score depends on the images directly.
    """
    leaves: dict[int, list[Tensor]] = {}
    answers: Answers = {}

    def make_leaf(place: int, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves.setdefault(place, []).append(tensor.detach().clone().requires_grad_())
        return leaves[place][-1].clone()

    for place, (module, output) in enumerate(recording.earlier_calls):
        answers.setdefault(module, deque()).append(partial(tree_map, output, partial(make_leaf, place)))
    answers.setdefault(layer, deque()).append(lambda: tree_map(recording.output, Tensor.clone))
    with ExitStack() as patches:
        for module, queue in answers.items():
            patches.enter_context(_answer_from_queue(module, queue))
        score = run(make_leaf(IMAGES, images))
    points = [(place, one) for place, some in leaves.items() for one in some]
    if not points or not score.requires_grad:
        return frozenset()
    found = torch.autograd.grad(score, [one for _, one in points], allow_unused=True)
    return frozenset(place for (place, _), gradient in zip(points, found, strict=True) if gradient is not None)


def _answer_from_queue(module: nn.Module, queue: deque[Answer]) -> AbstractContextManager[None]:
    """Answer the module's calls from the queue while the block runs; the module itself runs where an entry is None."""
    original = module.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        answer = queue.popleft() if queue else None
        return original(*inputs, **named) if answer is None else answer()

    return patched_forward(module, forward)


def repeat_for_variants(output: Any, images: int, variants: int) -> Any:
    """Repeat every tensor of an output for each variant of its image."""

    def expand(tensor: Tensor) -> Tensor:
        if variants == 1 or not tensor.ndim or len(tensor) % images:
            return tensor
        pieces = tensor.reshape(images, 1, len(tensor) // images, *tensor.shape[1:])
        return pieces.expand(-1, variants, *pieces.shape[2:]).reshape(-1, *tensor.shape[1:])

    return tree_map(output, expand)


def _replace_output(recording: Recording, given: Tensor, variants: int) -> Any:
    """Return the layer's whole recorded output with ``given`` in place of its explained tensor."""
    output = replace_tensor(recording.output, recording.tensor, given)
    if isinstance(output, Tensor):
        return output
    return tree_map(output, lambda one: one if one is given else repeat_for_variants(one, recording.images, variants))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def count_inplace_writes(output: Any) -> int:
    """Count how often the tensors of an output have been changed in place."""
    found: list[int] = []

    def add(tensor: Tensor) -> Tensor:
        # Inference tensors have no version counter; a replay is compared with the ordinary forward anyway.
        found.append(0 if tensor.is_inference() else tensor._version)
        return tensor

    tree_map(output, add)
    return sum(found)
