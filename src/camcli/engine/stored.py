"""Bytes of a network's stored values, the same wherever and however the network was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor


def iter_bytes(name: str, value: Any) -> Iterator[Any]:
    """Yield the bytes of a value: a line with its name, type and shape, then its content.

    Args:
        name: the name that it is stored under.
        value: a tensor, or another value that modules store: numbers, strings, dictionaries and lists. Other objects
            are represented by their attributes, or by their type alone if they have none.
    """
    yield from _iter_value_bytes(name, value, frozenset())


def _iter_value_bytes(name: str, value: Any, outer: frozenset[int]) -> Iterator[Any]:
    if isinstance(value, Tensor):
        yield from _iter_tensor_bytes(name, value.detach())
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
            yield from _iter_value_bytes(f"{name}[{key!r}]", one, outer)
    elif isinstance(value, Set):
        yield repr(sorted(map(repr, value))).encode("utf-8", "backslashreplace")
    elif isinstance(value, Sequence):
        for place, one in enumerate(value):
            yield from _iter_value_bytes(f"{name}[{place}]", one, outer)
    else:
        for key, one in sorted(getattr(value, "__dict__", {}).items()):
            yield from _iter_value_bytes(f"{name}.{key}", one, outer)


def _iter_tensor_bytes(name: str, tensor: Tensor) -> Iterator[Any]:
    yield f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
    if tensor.is_meta:
        return
    if tensor.is_quantized:
        channels = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
        if channels:
            yield from _iter_tensor_bytes("scales", tensor.q_per_channel_scales())
            yield from _iter_tensor_bytes("zero points", tensor.q_per_channel_zero_points())
        else:
            yield f"{tensor.q_scale()!r} {tensor.q_zero_point()!r}".encode()
        tensor = tensor.int_repr()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    # NumPy has no bfloat16, so the tensor is viewed as bytes.
    plain = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    yield plain.reshape(-1).view(torch.uint8).numpy().data
