"""Tensors in nested outputs (tuples, lists and mappings), and the precision in which they are summed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError

# Greatest deviation of what is computed again, relative to the greatest value.
REPLAY_TOLERANCE = 1e-4


def iter_tensors(given: Any) -> Iterator[Tensor]:
    """Yield all tensors of a nested structure, in order."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple | Mapping):
        for part in given.values() if isinstance(given, Mapping) else given:
            yield from iter_tensors(part)


def tensor_at(output: object, index: int = 0) -> Tensor | None:
    """Return the tensor at an index (from 0) among all those of a module's output; None if there is none."""
    return next(islice(iter_tensors(output), index, None), None)


def first_tensor(output: object) -> Tensor | None:
    """Return the first tensor of a module's output; None if there is none."""
    return tensor_at(output)


def count_tensors(output: object) -> int:
    """Count the tensors of a module's output."""
    return sum(1 for _ in iter_tensors(output))


def tensors_by_name(output: object, path: str = "") -> dict[str, Tensor]:
    """Return the tensors in a module's output by their keys or indices, those inside of others joined by dots.

    A lone tensor has no name.
    """
    if isinstance(output, Tensor):
        return {path: output} if path else {}
    if isinstance(output, Mapping):
        parts = list(output.items())
    else:
        parts = list(enumerate(output)) if isinstance(output, list | tuple) else []
    start = f"{path}." if path else ""
    return {place: one for name, part in parts for place, one in tensors_by_name(part, f"{start}{name}").items()}


def tree_map(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to each tensor of a nested output."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, Mapping):
        return type(output)({key: tree_map(part, change) for key, part in output.items()})  # type: ignore[call-arg]
    if isinstance(output, list | tuple):
        parts: list[Any] = [tree_map(part, change) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def replace_tensor(output: object, old: Tensor, new: Tensor) -> object:
    """Return ``output`` with ``new`` in the place of ``old``."""
    return tree_map(output, lambda tensor: new if tensor is old else tensor)


def no_tensor_error(name: str, layer: nn.Module, output: object) -> RequestError:
    """Return the error for a layer whose output holds no floating-point tensor."""
    return RequestError(
        f"the layer {name!r} ({type(layer).__name__}) returns {type(output).__name__}, not a tensor of numbers",
        "choose another layer; `camcli layers MODEL` lists them",
    )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert half precision to float32, since sums over half-precision products lose the map."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def are_close(one: Tensor, other: Tensor, tolerance: float = REPLAY_TOLERANCE) -> bool:
    """Return whether two tensors are equal up to rounding where both are finite."""
    finite = one.isfinite() & other.isfinite()
    return bool(finite.any()) and bool((one - other)[finite].abs().max() <= tolerance * one[finite].abs().max())
