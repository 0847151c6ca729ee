"""A network built without drawing the random weights that those of a file replace.

Drawing them takes longer than reading the file: 5 s for a ViT-L. Which values are replaced is not looked up in names:
every value that was not drawn is followed through whatever is made of it, until something else is written over it. If
one is left at the end, the network is built again, drawn as usual. So no value differs from what it would have been.
"""

import gc
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from enum import Enum
from functools import cache
from threading import get_ident
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from camcli.engine.hooks.tensors import tensors

Built = TypeVar("Built")

# In place of what is there already, or of nothing; by their names in PyTorch's own list of operations.
DRAWS = ("aten::normal_", "aten::uniform_")
# What initialisers do to numbers that they drew. Done to what was not drawn, it is work for nothing.
SHAPING = ("aten::erfinv_", "aten::mul_", "aten::add_", "aten::sub_", "aten::div_", "aten::clamp_")
# What leaves nothing of the values before.
OVERWRITES = ("aten::copy_", "aten::fill_", "aten::zero_")
# How numbers get out of tensors without an operation of PyTorch's.
WAYS_OUT = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr})


def built(make: Callable[[], Built]) -> Built:
    """What a function makes, with every value that it would have had, and random numbers drawn only if some are left.

    The generator's state afterwards is that before, so that what is drawn next does not depend on what was drawn here.

    Args:
        make: builds a network and puts a file's weights into it. It may be called twice, so it changes nothing else.

    Raises:
        Exception: what the function raises.
    """
    before = torch.random.get_rng_state()
    try:
        made = _undrawn(make)
        if made is None:
            torch.random.set_rng_state(before)
            return make()
        return made[0]
    finally:
        torch.random.set_rng_state(before)


def _undrawn(make: Callable[[], Built]) -> tuple[Built] | None:
    """What a function makes without drawing; None if a value that should have been drawn is left or was looked at."""
    follower = _Follower()
    try:
        with ExitStack() as stack:
            # It decides by the numbers that it drew whether to draw again.
            plain = nn.init._no_grad_trunc_normal_
            stack.enter_context(mock.patch.object(nn.init, "_no_grad_trunc_normal_", _here(_drawn, plain)))
            stack.enter_context(_Outlook(follower))
            stack.enter_context(follower)
            made = make()
    except _LookedAtError:
        return None
    except Exception:  # if it is no fault of what was not drawn, it comes again
        return None
    return None if follower.looked_at or follower.left() else (made,)


def _here(function: Callable[..., Tensor], elsewhere: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function in this thread, and another one in all others, which may be building networks too."""
    thread = get_ident()
    return lambda *given, **named: (function if get_ident() == thread else elsewhere)(*given, **named)


def _drawn(tensor: Tensor, *_args: Any, **_options: Any) -> Tensor:
    with torch.no_grad():
        return tensor.normal_()


class _LookedAtError(BaseException):
    """A value that was not drawn was to decide something; not for libraries to catch."""


class _Kind(Enum):
    """What an operation has to do with values that were not drawn."""

    OTHER = 0  # what it makes of them is not drawn either
    DRAW = 1  # it draws in place, and need not
    SHAPE = 2  # it shapes in place what was drawn, and need not
    RANDOM = 3  # it draws otherwise
    OVERWRITE = 4
    LOOK = 5  # what comes out of it decides what Python does next


@cache
def _kind(operation: Any) -> _Kind:
    name = operation._schema.name
    if name in DRAWS:
        return _Kind.DRAW
    if torch.Tag.nondeterministic_seeded in operation.tags:
        return _Kind.RANDOM
    if name in SHAPING:
        return _Kind.SHAPE
    if name in OVERWRITES:
        return _Kind.OVERWRITE
    looks = torch.Tag.data_dependent_output in operation.tags or torch.Tag.dynamic_output_shape in operation.tags
    return _Kind.LOOK if looks else _Kind.OTHER


@cache
def _written(operation: Any) -> tuple[tuple[int, str], ...]:
    """Places and names of the arguments that an operation writes into."""
    arguments = enumerate(operation._schema.arguments)
    return tuple((place, one.name) for place, one in arguments if one.alias_info and one.alias_info.is_write)


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, leaves out those that draw, and keeps which memory therefore holds no values.

    Attributes:
        looked_at: whether such a value has decided something.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.looked_at = False
        # By address, which stays taken while somebody holds a weak reference.
        self._undrawn: dict[int, StorageWeakRef] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch would import its compiler, for a second, only to keep it from compiling what is below.
        return False

    def left(self) -> bool:
        """Whether anything that is still in use holds a value that was not drawn."""
        if not self._in_use():
            return False
        gc.collect()  # a module that was made and replaced may hold itself
        return self._in_use()

    def holds_none(self, tensors: Iterable[Tensor]) -> bool:
        """Whether any of these holds a value that was not drawn."""
        return bool(self._undrawn) and any(_memory(one)._cdata in self._undrawn for one in tensors)

    def look(self) -> None:
        """Say that such a value decides something."""
        self.looked_at = True
        raise _LookedAtError

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, unless it draws in place."""
        kwargs = kwargs or {}
        kind = _kind(func)
        if kind is _Kind.DRAW:
            self._mark(args[:1])
            return args[0]
        if kind is not _Kind.RANDOM and not self.holds_none(tensors((args, kwargs))):
            return func(*args, **kwargs)
        if kind is _Kind.LOOK:
            self.look()
        if kind is _Kind.SHAPE and self.holds_none(args[:1]):
            return args[0]
        made = func(*args, **kwargs)
        if kind is _Kind.OVERWRITE and _is_whole(args[0]) and not self.holds_none(tensors((args[1:], kwargs))):
            del self._undrawn[_memory(args[0])._cdata]
            return made
        into = [args[place] if place < len(args) else kwargs.get(name) for place, name in _written(func)]
        self._mark(tensors((into, made)))
        return made

    def _mark(self, tensors: Iterable[Tensor]) -> None:
        for one in tensors:
            memory = _memory(one)
            if memory._cdata not in self._undrawn:
                self._undrawn[memory._cdata] = StorageWeakRef(memory)  # type: ignore[no-untyped-call]

    def _in_use(self) -> bool:
        return any(not memory.expired() for memory in self._undrawn.values())  # type: ignore[no-untyped-call]


class _Outlook(TorchFunctionMode):
    """Sees numbers leave tensors by ways that are no operations."""

    def __init__(self, follower: _Follower) -> None:
        super().__init__()
        self._follower = follower

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do as asked, unless it is to look at what was not drawn."""
        if func in WAYS_OUT and self._follower.holds_none(args[:1]):
            self._follower.look()
        return func(*args, **(kwargs or {}))


def _memory(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is all that there is in its memory."""
    return tensor.is_contiguous() and tensor.numel() * tensor.element_size() == _memory(tensor).nbytes()
