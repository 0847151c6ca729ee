"""Sizes of the objects in an output folder, held in 16 bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from threading import Lock

import numpy as np

from camcli.runs.store.store import Entry, Store

# Changes that are held apart, in more bytes, before they are put among what was listed.
MAX_CHANGES = 50_000


class Sizes:
    """Sizes of objects: as listed when one is first asked for, and as this run has changed them since.

    Args:
        store: the folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed: dict[int, int] = {}
        self._listed: tuple[np.ndarray, np.ndarray] | None = None
        self._lock = Lock()  # threads that write ask too

    def set(self, name: str, size: int) -> None:
        """Set the size of an object that was put; 0 of one that was deleted."""
        with self._lock:
            if self._listed is None:  # the listing will have it
                return
            self._changed[_hash(name)] = size
            if len(self._changed) > MAX_CHANGES:
                keys, sizes = self._listed
                changed = np.fromiter(self._changed, np.uint64), np.fromiter(self._changed.values(), np.uint64)
                left = ~np.isin(keys, changed[0])
                self._listed = _sort(np.append(keys[left], changed[0]), np.append(sizes[left], changed[1]))
                self._changed.clear()

    def get(self, name: str) -> int:
        """Return the size of an object; 0 if there is none.

        Raises:
            OutputError: the store cannot be listed.
        """
        key = _hash(name)
        with self._lock:
            if self._listed is None:
                self._listed = _collect(self._store.iter_entries())
            if (size := self._changed.get(key)) is not None:
                return size
            keys, sizes = self._listed
            place = int(np.searchsorted(keys, np.uint64(key)))
            return int(sizes[place]) if place < len(keys) and keys[place] == key else 0


def _collect(entries: Iterable[Entry]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashed names of objects, in order, and the size of each."""
    keys, sizes = array("Q"), array("Q")
    for name, size in entries:
        keys.append(_hash(name))
        sizes.append(size)
    return _sort(np.array(keys, np.uint64), np.array(sizes, np.uint64))


def _sort(keys: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys)
    return keys[order], sizes[order]


def _hash(name: str) -> int:
    # Of two million objects two have the same with a chance of 1 in 10 million.
    return hash(name) & 0xFFFF_FFFF_FFFF_FFFF
