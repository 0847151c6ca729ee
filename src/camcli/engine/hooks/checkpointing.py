"""Parts of a network that are computed again on the way back, instead of being kept for it: gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from camcli.engine.hooks.opaque import closed_parts
from camcli.engine.hooks.state import Snapshot
from camcli.engine.hooks.tensors import tensors

# Of what is kept for the way back, which share must go for it to be worth the time.
WORTH = 0.1


@dataclass(eq=False)
class Call:
    """One run of a module in a forward, and what it keeps for the way back, in bytes.

    Attributes:
        module: the module.
        given: what it was handed.
        able: whether it can be computed again: it is plain Python, and what it was handed has a gradient and is as it
            was handed.
        own: what it keeps itself, outside of the calls in it.
        calls: those of the modules that it ran.
    """

    module: nn.Module
    given: int = 0
    able: bool = False
    own: int = 0
    calls: list[Call] = field(default_factory=list)

    @cached_property
    def kept(self) -> int:
        """What is kept in all, when it has ended."""
        return self.own + sum(call.kept for call in self.calls)


@dataclass(frozen=True, slots=True)
class Saving:
    """The parts of a network that are computed again, and what that saves.

    Attributes:
        parts: in running order; none holds another.
        before: bytes kept without that.
        after: bytes kept with it, those of the largest part while it is computed again among them.
    """

    parts: tuple[nn.Module, ...]
    before: int
    after: int

    def words(self, model: nn.Module, each: str) -> str:
        """It, in words for people; ``each`` is what that was found out for, a picture or a group."""
        first = next(name for name, part in model.named_modules() if part is self.parts[0])
        several = f"{len(self.parts)} parts of the network, from {first!r} on, are"
        what = several if len(self.parts) > 1 else f"the part {first!r} of the network is"
        after, before = _mebibytes(self.after), _mebibytes(self.before)
        return (
            f"{what} computed again on the way back, for which about {after} are kept for a {each} instead of {before}"
        )


@contextmanager
def weighed(model: nn.Module) -> Iterator[Call]:
    """While it lasts, one forward of the model leaves here what each of its modules keeps for the way back.

    What is kept anyway does not count: parameters and buffers, and what was kept before.
    """
    closed = closed_parts(model)
    # What is compiled or scripted cannot be stopped half-way, when all that is needed is there.
    holding = {part for name, part in model.named_modules() if any(one.name.startswith(f"{name}.") for one in closed)}
    root = Call(model)
    running = [root]
    handed: list[list[tuple[int, int]]] = []
    seen = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def begin(module: nn.Module, inputs: Any, named: Any) -> None:
        given = list(tensors((inputs, named)))
        able = module not in holding and any(one.requires_grad for one in given)
        called = Call(module, sum(map(_size, given)), able)
        running[-1].calls.append(called)
        running.append(called)
        handed.append(_states(given))

    def end(_module: nn.Module, inputs: Any, named: Any, _output: Any) -> None:
        called = running.pop()
        # What a module changes in place, be it a tensor or a list of them, cannot be handed to it again.
        called.able &= handed.pop() == _states(tensors((inputs, named)))

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in seen:
            seen.add(place)
            running[-1].own += _size(tensor)
        return tensor

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and not any(one.hides(name) or one.name == name for one in closed):
                hooks.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(end, with_kwargs=True).remove)
        hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor))
        yield root


def saving(whole: Call) -> Saving:
    """The parts that are best computed again: for which least is kept, counting the largest while it is computed.

    With a limit for what a part may keep, the parts are the largest calls within it that are handed less than they
    keep. Every limit that makes a difference is tried.
    """
    limits = sorted({call.kept for call in _all(whole) if call.able})
    best = Saving((), whole.kept, whole.kept)
    for limit in limits:
        parts, kept = _within(whole, limit)
        most = max((part.kept for part in parts), default=0)
        if kept + most < best.after:
            best = Saving(tuple(dict.fromkeys(part.module for part in parts)), whole.kept, kept + most)
    return best


def _all(call: Call) -> Iterator[Call]:
    yield call
    for one in call.calls:
        yield from _all(one)


def _within(call: Call, limit: int) -> tuple[list[Call], int]:
    """The largest calls that keep no more than the limit, and what is kept if these are computed again."""
    kept = call.kept
    if call.able and call.given < kept <= limit:
        return [call], call.given
    found = [_within(one, limit) for one in call.calls]
    return [part for parts, _ in found for part in parts], call.own + sum(size for _, size in found)


@contextmanager
def recomputed(parts: Sequence[nn.Module], again: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """While it lasts, these modules keep for the way back only what they are handed, and run again when it comes.

    What they are handed without a gradient, before the earliest layer that is explained, they run as ever. When they
    run again, random numbers and what the modules were are those of the first time.

    Args:
        parts: modules, none in another.
        again: gives a context in which they run again, for what changes what they keep.
    """
    with ExitStack() as patches:
        for part in parts:
            patches.enter_context(_patched(part, again))
        yield


@contextmanager
def _patched(part: nn.Module, again: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    own, before = part.forward, vars(part).get("forward")

    def forward(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled() or not any(one.requires_grad for one in tensors((inputs, named))):
            return own(*inputs, **named)
        contexts = nullcontext(), _Again(Snapshot(part), again)
        # Whoever runs the part may go on to fill a list that it has handed over.
        inputs, named = _apart(inputs), _apart(named)
        return checkpoint(own, *inputs, use_reentrant=False, context_fn=lambda: contexts, **named)

    vars(part)["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del vars(part)["forward"]
        else:
            vars(part)["forward"] = before


class _Again:
    """The context in which a part runs again; entered anew for each way back."""

    def __init__(self, then: Snapshot, again: Callable[[], AbstractContextManager[Any]]) -> None:
        self._then, self._again, self._open = then, again, list[ExitStack]()

    def __enter__(self) -> None:
        with ExitStack() as opening:
            opening.enter_context(self._then.again())
            opening.enter_context(self._again())
            self._open.append(opening.pop_all())

    def __exit__(self, *error: Any) -> None:
        self._open.pop().__exit__(*error)


def _apart(given: Any) -> Any:
    """The same tensors in lists, tuples and dictionaries that are nobody else's."""
    if type(given) in (list, tuple):
        return type(given)(_apart(part) for part in given)
    return {name: _apart(part) for name, part in given.items()} if type(given) is dict else given


def _states(of: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Which tensors these are, and how often each has been changed in place."""
    return [(id(tensor), tensor._version) for tensor in of]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:{'.1f' if size < 10 * 2**20 else '.0f'}} MiB"
