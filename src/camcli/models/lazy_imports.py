"""The model libraries imported without PyTorch's compiler, which takes a second and which few runs use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

COMPILER = "torch._dynamo"
TOOLS = f"{COMPILER}.utils"


@contextmanager
def light() -> Iterator[None]:
    """What is imported inside gets the compiler only when it is used.

    Two lines of the libraries load all of it, whoever uses them: torchvision asks it for a function that one of its
    operators calls on a GPU, if algorithms are to be deterministic; timm has it leave a method alone, of models with
    inputs of many sizes. Both get what does the same when it is called. Whatever else is asked of the compiler inside
    is answered by the compiler itself, imported then.
    """
    if COMPILER in sys.modules:
        yield
        return
    import torch.compiler

    tools = _Later(TOOLS)
    try:
        sys.modules[TOOLS] = tools
        with mock.patch.object(torch.compiler, "disable", _left_alone):
            yield
    finally:
        if sys.modules.get(TOOLS) is tools:
            del sys.modules[TOOLS]


def _left_alone(function: Callable[..., Any] | None = None, recursive: bool = True, **_options: Any) -> Any:
    """``torch.compiler.disable``, as PyTorch itself does it where the compiler is not to be imported for that alone."""
    import torch

    return torch._disable_dynamo(function, recursive)  # type: ignore[attr-defined]


def _is_compile_supported(device: Any) -> Any:
    return importlib.import_module(TOOLS).is_compile_supported(device)


class _Later(ModuleType):
    """In a module's place until something is asked of it that is not known here."""

    is_compile_supported = staticmethod(_is_compile_supported)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
