"""Threads, and nothing else: work ahead of a slow consumer, in order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


def ahead(
    work: Callable[[T], R],
    items: Iterable[T | None],
    workers: int,
    depth: int,
    pauses: Callable[[T], bool] = lambda item: False,
) -> Iterator[R]:
    """``map(work, items)`` with up to ``depth`` results under way in ``workers`` threads.

    ``items`` is drawn in the caller's thread, so a generator that computes may stand before it: while it computes the
    next item, the threads work on the last ones. Order is kept; an error of ``work`` is raised at its item's turn. When
    ``items`` itself fails or is interrupted, what was under way is handed over first, then the error is raised.
    Closing the iterator drops what has not begun and waits for what has.

    Where no other item comes for a while, ``items`` gives None, or an item of which ``pauses`` says so; then all that
    is under way is handed over.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix=getattr(work, "__name__", "ahead"))
    under_way: deque[Future[R]] = deque()
    rest = iter(items)
    trouble: BaseException | None = None
    try:
        while True:
            try:
                item = next(rest)
            except StopIteration:
                break
            except BaseException as error:
                trouble = error
                break
            pause = item is None or pauses(item)
            if item is not None:
                under_way.append(pool.submit(work, item))
            del item  # or it would be kept until the next one comes
            while under_way and (pause or len(under_way) >= depth):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
        if trouble is not None:
            raise trouble
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def spread(
    work: Callable[[S, T], R], items: Iterable[T], seats: Sequence[S], pauses: Callable[[T], bool] = lambda item: False
) -> Iterator[R]:
    """``work(seat, item)`` of each item, in order, by whichever seat is free; a seat does one item at a time.

    A single seat works in the caller's thread, and an item is drawn when the last one's result was taken. Of several
    each has a thread of its own, and twice as many items as seats are held at most; for the rest, and for ``pauses``,
    see :func:`ahead`.
    """
    if len(seats) == 1:
        yield from map(partial(work, seats[0]), items)
        return
    free = SimpleQueue[S]()
    for seat in seats:
        free.put(seat)

    def spread(item: T) -> R:
        # There are as many threads as seats, so one is free.
        seat = free.get()
        try:
            return work(seat, item)
        finally:
            free.put(seat)

    yield from ahead(spread, items, len(seats), 2 * len(seats), pauses)


def batched(
    items: Iterable[T | None],
    size: int,
    counts: Callable[[T], bool] = lambda item: True,
    weight: Callable[[T], int] = lambda item: 0,
    most: int = 1,
) -> Generator[list[T], None, None]:
    """Lists of items, in order, each with at most ``size`` that count; the others ride along in their place.

    Args:
        items: None says that no other comes for a while; it ends a list, and an empty list follows.
        size: how many.
        counts: whether an item does.
        weight: of an item.
        most: what a list weighs at most, unless it has a single item that is heavier.
    """
    batch: list[T] = []
    counted = weighs = 0
    for item in items:
        heavy = 0 if item is None else weight(item)
        if batch and (item is None or weighs + heavy > most):
            yield batch
            batch, counted, weighs = [], 0, 0
        if item is None:
            yield []
            continue
        batch.append(item)
        counted, weighs = counted + counts(item), weighs + heavy
        # Those that do not count must not pile up either.
        if counted == size or len(batch) >= 4 * size or weighs >= most:
            del item  # or it would outlive its batch
            yield batch
            batch, counted, weighs = [], 0, 0
    if batch:
        yield batch


def pieces(items: Iterable[T], length: Callable[[T], int]) -> Generator[list[T], None, None]:
    """Lists of items, in order, each as long as its first item says."""
    rest = iter(items)
    for first in rest:
        yield [first, *islice(rest, length(first) - 1)]
