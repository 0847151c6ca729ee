"""Stages of a command: which one runs, and for ``--debug`` and its log the time that they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Stages that run in threads beside the others.
IN_THREADS = ("decode", "draw and write")

_lock = Lock()
_seconds: dict[str, float] = {}
# Stages that run at this moment, in any thread: adding to a list and removing from it need no lock.
_running: list[str] = []


def add(stage: str, seconds: float) -> None:
    """Add to the time that a stage has taken; may be called from any thread."""
    with _lock:
        _seconds[stage] = _seconds.get(stage, 0.0) + seconds


@contextmanager
def within(stage: str) -> Iterator[None]:
    """Count a stage among those that run while the block does; its time belongs to the stage around it."""
    _running.append(stage)
    try:
        yield
    finally:
        _running.remove(stage)


def list_running() -> list[str]:
    """Return the stages that run at this moment, the innermost last."""
    return list(_running)


@contextmanager
def measure(stage: str) -> Iterator[None]:
    """Add the time of the block to a stage."""
    began = time.perf_counter()
    try:
        with within(stage):
            yield
    finally:
        add(stage, time.perf_counter() - began)


def measured(stage: str, work: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose time is added to a stage."""

    @wraps(work)
    def run(*args: P.args, **words: P.kwargs) -> R:
        with measure(stage):
            return work(*args, **words)

    return run


class MeasuredIterator(Iterator[R]):
    """Iterator whose waiting for the next item is added to a stage. It keeps no item alive, as a generator would.

    Args:
        stage: the stage.
        items: what it iterates over.
    """

    def __init__(self, stage: str, items: Iterable[R]) -> None:
        self._stage = stage
        self._items = iter(items)

    def __next__(self) -> R:
        with measure(self._stage):
            return next(self._items)


def take() -> dict[str, float]:
    """Return the seconds of all stages since the last call."""
    with _lock:
        taken = dict(_seconds)
        _seconds.clear()
    return taken


def describe(seconds: dict[str, float]) -> str:
    """Describe the seconds of stages on a line."""
    in_turn = [f"{stage} {taken:.2f} s" for stage, taken in seconds.items() if stage not in IN_THREADS]
    beside = [f"{stage} {seconds[stage]:.2f} s" for stage in IN_THREADS if stage in seconds]
    return ", ".join(in_turn) + (f"; in threads: {', '.join(beside)}" if beside else "")
