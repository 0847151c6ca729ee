"""A pretended accelerator: memory and kernels are the CPU's, but devices are not mixed, as on the real one.

A tensor there wraps one of the CPU, and says that its device is ``cuda:0`` (or ``mps:0``). As on a GPU, an operation on
tensors of both devices is refused, unless that of the CPU has no dimensions or is an index; so is ``numpy()``, and with
``mps`` float64. It says nothing of CUDA's kernels, precision, streams or speed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
INFERENCE_MODE = torch.inference_mode
# May read or write the other device.
COPIES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor}
# Indices may be on the CPU.
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor}


class There(Tensor):
    """A tensor of the pretended device."""

    inner: Tensor
    home: str

    @staticmethod
    def __new__(cls, inner: Tensor, name: str) -> "There":
        if name.startswith("mps") and inner.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )
        made.inner, made.home = inner, name
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:
        return torch.device(self.home)

    @property
    def is_cuda(self) -> bool:
        return self.home.startswith("cuda")

    @property
    def is_cpu(self) -> bool:
        return False

    def numpy(self, *given: Any, force: bool = False) -> Any:
        if force:
            return self.inner.numpy(force=True)
        raise TypeError(f"can't convert {self.home} device type tensor to numpy")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def __repr__(self, *given: Any, **named: Any) -> str:
        return f"There({self.inner}, {self.home})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        name = next(one.home for one in leaves if isinstance(one, There))
        here = [one for one in leaves if isinstance(one, Tensor) and not isinstance(one, There) and one.ndim]
        inside = torch._C._current_graph_task_id() != -1  # PyTorch's own zeros in a backward pass
        if here and not inside and func not in COPIES | INDEXING:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {name} and cpu: {func}")
        found = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
        if func in COPIES and isinstance(args[0], Tensor) and not isinstance(args[0], There):
            return args[0]  # into a tensor of the CPU
        for one in leaves:
            if isinstance(one, There) and found is one.inner:
                return one
        return tree_map(lambda one: There(one, name) if isinstance(one, Tensor) else one, found)


def unwrap(one: Any) -> Any:
    """The CPU's tensor of a pretended one."""
    return one.inner if isinstance(one, There) else one


class _Fetch(torch.autograd.Function):
    """To the CPU, and the gradient back."""

    @staticmethod
    def forward(ctx, there):
        ctx.name = there.home
        return there.inner.clone()

    @staticmethod
    def backward(ctx, gradient):
        return There(gradient.clone(), ctx.name)


class _Send(torch.autograd.Function):
    """From the CPU, and the gradient back."""

    @staticmethod
    def forward(ctx, here, name):
        return There(here.clone(), name)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.inner.clone(), None


@contextmanager
def _inference_mode(mode: bool = True) -> Iterator[None]:
    with torch.set_grad_enabled(not mode):
        yield


class Pretending(TorchFunctionMode):
    """While it lasts, tensors can be made on the pretended device, and moved there and back."""

    def __init__(self, name: str = "cuda:0") -> None:
        super().__init__()
        self.name = name
        self.kind = name.partition(":")[0]

    def __enter__(self) -> "Pretending":
        # A module's parameters become others, since what is there has no memory of its own for theirs.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        # Tensors that wrap others cannot be inference tensors.
        torch.inference_mode = _inference_mode
        return super().__enter__()

    def __exit__(self, *given: Any) -> None:
        super().__exit__(*given)
        torch.inference_mode = INFERENCE_MODE
        torch.__future__.set_overwrite_module_params_on_conversion(False)

    def _is_there(self, device: Any) -> bool:
        return device is not None and torch.device(device).type == self.kind

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        word = getattr(func, "__name__", "")
        if isinstance(args[0] if args else None, Tensor) and word in ("to", "cpu", "cuda"):
            return self._move(args[0], word, list(args[1:]), kwargs)
        if word == "is_pinned":
            return False
        if kwargs.pop("pin_memory", False):
            assert torch.device(kwargs.get("device", "cpu")).type == "cpu", "only the CPU's memory is pinned"
        device = kwargs.get("device")
        if self._is_there(device):
            made = func(*args, **kwargs | {"device": "cpu"})
            return self._send(unwrap(made))
        if device is not None and word.endswith("_like") and isinstance(args[0], There):
            return func(args[0].inner, *args[1:], **kwargs)
        return func(*args, **kwargs)

    def _send(self, one: Tensor) -> Tensor:
        return There(one, self.name)

    def _move(self, one: Tensor, word: str, given: list[Any], named: dict[str, Any]) -> Tensor:
        """What ``to``, ``cpu`` and ``cuda`` do."""
        device = named.get("device") if word == "to" else word
        dtype, copy = named.get("dtype"), named.get("copy", False)
        if word == "to" and given:
            first = given.pop(0)
            if isinstance(first, Tensor):
                device, dtype = first.device, first.dtype
            elif isinstance(first, torch.dtype):
                dtype = first
            else:
                device = first
                if given and not isinstance(given[0], bool):
                    dtype = given.pop(0)
            copy = copy or given[1:] == [True]
        is_there = isinstance(one, There)
        if (is_there if device is None else self._is_there(device)) != is_there:
            # The dtype changes on the CPU, as MPS needs it.
            one = _Fetch.apply(one) if is_there else _Send.apply(one.to(dtype or one.dtype), self.name)
            copy = False
        how = {"copy": copy, "memory_format": named.get("memory_format") or torch.preserve_format}
        with torch._C.DisableTorchFunction():
            return one.to(dtype or one.dtype, **how)
