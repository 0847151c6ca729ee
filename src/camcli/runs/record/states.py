"""States of the images of earlier runs: 32 bytes an image."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

# States of an image that is not done; done ones have their stamp's hash, which is odd.
FAILED, HAS_RESULT = 0, 2


class States:
    """State of each image of earlier runs: filled block by block, then settled and looked up.

    A block is the lines of one image from one run. A failure never replaces a result.

    Attributes:
        blocks: number of blocks that were added.
        replaced: number of those that later ones replaced, and whose lines can go.
        results_replaced: number of results among them.
        files_go: files of a replaced block are named by none that replaced it, and can go too.
        failed_later: images whose last block is a failure after a result.
    """

    def __init__(self) -> None:
        self.blocks = self.replaced = self.results_replaced = 0
        self.files_go = False
        self.failed_later: set[int] = set()
        self._found = 0, -1  # the image that was looked up last, and its number
        # Hashed name, state, hash of job and files, and place of the last block that counts, of each image.
        self._keys, self._states, self._marks, self._places = (array("Q") for _ in range(4))

    def add(self, key: int, state: int, mark: int, place: int) -> None:
        """Add a block, as long as they are not settled.

        Args:
            key: hashed name of its image.
            state: its state.
            mark: equal for blocks with the same job and files.
            place: where it begins.
        """
        self.blocks += 1
        self._keys.append(key)
        self._states.append(state)
        self._marks.append(mark)
        self._places.append(place)

    def settle(self) -> None:
        """Leave one state for each image, in the order of their hashes."""
        if not self._keys:
            return
        keys = np.frombuffer(self._keys, np.uint64)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        del keys
        read = self._keys, self._states, self._marks, self._places
        later = order[~first]
        order = order[first]
        self._keys, self._states, self._marks, self._places = (
            array("Q", np.frombuffer(column, np.uint64)[order].tobytes()) for column in read
        )
        for row in later:  # in the order in which they were added, image by image
            key, state, mark, place = (column[row] for column in read)
            self._replace(self._find(key), state, mark, place)

    def update(self, key: int, state: int, mark: int) -> None:
        """Take account of a further block of an image, if earlier runs left any."""
        self.blocks += 1
        number = self._find(key)
        if number >= 0:
            self._replace(number, state, mark, self._places[number])

    def get(self, key: int) -> int:
        """Return the state of an image."""
        number = self._find(key)
        return FAILED if number < 0 else self._states[number]

    def get_place(self, key: int) -> int:
        """Return where an image's last block with a result began when it was read."""
        return self._places[self._find(key)]

    def move(self, key: int, place: int) -> None:
        """Note where an image's last block with a result begins, now that the file is written anew."""
        number = self._find(key)
        if number >= 0:
            self._places[number] = place

    def clear_replaced(self) -> None:
        """Forget what was replaced, since it is gone."""
        self.blocks -= self.replaced
        self.replaced = 0
        self.files_go = False

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def _find(self, key: int) -> int:
        last, number = self._found  # an image is looked up several times in turn
        if last != key:
            number = bisect_left(self._keys, key)
            number = number if number < len(self._keys) and self._keys[number] == key else -1
            self._found = key, number
        return number

    def _replace(self, number: int, state: int, mark: int, place: int) -> None:
        key, before = self._keys[number], self._states[number]
        if state == FAILED and before != FAILED:
            self.replaced += key in self.failed_later
            self.failed_later.add(key)
            return
        self.replaced += 1 + (key in self.failed_later)
        self.failed_later.discard(key)
        if before != FAILED:
            self.results_replaced += 1
            self.files_go |= self._marks[number] != mark
        self._states[number], self._marks[number], self._places[number] = state, mark, place
