"""Gradient checkpointing: parts of a network are recomputed in the backward, instead of keeping their activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.patch import patched_forward
from camcli.engine.hooks.state import Snapshot
from camcli.engine.hooks.tensors import iter_tensors

# The share of the memory kept for the backward that must be saved for checkpointing to be worth its time.
MIN_SAVING = 0.1


@dataclass(eq=False)
class CallMemory:
    """Memory that one run of a module in a forward keeps for the backward, in bytes.

    Attributes:
        module: the module.
        input_bytes: the size of its inputs.
        can_recompute: True if the call can be recomputed: the module is plain Python, and its inputs need a gradient
            and are not changed in place.
        own_bytes: what the call keeps itself, outside its children.
        children: the calls of the modules that it ran.
    """

    module: nn.Module
    input_bytes: int = 0
    can_recompute: bool = False
    own_bytes: int = 0
    children: list[CallMemory] = field(default_factory=list)

    @cached_property
    def kept_bytes(self) -> int:
        """The bytes that the call and its children keep, known once it has ended."""
        return self.own_bytes + sum(call.kept_bytes for call in self.children)


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """The parts of a network to recompute in the backward, and the memory that this saves.

    Attributes:
        parts: modules in running order; none contains another.
        bytes_before: bytes kept without checkpointing.
        bytes_after: bytes kept with it, including those of the largest part while it is recomputed.
    """

    parts: tuple[nn.Module, ...]
    bytes_before: int
    bytes_after: int

    def describe(self, model: nn.Module, unit: str) -> str:
        """Describe the plan for a message; ``unit`` is what the sizes are for, an image or a group."""
        first = next(name for name, part in model.named_modules() if part is self.parts[0])
        several = f"{len(self.parts)} parts of the network, from {first!r} on, are"
        parts = several if len(self.parts) > 1 else f"the part {first!r} of the network is"
        after, before = _format_mebibytes(self.bytes_after), _format_mebibytes(self.bytes_before)
        return f"{parts} recomputed in the backward pass: about {after} are stored for each {unit} instead of {before}"


@contextmanager
def measure_kept(model: nn.Module) -> Iterator[CallMemory]:
    """Measure, while the block runs one forward, the memory that each module keeps for the backward.

    Parameters, buffers and tensors that were kept before do not count.
    """
    opaque = find_opaque_modules(model)
    # A recomputation stops as soon as it has all tensors it needs, which compiled or scripted code cannot do.
    holding = {part for name, part in model.named_modules() if any(one.name.startswith(f"{name}.") for one in opaque)}
    root = CallMemory(model)
    running = [root]
    input_versions: list[list[tuple[int, int]]] = []
    seen_storages = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def begin(module: nn.Module, inputs: Any, named: Any) -> None:
        given = list(iter_tensors((inputs, named)))
        able = module not in holding and any(one.requires_grad for one in given)
        called = CallMemory(module, sum(map(_count_bytes, given)), able)
        running[-1].children.append(called)
        running.append(called)
        input_versions.append(_read_versions(given))

    def end(_module: nn.Module, inputs: Any, named: Any, _output: Any) -> None:
        called = running.pop()
        # An input that the module changes in place (a tensor, or a list of tensors) cannot be given to it again.
        called.can_recompute &= input_versions.pop() == _read_versions(iter_tensors((inputs, named)))

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in seen_storages:
            seen_storages.add(place)
            running[-1].own_bytes += _count_bytes(tensor)
        return tensor

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and not any(one.hides(name) or one.name == name for one in opaque):
                hooks.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(end, with_kwargs=True).remove)
        hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        yield root


def choose_parts(whole: CallMemory) -> CheckpointPlan:
    """Choose the parts to recompute so that least memory is kept, counting the largest part while it is recomputed.

    For a given limit on what a part may keep, the parts are the largest calls within it whose inputs are smaller than
    what they keep. Every limit that makes a difference is tried.
    """
    limits = sorted({call.kept_bytes for call in _walk_calls(whole) if call.can_recompute})
    best = CheckpointPlan((), whole.kept_bytes, whole.kept_bytes)
    for limit in limits:
        parts, kept = _find_parts_within(whole, limit)
        most = max((part.kept_bytes for part in parts), default=0)
        if kept + most < best.bytes_after:
            best = CheckpointPlan(tuple(dict.fromkeys(part.module for part in parts)), whole.kept_bytes, kept + most)
    return best


def _walk_calls(call: CallMemory) -> Iterator[CallMemory]:
    yield call
    for one in call.children:
        yield from _walk_calls(one)


def _find_parts_within(call: CallMemory, limit: int) -> tuple[list[CallMemory], int]:
    """Find the largest calls that keep no more than the limit, and the bytes kept if these are recomputed."""
    kept = call.kept_bytes
    if call.can_recompute and call.input_bytes < kept <= limit:
        return [call], call.input_bytes
    found = [_find_parts_within(one, limit) for one in call.children]
    return [part for parts, _ in found for part in parts], call.own_bytes + sum(size for _, size in found)


@contextmanager
def checkpointed(
    parts: Sequence[nn.Module], recompute_context: Callable[[], AbstractContextManager[Any]]
) -> Iterator[None]:
    """Checkpoint these modules while the block runs: only their inputs are kept, and the backward recomputes the rest.

    Calls whose inputs need no gradient, before the earliest explained layer, run as usual. A recomputation uses the
    random numbers and the module state of the first run.

    Args:
        parts: modules, none inside another.
        recompute_context: makes the context in which a part is recomputed, for modes that change what it keeps.
    """
    with ExitStack() as patches:
        for part in parts:
            patches.enter_context(_checkpoint(part, recompute_context))
        yield


def _checkpoint(
    part: nn.Module, recompute_context: Callable[[], AbstractContextManager[Any]]
) -> AbstractContextManager[None]:
    """Checkpoint one module while the block runs."""
    original = part.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled() or not any(one.requires_grad for one in iter_tensors((inputs, named))):
            return original(*inputs, **named)
        contexts = nullcontext(), _RecomputeContext(Snapshot(part), recompute_context)
        # The caller may append to a list after it has passed it to the part.
        inputs, named = _copy_containers(inputs), _copy_containers(named)
        return checkpoint(original, *inputs, use_reentrant=False, context_fn=lambda: contexts, **named)

    return patched_forward(part, forward)


class _RecomputeContext:
    """The context in which a part is recomputed; entered once per backward."""

    def __init__(self, snapshot: Snapshot, make_context: Callable[[], AbstractContextManager[Any]]) -> None:
        self._snapshot, self._make_context, self._entered = snapshot, make_context, list[ExitStack]()

    def __enter__(self) -> None:
        with ExitStack() as opening:
            opening.enter_context(self._snapshot.applied())
            opening.enter_context(self._make_context())
            self._entered.append(opening.pop_all())

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)


def _copy_containers(given: Any) -> Any:
    """Copy lists, tuples and dictionaries, but not the tensors in them."""
    if type(given) in (list, tuple):
        return type(given)(_copy_containers(part) for part in given)
    return {name: _copy_containers(part) for name, part in given.items()} if type(given) is dict else given


def _read_versions(given: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Return the identity of each tensor, and how often it has been changed in place."""
    return [(id(tensor), tensor._version) for tensor in given]


def _count_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _format_mebibytes(size: int) -> str:
    return f"{size / 2**20:{'.1f' if size < 10 * 2**20 else '.0f'}} MiB"
