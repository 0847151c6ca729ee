"""Earlier results in a ledger: where they are, whether they have what is wanted now, and whose names they have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Generic

from camcli.runs.record.folder import is_plain_path
from camcli.runs.record.heads import Block, Head, has_result, is_whole
from camcli.runs.record.lines import LineFile, R, hash_text
from camcli.runs.record.states import States

_read_json = json.JSONDecoder().raw_decode  # in half the time of json.loads, which looks for spaces around


class ResultIndex(Generic[R]):
    """Results in files of lines: the last of each image, and the last whole ones of a job, found when first asked for.

    Args:
        files: the files; results in later ones count, and only the last is written to.
        jobs: fingerprints whose results count as the job's.
        states: know where the last result of each image begins.
    """

    def __init__(self, files: Sequence[LineFile[R]], jobs: Container[str], states: States) -> None:
        self._files = files
        self._jobs = jobs
        self._states = states
        self._has_moved = False
        self._places: dict[int, int] | None = None  # hashed name to where the last result begins

    def clear(self) -> None:
        """Forget where results are and close the files, since the last is to be written anew."""
        self._places = None
        self._has_moved = True
        for file in self._files:
            file.close()

    def iter_blocks(self) -> Iterator[tuple[int, list[Head]]]:
        """Yield the lines of each image from each run, and the place where they begin."""
        for number, file in enumerate(self._files):
            for offset, block in file.iter_blocks():
                yield offset * len(self._files) + number, block

    def read_last(self, key: int) -> Block:
        """Return the lines of the last result of an image that has one."""
        if self._has_moved:
            for place, block in self.iter_blocks():
                if has_result(block):
                    self._states.move(hash_text(block[0].name), place)
            self._has_moved = False
        return self._read(self._states.get_place(key))

    def find(self, name: str, stamp: str) -> list[R]:
        """Return the lines of an image's result; empty if it has none, or has changed since."""
        if self._places is None:
            self._places = self._find_places()
        place = self._places.get(hash_text(name))
        if place is None:
            return []
        found = [self._files[-1].parse(head) for head in self._read(place)]
        return found if found[0].stamp == stamp else []

    def _find_places(self) -> dict[int, int]:
        return {
            hash_text(block[0].name): place for place, block in self.iter_blocks() if is_result_of(block, self._jobs)
        }

    def _read(self, place: int) -> Block:
        offset, number = divmod(place, len(self._files))
        return self._files[number].read_block(offset)


class NameRoots:
    """Folders that the names of pictures with a result are relative to; all but the most common one by picture."""

    def __init__(self) -> None:
        self._first = ""
        self._others: dict[int, str] = {}

    def add(self, name: str, root: str) -> None:
        """Add an image; the folder is empty if it is not known."""
        self._first = self._first or root
        if root and root == self._first:
            if self._others:
                self._others.pop(hash_text(name), None)
        else:
            self._others[hash_text(name)] = sys.intern(root)

    def find(self, name: str) -> str:
        """Return the folder that the name of an image that was added is relative to; empty if it is not known."""
        return self._others.get(hash_text(name), self._first)


def is_result_of(block: Block, jobs: Container[str]) -> bool:
    """Return whether an image was done whole by one of these jobs."""
    return is_whole(block) and block[0].job in jobs


def has_all_files(block: Block, find_size: Callable[[str], int], wanted: Mapping[str, str] | None = None) -> bool:
    """Return whether the files of an image's lines exist as they were written: those wanted, or all that are named."""
    for one in block:
        # One call of the parser, since each takes as long as a file is looked at.
        mappings, _ = _read_json(f"[{one.files}, {one.looks}, {one.sizes}]")
        if not has_wanted_files(find_size, wanted, *mappings):
            return False
    return True


def has_wanted_files(
    find_size: Callable[[str], int],
    wanted: Mapping[str, str] | None,
    files: Mapping[str, str],
    looks: Mapping[str, str],
    sizes: Mapping[str, int],
) -> bool:
    """Return whether a line has the files that are wanted, drawn as they are wanted.

    Args:
        find_size: returns the size of a file in the output folder; 0 if there is none.
        wanted: digits for the looks of each file by kind; None for all that the line names, whatever their looks.
        files, looks, sizes: those of the line, by kind.
    """
    for kind in files if wanted is None else wanted:
        if kind not in files or (wanted is not None and looks.get(kind, "") != wanted[kind]):
            return False
        if not has_file(find_size, files[kind], sizes.get(kind)):
            return False
    return True


def has_file(find_size: Callable[[str], int], file: str, size: int | None = None) -> bool:
    """Return whether a line's file exists, not empty, and has the size it was written with.

    A crash can truncate a file. One of another size was written by a run that was killed before it wrote its line.
    """
    found = find_size(file) if is_plain_path(file) else 0
    return found > 0 and (size is None or found == size)
