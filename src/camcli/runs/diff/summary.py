"""Summary of a comparison: quantiles of each measure, counts, and the maps that changed most."""

from __future__ import annotations

import heapq
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from camcli.base.errors import OutputError
from camcli.runs.diff import MEASURES, MapChange

T = TypeVar("T")
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(slots=True)
class ChangeCounts:
    """Numbers of maps: in both runs, in one alone, failed in both; and of those with equal maps and other classes."""

    both: int = 0
    base: int = 0
    new: int = 0
    none: int = 0
    equal: int = 0
    changed: int = 0
    predicted: int = 0

    def add(self, change: MapChange) -> None:
        """Add a map."""
        setattr(self, change.there, getattr(self, change.there) + 1)
        self.equal += change.equal is True
        self.changed += change.changed is True
        self.predicted += change.changed is not None


class Quantiles:
    """Exact quantiles of the measures of all maps, sorted on the disk, so that memory does not grow with them.

    Raises:
        OutputError: there is no room for temporary files.
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("")  # an empty name is a file that is gone when it is closed
        self._base.execute(f"create table changes ({', '.join(MEASURES)})")

    def close(self) -> None:
        """Drop the values."""
        self._base.close()

    def add(self, changes: Sequence[MapChange]) -> None:
        """Add maps that both runs have."""
        rows = [[getattr(one, name) for name in MEASURES] for one in changes if one.there == "both"]
        with _explaining():
            self._base.executemany(f"insert into changes values ({', '.join('?' * len(MEASURES))})", rows)

    def compute(self) -> dict[str, tuple[int, list[float]]]:
        """Return for each measure how many maps have it, and its quantiles: values of the nearest rank."""
        with _explaining():
            return {name: self._compute(name) for name in MEASURES}

    def _compute(self, name: str) -> tuple[int, list[float]]:
        with closing(self._base.cursor()) as cursor:
            [count] = cursor.execute(f"select count({name}) from changes").fetchone()
            ranks = [round(share * (count - 1)) for share in QUANTILES] if count else []
            found = cursor.execute(f"select {name} from changes where {name} is not null order by 1")
            values = {rank: value for rank, (value,) in enumerate(found) if rank in ranks}
        return count, [values[rank] for rank in ranks]


@contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(f"the numbers cannot be kept in the folder for temporary files: {error}") from error


class Worst(Generic[T]):
    """The maps that changed most: missing ones, undefined ones, then those of least Pearson's r.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, MapChange, T]] = []
        self._count = 0

    def add(self, change: MapChange, what: T) -> None:
        """Add a map that either run has, with what belongs to it."""
        self._count += 1
        item = find_badness(change), -self._count, change, what  # of equal ones the first
        if self._size:
            (heapq.heappush if len(self._heap) < self._size else heapq.heappushpop)(self._heap, item)

    def sort(self) -> list[tuple[MapChange, T]]:
        """Return them, worst first."""
        return [(change, what) for _, _, change, what in sorted(self._heap, key=lambda one: one[:2], reverse=True)]


def find_badness(change: MapChange) -> float:
    """Return a number that is higher for maps that changed more."""
    if change.there == "new":  # nothing is lost
        return -math.inf
    if change.there != "both":
        return math.inf
    if change.equal:
        return 0.0
    return 1e3 if change.pearson is None else 1 - change.pearson
