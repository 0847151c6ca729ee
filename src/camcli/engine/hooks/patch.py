"""Another ``forward`` in the place of a module's own.

``forward`` is replaced instead of adding hooks, because hooks are not called when a forward is ended by an exception,
and because what is wrapped can be skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Call ``forward`` in place of the module's own from now on; return a function that undoes this.

    A ``forward`` that the module had as an attribute of its own, as wrappers leave one, comes back as it was.
    """
    attributes = vars(module)
    had_own, before = "forward" in attributes, attributes.get("forward")
    attributes["forward"] = forward

    def restore() -> None:
        if had_own:
            attributes["forward"] = before
        else:
            del attributes["forward"]

    return restore


@contextmanager
def patched_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Call ``forward`` in place of the module's own while the block runs."""
    restore = replace_forward(module, forward)
    try:
        yield
    finally:
        restore()
