"""Pictures read ahead of whoever takes them, in order: bounded in number, in pixels, and in seconds for each.

What decodes is C code, which nobody can stop, and how much memory it takes is known only when a file's header is read.
So each picture asks to be let in when its size is known, in order, and one that takes too long is left to its thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Seconds that an end waits for pictures under way: none is needed any more, and some may never end.
CLOSING = 5.0
# Seconds without any room given back after which the next picture is let in, since somebody keeps what was handed over.
KEPT = 30.0


class Hold:
    """So many pixels of the room there is, until they are given back: by :meth:`release`, or when nobody has it."""

    __slots__ = ("_leave", "pixels")

    def __init__(self, pixels: int, leave: Callable[[int], None]) -> None:
        self.pixels = pixels
        self._leave = leave

    def release(self) -> None:
        """Give the pixels back; once."""
        pixels, self.pixels = self.pixels, 0
        if pixels:
            self._leave(pixels)

    def __del__(self) -> None:
        self.release()


Admit = Callable[[int], Hold]


@dataclass(slots=True, eq=False)
class _Task(Generic[T, R]):
    """One item on its way.

    Attributes:
        number: its turn to be let in.
        began: when it began, or went on after it was let in; None while nothing runs.
        waits: it waits to be let in.
        hold: its pixels, since it was let in.
        asked: since when it is waited for.
        dropped: nobody waits for its result any more.
        late: since it took too long; its thread is not counted on any more.
        thread: that works on it.
    """

    item: T
    number: int
    asked: float = 0.0
    began: float | None = None
    waits: bool = False
    hold: Hold | None = None
    result: R | None = None
    error: BaseException | None = None
    done: bool = False
    dropped: bool = False
    late: bool = False
    thread: threading.Thread | None = None


class _Dropped(Exception):  # noqa: N818  it is no error
    """Nobody waits for it."""


class Reading(Generic[T, R]):
    """``work(item, admit)`` of each item, in order, in threads ahead of whoever takes the results.

    Items are drawn in the caller's thread. ``work`` calls ``admit(pixels)`` when it knows how many it needs, waits
    there until there is room, and keeps the :class:`Hold` with its result; the room is free again when the hold is
    released or gone. Items are let in in their order, so the one that is waited for is never behind others; one that
    needs more than all the room goes when there is nothing else.

    Args:
        work: must not change its item, which may be done again.
        workers: threads.
        depth: results under way.
        most: pixels of all results that are not released, in threads, waiting or handed over.
        seconds: for one item, what it waits for room left out; 0 for any number.
        late: what is given for an item that took longer. Its thread goes on alone, and another takes its place.
        again: whether a result says that memory was short; then everything else is put off and the item done by itself.
        patience: seconds without a result after which None is given, so that who collects results can go on with them.
        kept: seconds without room given back after which the item that is waited for is let in all the same.
        pauses: whether an item is none, but says that no other will come for a while: all results are given, then None.
    """

    def __init__(
        self,
        work: Callable[[T, Admit], R],
        *,
        workers: int,
        depth: int,
        most: int,
        seconds: float = 0.0,
        late: Callable[[T], R],
        again: Callable[[R], bool] = lambda result: False,
        patience: float = 3.0,
        kept: float = KEPT,
        pauses: Callable[[T], bool] = lambda item: False,
    ) -> None:
        self._work, self._late, self._again, self._pauses = work, late, again, pauses
        self._workers, self._depth, self._most = workers, depth, most
        self._seconds, self._patience, self._kept = seconds, patience, kept
        # Reentrant: a hold may be given back by the garbage collector at any moment.
        self._changed = threading.Condition(threading.RLock())
        self._queue = SimpleQueue[_Task[T, R] | None]()
        self._threads: list[threading.Thread] = []
        self._count = self._turn = self._held = 0
        self._passed: set[int] = set()
        self._let_in: _Task[T, R] | None = None
        self._left = time.monotonic()

    def __call__(self, items: Iterable[T]) -> Iterator[R | None]:
        """The results in order, and None where there is nothing for a while.

        An error of ``work`` is raised at its item's turn. When ``items`` itself fails or is interrupted, what was under
        way is handed over first, then the error is raised.
        """
        rest = iter(items)
        under_way: deque[_Task[T, R]] = deque()
        trouble: BaseException | None = None
        ended = False
        try:
            while True:
                pause = False
                while not (ended or pause) and len(under_way) < self._depth:
                    try:
                        item = next(rest)
                    except StopIteration:
                        ended = True
                    except BaseException as error:
                        trouble, ended = error, True
                    else:
                        pause = self._pauses(item)
                        if not pause:
                            under_way.append(self._begin(item))
                if ended and not under_way:
                    break
                for _ in range(len(under_way) if pause or ended else 1):
                    yield from self._first(under_way)
                if pause:
                    yield None
            if trouble is not None:
                raise trouble
        finally:
            self._close(under_way)

    # ---- in the caller's thread

    def _begin(self, item: T) -> _Task[T, R]:
        task: _Task[T, R] = _Task(item, self._count)
        self._count += 1
        if len(self._threads) < self._workers:
            self._hire()
        self._queue.put(task)
        return task

    def _hire(self) -> None:
        thread = threading.Thread(target=self._serve, name="camcli reading", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more of them; fewer will do
            if not self._threads:
                raise
            self._workers = len(self._threads)
        else:
            self._threads.append(thread)

    def _first(self, under_way: deque[_Task[T, R]]) -> Iterator[R | None]:
        """The first result under way, when it is there."""
        task = under_way[0]
        task.asked = time.monotonic()
        while not self._is_there(task):
            yield None
        under_way.popleft()
        if task.result is not None and not task.late and self._again(task.result):
            yield None
            yield self._alone(task, under_way)
        else:
            yield self._taken(task)

    def _taken(self, task: _Task[T, R]) -> R:
        if task.late:
            return self._late(task.item)
        if task.error is not None:
            raise task.error
        result, task.result, task.hold = task.result, None, None
        assert result is not None
        return result

    def _is_there(self, task: _Task[T, R]) -> bool:
        """Wait for a result, for as long as patience lasts; whether it, or the end of its time, is there."""
        until = time.monotonic() + self._patience
        with self._changed:
            while not task.done:
                now = time.monotonic()
                ends = [until]
                if self._seconds and task.began is not None:
                    ends.append(task.began + self._seconds)
                    if now >= ends[-1]:
                        self._leave_behind(task)
                        return True
                if task.waits and self._let_in is not task:
                    ends.append(max(self._left, task.asked) + self._kept)
                    if now >= ends[-1]:
                        self._let_in = task
                        self._changed.notify_all()
                        ends.pop()
                if now >= until:
                    return False
                self._changed.wait(min(ends) - now)
        return True

    def _leave_behind(self, task: _Task[T, R]) -> None:
        """Go on without a task, whose thread ends when it is done with it."""
        task.dropped = task.late = True
        self._threads = [thread for thread in self._threads if thread is not task.thread]
        self._pass(task)
        self._hire()

    def _alone(self, task: _Task[T, R], under_way: deque[_Task[T, R]]) -> R:
        """An item done once more, with nothing beside it; what comes behind it is begun anew."""
        later = [other.item for other in under_way]
        with self._changed:
            self._most = max(1, self._most // 2)  # what was too much once would be too much again
            for other in under_way:
                other.dropped = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: all(other.done for other in under_way), self._seconds or None)
            for other in under_way:
                if not other.done:
                    self._leave_behind(other)
                other.result, other.hold = None, None
            task.result, task.hold = None, None
            self._changed.wait_for(lambda: not self._held, self._kept)
        under_way.clear()
        again = self._begin(task.item)
        again.asked = time.monotonic()
        while not self._is_there(again):
            pass
        result = self._taken(again)
        under_way.extend(map(self._begin, later))
        return result

    def _close(self, under_way: Iterable[_Task[T, R]]) -> None:
        with self._changed:
            for task in under_way:
                task.dropped = True
            self._changed.notify_all()
        for _ in self._threads:
            self._queue.put(None)
        end = time.monotonic() + CLOSING
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    # ---- in threads

    def _serve(self) -> None:
        while (task := self._queue.get()) is not None:
            self._do(task)
            if task.late:
                return
            del task  # or it would keep the result until the next one comes

    def _do(self, task: _Task[T, R]) -> None:
        result: R | None = None
        error: BaseException | None = None
        if not task.dropped:
            task.began, task.thread = time.monotonic(), threading.current_thread()
            try:
                result = self._work(task.item, partial(self._admit, task))
            except BaseException as trouble:
                error = trouble
        with self._changed:
            if not task.dropped:
                task.result, task.error = result, error
            task.done, task.began = True, None
            self._pass(task)

    def _admit(self, task: _Task[T, R], pixels: int) -> Hold:
        def fits() -> bool:
            return not self._held or self._held + pixels <= self._most or self._let_in is task

        with self._changed:
            if task.hold is not None:  # it was let in, failed, and is read in another way
                return task.hold
            task.began, task.waits = None, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: task.dropped or (task.number == self._turn and fits()))
            task.waits = False
            if task.dropped:
                raise _Dropped
            task.began = time.monotonic()
            task.hold = Hold(pixels, self._leave)
            self._held += pixels
            self._pass(task)
            return task.hold

    def _pass(self, task: _Task[T, R]) -> None:
        """The turn of a task is over: it was let in, or needs no room."""
        if task.number >= self._turn:
            self._passed.add(task.number)
        while self._turn in self._passed:
            self._passed.remove(self._turn)
            self._turn += 1
        self._changed.notify_all()

    def _leave(self, pixels: int) -> None:
        with self._changed:
            self._held -= pixels
            self._left = time.monotonic()
            self._changed.notify_all()
