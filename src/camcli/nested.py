"""What functions are given and give: tensors in tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors(given: Any) -> Iterator[Tensor]:
    """All of them, in order, however deep they lie."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple | Mapping):
        for part in given.values() if isinstance(given, Mapping) else given:
            yield from tensors(part)
