"""An attribute of an object or a module replaced, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def replace_attribute(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Give an object this attribute from now on; return a function that undoes this.

    What the object had as an attribute of its own comes back; what it had from its class is found there again. The
    object's ``__setattr__`` is not asked.
    """
    attributes = vars(owner)
    had_own, before = name in attributes, attributes.get(name)
    attributes[name] = value

    def restore() -> None:
        if had_own:
            attributes[name] = before
        else:
            del attributes[name]

    return restore


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object this attribute while the block runs."""
    restore = replace_attribute(owner, name, value)
    try:
        yield
    finally:
        restore()
