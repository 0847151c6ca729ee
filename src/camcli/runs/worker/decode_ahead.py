"""Prefetching of images in order, bounded in number, in pixels, and in seconds for each.

Decoding is C code that cannot be stopped, and the memory it needs is known only when a file's header is read. So each
image is admitted, in order, when its size is known, and one that takes too long is left to its thread.
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

# Seconds that closing waits for images under way: none is needed any more, and some may never end.
CLOSE_SECONDS = 5.0
# Seconds without a release after which the next image is admitted anyway, since the consumer may keep its results.
STALL_SECONDS = 30.0


class Reservation:
    """Number of pixels reserved until :meth:`release`, or until the reservation is garbage-collected."""

    __slots__ = ("_leave", "pixels")

    def __init__(self, pixels: int, leave: Callable[[int], None]) -> None:
        self.pixels = pixels
        self._leave = leave

    def release(self) -> None:
        """Return the pixels; a second call does nothing."""
        pixels, self.pixels = self.pixels, 0
        if pixels:
            self._leave(pixels)

    def __del__(self) -> None:
        self.release()


Admit = Callable[[int], Reservation]


@dataclass(slots=True, eq=False)
class _Task(Generic[T, R]):
    """Item under way.

    Attributes:
        number: its turn to be admitted.
        began: when it started, or continued after it was admitted; None while nothing runs.
        is_waiting: it waits to be admitted.
        reservation: its pixels, once it was admitted.
        wanted_since: when the consumer began to wait for it.
        cancelled: its result is not needed any more.
        timed_out: it was cancelled because it took too long; its thread is abandoned.
        thread: the thread that works on it.
    """

    item: T
    number: int
    wanted_since: float = 0.0
    began: float | None = None
    is_waiting: bool = False
    reservation: Reservation | None = None
    result: R | None = None
    error: BaseException | None = None
    done: bool = False
    cancelled: bool = False
    timed_out: bool = False
    thread: threading.Thread | None = None


class _Cancelled(Exception):  # noqa: N818  it is no error
    """Signal to a thread that its task was cancelled."""


class Prefetcher(Generic[T, R]):
    """Computation of ``work(item, admit)`` for each item, in order, in threads ahead of the consumer.

    Items are taken in the caller's thread. ``work`` calls ``admit(pixels)`` when it knows how many it needs, waits
    there until there is room, and keeps the :class:`Reservation` with its result; the room is free again when the
    reservation is released or garbage-collected. Items are admitted in order, so the one that the consumer waits for is
    never behind others; one that needs more than all the room is admitted when there is nothing else.

    Args:
        work: computes a result; must not change its item, which may be retried.
        workers: number of threads.
        depth: maximum number of results under way.
        max_pixels: maximum pixels of all results that are not released: in threads, waiting or yielded.
        timeout: seconds for one item, without its wait for admission; 0 for no limit.
        on_timeout: makes the result of an item that took longer. Its thread runs on, and another takes its place.
        should_retry: true of a result that failed for lack of memory; its item is retried with nothing beside it.
        patience: seconds without a result after which None is yielded, so that the consumer can use what it has.
        stall_seconds: seconds without a release after which the item that the consumer waits for is admitted anyway.
        is_pause: true of an item that only says that no other comes for a while: all results are yielded, then None.
    """

    def __init__(
        self,
        work: Callable[[T, Admit], R],
        *,
        workers: int,
        depth: int,
        max_pixels: int,
        timeout: float = 0.0,
        on_timeout: Callable[[T], R],
        should_retry: Callable[[R], bool] = lambda result: False,
        patience: float = 3.0,
        stall_seconds: float = STALL_SECONDS,
        is_pause: Callable[[T], bool] = lambda item: False,
    ) -> None:
        self._work, self._on_timeout, self._should_retry, self._is_pause = work, on_timeout, should_retry, is_pause
        self._workers, self._depth, self._max_pixels = workers, depth, max_pixels
        self._timeout, self._patience, self._stall_seconds = timeout, patience, stall_seconds
        # Reentrant: the garbage collector may release a reservation at any moment.
        self._condition = threading.Condition(threading.RLock())
        self._queue = SimpleQueue[_Task[T, R] | None]()
        self._threads: list[threading.Thread] = []
        self._count = self._turn = self._pixels_held = 0
        self._turns_over: set[int] = set()
        self._admitted_anyway: _Task[T, R] | None = None
        self._last_release = time.monotonic()

    def __call__(self, items: Iterable[T]) -> Iterator[R | None]:
        """Yield the results in order, and None where there is nothing for a while.

        An error of ``work`` is raised at its item's turn. When ``items`` itself fails or is interrupted, what was under
        way is yielded first, then the error is raised.
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
                        pause = self._is_pause(item)
                        if not pause:
                            under_way.append(self._submit(item))
                if ended and not under_way:
                    break
                for _ in range(len(under_way) if pause or ended else 1):
                    yield from self._wait_for_first(under_way)
                if pause:
                    yield None
            if trouble is not None:
                raise trouble
        finally:
            self._close(under_way)

    # ---- in the caller's thread

    def _submit(self, item: T) -> _Task[T, R]:
        task: _Task[T, R] = _Task(item, self._count)
        self._count += 1
        if len(self._threads) < self._workers:
            self._start_thread()
        self._queue.put(task)
        return task

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name="camcli reading", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system starts no more threads; fewer will do
            if not self._threads:
                raise
            self._workers = len(self._threads)
        else:
            self._threads.append(thread)

    def _wait_for_first(self, under_way: deque[_Task[T, R]]) -> Iterator[R | None]:
        """Yield the first result under way when it is ready, and None after each wait without it."""
        task = under_way[0]
        task.wanted_since = time.monotonic()
        while not self._wait_until_ready(task):
            yield None
        under_way.popleft()
        if task.result is not None and not task.timed_out and self._should_retry(task.result):
            yield None
            yield self._retry_serially(task, under_way)
        else:
            yield self._take_result(task)

    def _take_result(self, task: _Task[T, R]) -> R:
        if task.timed_out:
            return self._on_timeout(task.item)
        if task.error is not None:
            raise task.error
        result, task.result, task.reservation = task.result, None, None
        assert result is not None
        return result

    def _wait_until_ready(self, task: _Task[T, R]) -> bool:
        """Wait up to ``patience`` seconds for a result; return whether it is ready or has timed out."""
        until = time.monotonic() + self._patience
        with self._condition:
            while not task.done:
                now = time.monotonic()
                ends = [until]
                if self._timeout and task.began is not None:
                    ends.append(task.began + self._timeout)
                    if now >= ends[-1]:
                        self._abandon(task)
                        return True
                if task.is_waiting and self._admitted_anyway is not task:
                    ends.append(max(self._last_release, task.wanted_since) + self._stall_seconds)
                    if now >= ends[-1]:
                        self._admitted_anyway = task
                        self._condition.notify_all()
                        ends.pop()
                if now >= until:
                    return False
                self._condition.wait(min(ends) - now)
        return True

    def _abandon(self, task: _Task[T, R]) -> None:
        """Abandon a task, whose thread ends when it is done with it."""
        task.cancelled = task.timed_out = True
        self._threads = [thread for thread in self._threads if thread is not task.thread]
        self._end_turn(task)
        self._start_thread()

    def _retry_serially(self, task: _Task[T, R], under_way: deque[_Task[T, R]]) -> R:
        """Retry an item with nothing beside it, then submit those behind it again."""
        later = [other.item for other in under_way]
        with self._condition:
            self._max_pixels = max(1, self._max_pixels // 2)  # what was too much once would be too much again
            for other in under_way:
                other.cancelled = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: all(other.done for other in under_way), self._timeout or None)
            for other in under_way:
                if not other.done:
                    self._abandon(other)
                other.result, other.reservation = None, None
            task.result, task.reservation = None, None
            self._condition.wait_for(lambda: not self._pixels_held, self._stall_seconds)
        under_way.clear()
        retry = self._submit(task.item)
        retry.wanted_since = time.monotonic()
        while not self._wait_until_ready(retry):
            pass
        result = self._take_result(retry)
        under_way.extend(map(self._submit, later))
        return result

    def _close(self, under_way: Iterable[_Task[T, R]]) -> None:
        with self._condition:
            for task in under_way:
                task.cancelled = True
            self._condition.notify_all()
        for _ in self._threads:
            self._queue.put(None)
        end = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    # ---- in threads

    def _serve(self) -> None:
        while (task := self._queue.get()) is not None:
            self._run_task(task)
            if task.timed_out:
                return
            del task  # else it would keep the result until the next one comes

    def _run_task(self, task: _Task[T, R]) -> None:
        result: R | None = None
        error: BaseException | None = None
        if not task.cancelled:
            task.began, task.thread = time.monotonic(), threading.current_thread()
            try:
                result = self._work(task.item, partial(self._admit, task))
            except BaseException as trouble:
                error = trouble
        with self._condition:
            if not task.cancelled:
                task.result, task.error = result, error
            task.done, task.began = True, None
            self._end_turn(task)

    def _admit(self, task: _Task[T, R], pixels: int) -> Reservation:
        def fits() -> bool:
            return (
                not self._pixels_held or self._pixels_held + pixels <= self._max_pixels or self._admitted_anyway is task
            )

        with self._condition:
            if task.reservation is not None:  # it was admitted, failed, and is decoded in another way
                return task.reservation
            task.began, task.is_waiting = None, True
            self._condition.notify_all()
            self._condition.wait_for(lambda: task.cancelled or (task.number == self._turn and fits()))
            task.is_waiting = False
            if task.cancelled:
                raise _Cancelled
            task.began = time.monotonic()
            task.reservation = Reservation(pixels, self._return_pixels)
            self._pixels_held += pixels
            self._end_turn(task)
            return task.reservation

    def _end_turn(self, task: _Task[T, R]) -> None:
        """End the turn of a task, which was admitted or needs no room."""
        if task.number >= self._turn:
            self._turns_over.add(task.number)
        while self._turn in self._turns_over:
            self._turns_over.remove(self._turn)
            self._turn += 1
        self._condition.notify_all()

    def _return_pixels(self, pixels: int) -> None:
        with self._condition:
            self._pixels_held -= pixels
            self._last_release = time.monotonic()
            self._condition.notify_all()
