"""Threads that work ahead of a slow consumer, in order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count, islice, takewhile
from queue import SimpleQueue
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    work: Callable[[T], R],
    items: Iterable[T | None],
    workers: int,
    depth: int,
    is_pause: Callable[[T], bool] = lambda item: False,
    eager: bool = False,
) -> Generator[R, None, None]:
    """Yield ``map(work, items)`` with up to ``depth`` results under way in ``workers`` threads.

    ``items`` is consumed in the caller's thread, so it may be a generator that computes: while it computes the next
    item, the threads work on the last ones. Order is kept; an error of ``work`` is raised at its item's turn. When
    ``items`` itself fails or is interrupted, what was under way is yielded first, then the error is raised. Closing the
    iterator drops what has not begun, waits for what has, and closes ``items`` if that is a generator.

    Where no other item comes for a while, ``items`` yields None, or an item of which ``is_pause`` is true; then all
    that is under way is yielded.

    With ``eager`` a result that is there is yielded when the next item comes, even if fewer than ``depth`` are under
    way: for items that take long, and not for work ahead of a slow consumer, which would have less done beforehand.
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
            pause = item is None or is_pause(item)
            if item is not None:
                under_way.append(pool.submit(work, item))
            del item  # else it would be kept until the next one comes
            while under_way and (pause or len(under_way) >= depth or (eager and under_way[0].done())):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
        if trouble is not None:
            raise trouble
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # Else it would go on reading for as long as somebody holds the error.
        if isinstance(rest, Generator):
            rest.close()


def iterate_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Iterate over items that are computed in a thread, up to ``depth`` ahead; an error is raised at its turn."""
    source, end = iter(items), object()
    computed: Iterator[Any] = map_ahead(lambda _: next(source, end), count(), 1, depth)
    return takewhile(lambda one: one is not end, computed)


def map_over(
    work: Callable[[S, T], R],
    items: Iterable[T],
    resources: Sequence[S],
    is_pause: Callable[[T], bool] = lambda item: False,
) -> Iterator[R]:
    """Yield ``work(resource, item)`` of each item, in order, with a free resource; each does one item at a time.

    A single resource works in the caller's thread, and an item is taken when the last one's result was. Of several each
    has its own thread, and at most twice as many items as resources are held; for the rest, and for ``is_pause``, see
    :func:`map_ahead`.
    """
    if len(resources) == 1:
        yield from map(partial(work, resources[0]), items)
        return
    free = SimpleQueue[S]()
    for resource in resources:
        free.put(resource)

    def run_on_free(item: T) -> R:
        # There are as many threads as resources, so one is free.
        resource = free.get()
        try:
            return work(resource, item)
        finally:
            free.put(resource)

    yield from map_ahead(run_on_free, items, len(resources), 2 * len(resources), is_pause)


def batched(
    items: Iterable[T | None],
    size: int,
    is_counted: Callable[[T], bool] = lambda item: True,
    weight: Callable[[T], int] = lambda item: 0,
    max_weight: int = 1,
) -> Generator[list[T], None, None]:
    """Yield lists of items, in order, each with at most ``size`` that count; the others keep their places.

    Args:
        items: None says that no other comes for a while; it ends a list, and an empty list follows.
        size: maximum number of items that count.
        is_counted: true of an item that counts.
        weight: weight of an item.
        max_weight: maximum weight of a list, unless it has a single item that is heavier.
    """
    batch: list[T] = []
    counted = weighs = 0
    for item in items:
        heavy = 0 if item is None else weight(item)
        if batch and (item is None or weighs + heavy > max_weight):
            yield batch
            batch, counted, weighs = [], 0, 0
        if item is None:
            yield []
            continue
        batch.append(item)
        counted, weighs = counted + is_counted(item), weighs + heavy
        # Those that do not count must not pile up either.
        if counted == size or len(batch) >= 4 * size or weighs >= max_weight:
            del item  # else it would outlive its batch
            yield batch
            batch, counted, weighs = [], 0, 0
    if batch:
        yield batch


def split_by_length(items: Iterable[T], length: Callable[[T], int]) -> Generator[list[T], None, None]:
    """Yield lists of items, in order, each as long as ``length`` of its first item."""
    rest = iter(items)
    for first in rest:
        yield [first, *islice(rest, length(first) - 1)]
