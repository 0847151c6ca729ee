"""Another ``forward`` in the place of a module's own.

``forward`` is replaced instead of adding hooks, because hooks are not called when a forward is ended by an exception,
and because what is wrapped can be skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from camcli.base.patched import patched, replace_attribute


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Call ``forward`` in place of the module's own from now on; return a function that undoes this.

    A ``forward`` that the module had as an attribute of its own, as wrappers leave one, comes back as it was.
    """
    return replace_attribute(module, "forward", forward)


def patched_forward(module: nn.Module, forward: Callable[..., Any]) -> AbstractContextManager[None]:
    """Call ``forward`` in place of the module's own while the block runs."""
    return patched(module, "forward", forward)
