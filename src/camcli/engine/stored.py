"""What a network stores under a name, as bytes that are the same wherever and however it was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor


def pieces(name: str, value: Any) -> Iterator[Any]:
    """The bytes that stand for a value: a line with its name, type and shape, then its content.

    Args:
        name: what it is stored as.
        value: a tensor; or what modules store beside tensors: numbers, words, dictionaries and lists of them. Of an
            object its attributes count, and of one without, its type alone.
    """
    yield from _pieces(name, value, frozenset())


def _pieces(name: str, value: Any, outer: frozenset[int]) -> Iterator[Any]:
    if isinstance(value, Tensor):
        yield from _of_tensor(name, value.detach())
        return
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{name} {value.dtype} {value.shape}\n".encode()
        yield np.ascontiguousarray(value).tobytes()
        return
    yield f"{name} {type(value).__qualname__}\n".encode("utf-8", "backslashreplace")
    if id(value) in outer:  # it holds itself
        return
    outer |= {id(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value)
    elif value is None or isinstance(value, str | int | float | complex | np.generic | torch.dtype | torch.device):
        yield repr(value).encode("utf-8", "backslashreplace")
    elif isinstance(value, Mapping):
        for key, one in sorted(value.items(), key=lambda item: repr(item[0])):
            yield from _pieces(f"{name}[{key!r}]", one, outer)
    elif isinstance(value, Set):
        yield repr(sorted(map(repr, value))).encode("utf-8", "backslashreplace")
    elif isinstance(value, Sequence):
        for place, one in enumerate(value):
            yield from _pieces(f"{name}[{place}]", one, outer)
    else:
        for key, one in sorted(getattr(value, "__dict__", {}).items()):
            yield from _pieces(f"{name}.{key}", one, outer)


def _of_tensor(name: str, tensor: Tensor) -> Iterator[Any]:
    yield f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
    if tensor.is_meta:
        return
    if tensor.is_quantized:
        channels = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
        if channels:
            yield from _of_tensor("scales", tensor.q_per_channel_scales())
            yield from _of_tensor("zero points", tensor.q_per_channel_zero_points())
        else:
            yield f"{tensor.q_scale()!r} {tensor.q_zero_point()!r}".encode()
        tensor = tensor.int_repr()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    # NumPy has no bfloat16, so the bytes are looked at as bytes.
    plain = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    yield plain.reshape(-1).view(torch.uint8).numpy().data
