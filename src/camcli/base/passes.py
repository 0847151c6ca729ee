"""Counts of a method's passes through a network, for whoever says how far an image is that takes minutes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# The method that is at work in this thread.
_method: ContextVar[str] = ContextVar("method", default="")
# Loops that run at this moment, in any thread: adding to a list and removing from it need no lock.
_running: list[Passes] = []


@dataclass(slots=True, eq=False)
class Passes:
    """One loop of a method over variants of images.

    Attributes:
        method: name of the method.
        noun: what the variants are: masks, or samples.
        total: number of variants; 0 if it is not known.
        images: number of images whose variants go through the network together.
        done: number of variants that have gone through it.
        began: when the loop began, on the clock of ``time.monotonic``.
    """

    method: str
    noun: str
    total: int
    images: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def estimate_seconds(self) -> float | None:
        """Return the seconds until the loop ends; None while that cannot be told."""
        if not self.done or not self.total:
            return None
        return max(0, self.total - self.done) * (time.monotonic() - self.began) / self.done


class Counted(Generic[T]):
    """Iterable of a known length, such as a generator of so many masks."""

    def __init__(self, items: Iterable[T], total: int) -> None:
        self._items = items
        self._total = total

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __length_hint__(self) -> int:
        return self._total


@contextmanager
def naming(method: str) -> Iterator[None]:
    """Say which method the loops of this thread belong to while the block runs."""
    token = _method.set(method)
    try:
        yield
    finally:
        _method.reset(token)


@contextmanager
def counting(variants: Iterable[Any], noun: str, images: int) -> Iterator[Passes]:
    """Show a loop over variants among those that run while the block does."""
    passes = Passes(_method.get(), noun, length_hint(variants, 0), images)
    _running.append(passes)
    try:
        yield passes
    finally:
        _running.remove(passes)


def list_running() -> list[Passes]:
    """List the loops that run at this moment."""
    return list(_running)
