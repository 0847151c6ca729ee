"""Tensors in nested outputs, which are tuples, lists and mappings; and the precision in which they are added up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from camcli.base.errors import RequestError


def tensors(given: Any) -> Iterator[Tensor]:
    """All of them, in order, however deep they lie."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple | Mapping):
        for part in given.values() if isinstance(given, Mapping) else given:
            yield from tensors(part)


def tensor_at(output: object, place: int = 0) -> Tensor | None:
    """The tensor that a module's output is, or the one at this place in it, counted from 0 (a tuple, list or dict)."""
    return next(islice(tensors(output), place, None), None)


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a module's output is, or the first one in it (a tuple, list or dict)."""
    return tensor_at(output)


def count_tensors(output: object) -> int:
    """How many tensors a module's output holds."""
    return sum(1 for _ in tensors(output))


def tensors_by_name(output: object) -> dict[str, Tensor]:
    """The tensors that a module's output holds side by side, by their keys, or their places from 0 on."""
    if isinstance(output, Mapping):
        parts = list(output.items())
    else:
        parts = list(enumerate(output)) if isinstance(output, list | tuple) else []
    return {str(name): tensor for name, tensor in parts if isinstance(tensor, Tensor)}


def replaced(output: object, old: Tensor, new: Tensor) -> object:
    """``output`` with ``new`` where ``old`` stood."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        return type(output)({key: replaced(part, old, new) for key, part in output.items()})  # type: ignore[call-arg]
    if isinstance(output, list | tuple):
        parts: list[Any] = [replaced(part, old, new) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def no_numbers(name: str, layer: nn.Module, output: object) -> RequestError:
    """The error for a layer that gives no tensor of numbers."""
    return RequestError(
        f"the layer {name!r} ({type(layer).__name__}) gives {type(output).__name__}, not a tensor of numbers",
        "choose another layer; `camcli layers MODEL` lists them",
    )


def wide(tensor: Tensor) -> Tensor:
    """At least float32, since sums over half-precision products lose the map."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
