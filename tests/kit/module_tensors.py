"""All that a module holds: parameters, buffers, and tensors in whatever else hangs on it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def tensors(thing: Any, name: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that can be reached from a thing, with the way to it."""
    seen = set() if seen is None else seen
    if isinstance(thing, Tensor):
        yield name, thing
        return
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, dict):
        parts = list(thing.items())
    elif isinstance(thing, list | tuple | set | frozenset):
        parts = list(enumerate(thing))
    elif isinstance(thing, nn.Module) or (hasattr(thing, "__dict__") and not isinstance(thing, type)):
        parts = [(key, value) for key, value in vars(thing).items() if key != "__globals__"]
    else:
        parts = []
    for cell in getattr(thing, "__closure__", None) or ():
        parts.append(("closure", cell.cell_contents))
    for key, part in parts:
        yield from tensors(part, f"{name}.{key}", seen)


def different(first: nn.Module, second: nn.Module) -> list[str]:
    """The ways to tensors that are not the same to the bit."""
    ours, theirs = dict(tensors(first)), dict(tensors(second))
    names = ours.keys() ^ theirs.keys()
    return sorted(names) + [name for name in ours.keys() & theirs.keys() if not _same(ours[name], theirs[name])]


def _same(first: Tensor, second: Tensor) -> bool:
    if (first.dtype, first.shape, first.stride()) != (second.dtype, second.shape, second.stride()):
        return False
    return torch.equal(_bits(first), _bits(second))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
