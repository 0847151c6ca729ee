"""Construction of networks without drawing the random weights that a file's weights replace.

Drawing them takes longer than reading the file: 5 s for a ViT-L. Replaced values are not found by name: every value
that was not drawn is tracked through all operations until it is overwritten. If one is left at the end, the network is
built again with random weights as usual. So no value differs from a plain construction.
"""

import gc
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from enum import Enum
from functools import cache
from threading import get_ident
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from camcli.base.patched import patched
from camcli.engine.hooks.tensors import iter_tensors

BuiltT = TypeVar("BuiltT")

# In-place operations that fill a tensor with random values, by their names in PyTorch's operator schemas.
RANDOM_FILL_OPS = ("aten::normal_", "aten::uniform_")
# In-place operations of initialisers on the values they drew; they are skipped for values that were not drawn.
RESCALE_OPS = ("aten::erfinv_", "aten::mul_", "aten::add_", "aten::sub_", "aten::div_", "aten::clamp_")
# In-place operations after which nothing of the previous values is left.
OVERWRITE_OPS = ("aten::copy_", "aten::fill_", "aten::zero_")
# Methods that read values out of tensors without a PyTorch operation.
READ_METHODS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr})


def build_without_init(build: Callable[[], BuiltT]) -> BuiltT:
    """Run a function that builds a network, skipping random initialisation unless some of its values are kept.

    The result is the same as without skipping. The generator's state is restored afterwards, so that later random
    numbers do not depend on those drawn here.

    Args:
        build: builds a network and loads a file's weights. It may be called twice, so it must have no side effects.

    Raises:
        Exception: any error of the function.
    """
    before = torch.random.get_rng_state()
    try:
        made = try_without_init(build)
        if made is None:
            torch.random.set_rng_state(before)
            return build()
        return made[0]
    finally:
        torch.random.set_rng_state(before)


def try_without_init(build: Callable[[], BuiltT]) -> tuple[BuiltT] | None:
    """Run a function without random initialisation; return None if an uninitialised value is left or was read."""
    tracker = UninitializedTracker()
    try:
        with ExitStack() as stack:
            # The original reads the values that it drew, to decide whether to draw again.
            original = nn.init._no_grad_trunc_normal_
            fill = _in_this_thread_only(_fill_normal, original)
            stack.enter_context(patched(nn.init, "_no_grad_trunc_normal_", fill))
            stack.enter_context(_ReadGuard(tracker))
            stack.enter_context(tracker)
            made = build()
    except _ValueReadError:
        return None
    except Exception:  # an error of the function itself is raised again by the plain construction
        return None
    return None if tracker.was_read or tracker.any_left() else (made,)


def _in_this_thread_only(function: Callable[..., Tensor], elsewhere: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that calls one function in this thread, and another in all others, which may also build."""
    thread = get_ident()
    return lambda *given, **named: (function if get_ident() == thread else elsewhere)(*given, **named)


def _fill_normal(tensor: Tensor, *_args: Any, **_options: Any) -> Tensor:
    with torch.no_grad():
        return tensor.normal_()


class _ValueReadError(BaseException):
    """Raised when an uninitialised value is read; a ``BaseException`` so that libraries do not catch it."""


class _OpKind(Enum):
    """Effect of an operation on uninitialised values, which were not drawn."""

    OTHER = 0  # its output is uninitialised too
    RANDOM_FILL = 1  # draws in place, and can be skipped
    RESCALE = 2  # changes drawn values in place, and can be skipped
    OTHER_RANDOM = 3  # draws in another way
    OVERWRITE = 4
    READ = 5  # Python code may depend on its result


@cache
def _classify_op(operation: Any) -> _OpKind:
    name = operation._schema.name
    if name in RANDOM_FILL_OPS:
        return _OpKind.RANDOM_FILL
    if torch.Tag.nondeterministic_seeded in operation.tags:
        return _OpKind.OTHER_RANDOM
    if name in RESCALE_OPS:
        return _OpKind.RESCALE
    if name in OVERWRITE_OPS:
        return _OpKind.OVERWRITE
    reads = torch.Tag.data_dependent_output in operation.tags or torch.Tag.dynamic_output_shape in operation.tags
    return _OpKind.READ if reads else _OpKind.OTHER


@cache
def _find_written_arguments(operation: Any) -> tuple[tuple[int, str], ...]:
    """Return positions and names of the arguments that an operation writes into."""
    arguments = enumerate(operation._schema.arguments)
    return tuple((index, one.name) for index, one in arguments if one.alias_info and one.alias_info.is_write)


class UninitializedTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that skips random fills and tracks the storages that are therefore uninitialised.

    Attributes:
        was_read: True once an uninitialised value has been read.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.was_read = False
        # By address, which is not reused while a weak reference exists.
        self._uninitialized: dict[int, StorageWeakRef] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise PyTorch imports its compiler, which takes a second, only to exclude the method below from it.
        return False

    def any_left(self) -> bool:
        """Return whether any storage that is still alive is uninitialised."""
        if not self._any_alive():
            return False
        gc.collect()  # a discarded module may be part of a reference cycle
        return self._any_alive()

    def any_uninitialized(self, tensors: Iterable[Tensor]) -> bool:
        """Return whether any of the tensors is uninitialised."""
        return bool(self._uninitialized) and any(_storage_of(one)._cdata in self._uninitialized for one in tensors)

    def fail_read(self) -> None:
        """Record that an uninitialised value is read, and raise."""
        self.was_read = True
        raise _ValueReadError

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, unless it draws in place or rescales uninitialised values."""
        kwargs = kwargs or {}
        kind = _classify_op(func)
        if kind is _OpKind.RANDOM_FILL:
            self._mark(args[:1])
            return args[0]
        if kind is not _OpKind.OTHER_RANDOM and not self.any_uninitialized(iter_tensors((args, kwargs))):
            return func(*args, **kwargs)
        if kind is _OpKind.READ:
            self.fail_read()
        if kind is _OpKind.RESCALE and self.any_uninitialized(args[:1]):
            return args[0]
        made = func(*args, **kwargs)
        if (
            kind is _OpKind.OVERWRITE
            and _fills_storage(args[0])
            and not self.any_uninitialized(iter_tensors((args[1:], kwargs)))
        ):
            del self._uninitialized[_storage_of(args[0])._cdata]
            return made
        written = [
            args[index] if index < len(args) else kwargs.get(name) for index, name in _find_written_arguments(func)
        ]
        self._mark(iter_tensors((written, made)))
        return made

    def _mark(self, tensors: Iterable[Tensor]) -> None:
        for one in tensors:
            storage = _storage_of(one)
            if storage._cdata not in self._uninitialized:
                self._uninitialized[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def _any_alive(self) -> bool:
        return any(not storage.expired() for storage in self._uninitialized.values())  # type: ignore[no-untyped-call]


class _ReadGuard(TorchFunctionMode):
    """Function mode that detects values read from tensors without an operation."""

    def __init__(self, tracker: UninitializedTracker) -> None:
        super().__init__()
        self._tracker = tracker

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, unless it reads an uninitialised tensor."""
        if func in READ_METHODS and self._tracker.any_uninitialized(args[:1]):
            self._tracker.fail_read()
        return func(*args, **(kwargs or {}))


def _storage_of(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _fills_storage(tensor: Tensor) -> bool:
    """Return whether a tensor covers its whole storage."""
    return tensor.is_contiguous() and tensor.numel() * tensor.element_size() == _storage_of(tensor).nbytes()
