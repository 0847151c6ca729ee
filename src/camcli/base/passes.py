"""Counts of a method's passes through a network, for whoever says how far an image is that takes minutes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import length_hint
from types import MappingProxyType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# The method that is at work in this thread, and an option by which it would take less time.
_method: ContextVar[tuple[str, str]] = ContextVar("method", default=("", ""))
# Seconds after which a loop has run long enough for a trial; 0 outside of trials.
_trial_limit = 0.0
# Loops that run at this moment, in any thread: adding to a list and removing from it need no lock.
_running: list[Passes] = []
# The last loop of each method.
_latest: dict[str, Passes] = {}
# Options of methods that say how many variants there are, where more are slower and smoother.
COUNT_OPTIONS = ("samples", "steps", "top")


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
        ended: when it ended; None while it runs.
        quicker: an option by which the loop would take a quarter of the time, such as ``samples=1000``; empty if the
            method has none.
    """

    method: str
    noun: str
    total: int
    images: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    quicker: str = ""

    @property
    def seconds(self) -> float:
        """Seconds since the loop began, or that it took."""
        return (time.monotonic() if self.ended is None else self.ended) - self.began

    @property
    def suffices(self) -> bool:
        """True if the loop has run long enough for a trial, and much of it is left."""
        return 0 < _trial_limit < self.seconds and (self.estimate_seconds() or 0) > _trial_limit

    def estimate_seconds(self) -> float | None:
        """Return the seconds until the loop ends; None while that cannot be told."""
        if not self.done or not self.total:
            return None
        return max(0, self.total - self.done) * self.seconds / self.done

    def estimate_image_seconds(self) -> float | None:
        """Return the seconds of the whole loop for one image; None while that cannot be told."""
        return self.total * self.seconds / self.done / self.images if self.done and self.total else None


class Counted(Generic[T]):
    """Iterable of a known length, such as a generator of so many masks.

    Args:
        items: the items.
        total: their number; 0 if it is not known.
        group: number of items after which the next depend on the answers so far, so that they must not be drawn before;
            0 if none depends on any.
    """

    def __init__(self, items: Iterable[T], total: int, group: int = 0) -> None:
        self._items = items
        self._total = total
        self.group = group

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __length_hint__(self) -> int:
        return self._total


def read_group(items: Iterable[Any]) -> int:
    """Return the number of items after which the next depend on the answers so far; 0 if none depends on any."""
    return items.group if isinstance(items, Counted) else 0


@contextmanager
def naming(method: str, options: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Say which method, with which options, the loops of this thread belong to while the block runs."""
    quicker = (f"{name}={options[name] // 4}" for name in COUNT_OPTIONS if options.get(name, 0) >= 4)
    token = _method.set((method, next(quicker, "")))
    try:
        yield
    finally:
        _method.reset(token)


@contextmanager
def counting(variants: Iterable[Any], noun: str, images: int) -> Iterator[Passes]:
    """Show a loop over variants among those that run while the block does."""
    method, quicker = _method.get()
    passes = Passes(method, noun, length_hint(variants, 0), images, quicker=quicker)
    _running.append(passes)
    _latest[method] = passes
    try:
        yield passes
    finally:
        passes.ended = time.monotonic()
        _running.remove(passes)


@contextmanager
def trying(limit: float) -> Iterator[None]:
    """Let loops end once they have run so many seconds, while the block runs: see :attr:`Passes.suffices`."""
    global _trial_limit
    _trial_limit = limit
    try:
        yield
    finally:
        _trial_limit = 0.0


def list_latest(since: float = 0.0) -> list[Passes]:
    """List the last loop of each method, of those that began after this time."""
    return [one for one in _latest.values() if one.began >= since]


def list_running() -> list[Passes]:
    """List the loops that run at this moment."""
    return list(_running)
