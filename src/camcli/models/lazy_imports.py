"""Import of the model libraries without PyTorch's compiler, which takes a second to load and which few runs use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from camcli.base.patched import patched

COMPILER = "torch._dynamo"
COMPILER_UTILS = f"{COMPILER}.utils"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Defer the import of PyTorch's compiler for modules imported in the block until they use it.

    Two lines of the libraries import all of it unconditionally: torchvision, for a function that one of its operators
    calls on a GPU under deterministic algorithms; timm, to exclude a method of models with inputs of many sizes from
    compilation. Both get a substitute that does the same when called. Any other access to the compiler imports it.
    """
    if COMPILER in sys.modules:
        yield
        return
    import torch.compiler

    tools = _LazyModule(COMPILER_UTILS)
    try:
        sys.modules[COMPILER_UTILS] = tools
        with patched(torch.compiler, "disable", _disable_without_compiler):
            yield
    finally:
        if sys.modules.get(COMPILER_UTILS) is tools:
            del sys.modules[COMPILER_UTILS]


def _disable_without_compiler(
    function: Callable[..., Any] | None = None, recursive: bool = True, **_options: Any
) -> Any:
    """Do what ``torch.compiler.disable`` does, in the way PyTorch itself does it without importing the compiler."""
    import torch

    return torch._disable_dynamo(function, recursive)  # type: ignore[attr-defined]


def _is_compile_supported(device: Any) -> Any:
    return importlib.import_module(COMPILER_UTILS).is_compile_supported(device)


class _LazyModule(ModuleType):
    """Stand-in for a module, replaced by the module itself when any other attribute is accessed."""

    is_compile_supported = staticmethod(_is_compile_supported)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
