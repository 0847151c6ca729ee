"""Ledger of the images that are done or failed: ``outcomes.jsonl``, or a similar file, read back to resume."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Generic

from camcli.base import atomic
from camcli.base.errors import OutputError
from camcli.base.log import LOGGER
from camcli.images.naming import MARK
from camcli.images.own_outputs import find_line_records
from camcli.runs.job.shard import Shard
from camcli.runs.record import folder
from camcli.runs.record.compact import compact, drop_torn_end, make_line_filter
from camcli.runs.record.earlier import NameRoots, ResultIndex, has_all_files, is_result_of
from camcli.runs.record.folder import Folder
from camcli.runs.record.heads import Block, has_result, is_whole
from camcli.runs.record.join import find_other_files, join_shards
from camcli.runs.record.lines import LineFile, R, hash_text
from camcli.runs.record.states import FAILED, HAS_RESULT, States
from camcli.runs.record.store_folder import open_folder

FILE = "outcomes.jsonl"
# Separates, in a picture's stamp, what else its maps depend on: the pictures of its group, concepts found in several.
STAMP_SEPARATOR = "+"
# Replaced lines of which no file can go stay in the record of many images as long as they are so few in it.
FEW_BLOCKS = 2_000
REPLACED_SHARE = 0.05


class Ledger(Generic[R]):
    """Outcomes in an output folder, one JSON line for each image and target.

    All lines of an image are written at once, so that after a crash it is recorded whole or is done again. An image's
    later lines replace its earlier ones, but a failure never replaces a result: a line stays as long as no later run
    did the image whole, or wrote over one of its files. Replaced lines are dropped, with the files that only they
    name, when the ledger is closed or next opened; in a large ledger a few with which no file goes stay meanwhile.
    Whether an image has its files is seen when it is looked up. Memory: four numbers for each image of earlier runs.

    Args:
        path: the output folder; made if need be, and locked for this run.
        job: fingerprint of the job under way.
        line_type: type of the lines, a dataclass.
        wanted: digits for the looks of each file that an outcome must have to count as done, by kind; default: all
            files that it names, whatever their looks.
        file: name of the ledger in the folder.
        durable: flush lines and files to the disk before going on.
        accepted: returns the fingerprints of earlier jobs whose outcomes count as this one's; called once the folder is
            locked, with it.
        shard: the shard whose images are done, with a ledger of its own: outcomes in the folder's ledger, and in those
            of shards of other numbers of them, count, and stay as they are. Without one, the lines of shards' ledgers
            are moved to the folder's.
        say: told what is waited for.

    Attributes:
        folder: the output folder.
        recorded: number of images that had outcomes when it was opened.
        empty: there were no outcomes when it was opened.
        roots: folders that the names of pictures with a result are relative to.
        has_marked_names: a picture's name may have a mark, since another has the name.
        jobs_found: fingerprints of all jobs that had outcomes here when it was opened.
        replaced: number of results that later ones replaced, found when it was opened.

    Raises:
        RequestError: another run writes to the folder now, or the file is not a ledger.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        job: str,
        line_type: Callable[..., R],
        wanted: Mapping[str, str] | None = None,
        file: str = FILE,
        durable: bool = False,
        accepted: Callable[[Folder], Iterable[str]] = lambda folder: (),
        shard: Shard | None = None,
        say: Callable[[str], None] = LOGGER.info,
    ) -> None:
        self._wanted = wanted
        self._states = States()
        self._found_done: set[int] = set()  # images that failed after a result, which was found to be done
        self._other_jobs: dict[int, str] = {}  # images with another job's lines, to its fingerprint
        self._to_drop: frozenset[int] = frozenset()  # those of these that are to be dropped
        self._needs_compacting = False
        self._file: IO[bytes] | None = None
        self.jobs_found: set[str] = set()
        self.roots = NameRoots()
        self.has_marked_names = False
        self.folder = open_folder(path, durable, shard, say)
        self._lines = LineFile(self.folder.records / file, line_type)
        try:
            self._own_jobs = frozenset([job, *accepted(self.folder)])
            if shard is None:
                join_shards(self.folder, self._lines)
            files = [*find_other_files(self._lines, self.folder.path, shard), self._lines]
            self._index = ResultIndex(files, self._own_jobs, self._states)
            for place, block in self._index.iter_blocks():
                if shard is None or shard.holds(block[0].name):
                    self._add_block(block, place)
            self._states.settle()
            self.replaced = self._states.results_replaced
            self.recorded = len(self._states)
            self.empty = not self.recorded
            self.tidy(wholly=False)
        except BaseException:
            self.folder.close()
            raise

    def __enter__(self) -> Ledger[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.tidy(wholly=False)
        finally:
            if self._file is not None:
                self._file.close()
            self._index.clear()
            self.folder.close()

    @property
    def other_jobs(self) -> set[str]:
        """Fingerprints of other jobs that have outcomes here."""
        return set(self._other_jobs.values())

    def is_done(self, name: str, stamp: str) -> bool:
        """Return whether an image, unchanged, is done under this job, with all its files."""
        key = hash_text(name)
        if not stamp or self._states.get(key) != hash_text(stamp) or not self._has_files(key):
            return False
        failed_later = self._states.failed_later
        if key in failed_later:  # it failed in a later run, but need not be done again
            failed_later.discard(key)
            self._found_done.add(key)
            self._states.replaced += 1
        return True

    def find_result(self, name: str, stamp: str) -> list[R]:
        """Return the outcomes of a picture, unchanged, that has a whole result of this job; empty if there is none.

        Files that are wanted now may be missing, or drawn in another way.
        """
        key = hash_text(name)
        state = self._states.get(key)
        if not stamp or state == FAILED:
            return []
        if state == HAS_RESULT:
            return self._index.find(name, stamp)
        return list(map(self._lines.parse, self._index.read_last(key))) if state == hash_text(stamp) else []

    def has_earlier_result(self, name: str) -> bool:
        """Return whether an earlier run left a result of an image, even if it is outdated or another job's."""
        return bool(self._states.get(hash_text(name)))

    def is_changed(self, name: str, stamp: str) -> bool:
        """Return whether an image that was done under this job has changed since."""
        key = hash_text(name)
        known = self._states.get(key)
        return bool(stamp) and known % 2 == 1 and known != hash_text(stamp) and self._has_files(key)

    def find_unnamed(self, named: Iterable[str], own: bool = False) -> list[str]:
        """Return the images with results of other jobs, or of this one, that are not among those named."""
        left = set(self._states if own else self._other_jobs) - {hash_text(name) for name in named}
        found = (block[0] for _, block in (self._lines.iter_blocks() if left else ()) if has_result(block))
        names = dict.fromkeys(first.name for first in found if (first.job in self._own_jobs) is own)
        return [name for name in names if hash_text(name) in left]

    def drop_others(self) -> None:
        """Drop the results of other jobs, with their files, except for images that this run has processed."""
        self._to_drop = frozenset(self._other_jobs)
        self._needs_compacting |= bool(self._to_drop)
        self.tidy(wholly=False)

    def append(self, outcomes: Sequence[R], replacing: bool = False) -> None:
        """Record all outcomes of one image.

        Args:
            outcomes: all of them, in order.
            replacing: this run has recorded the image before.

        Raises:
            OutputError: they cannot be written; earlier lines stay whole.
        """
        key = hash_text(outcomes[0].name)
        assert self._file is not None  # open throughout the with block
        self.folder.check()
        before = self._file.seek(0, 2)
        lines = [outcome.as_line() for outcome in outcomes]
        left = memoryview(b"".join(lines))
        try:
            while left:
                left = left[self._file.write(left) :]
            if self.folder.durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # else the line stays torn, and goes when the ledger is opened next
                self._file.truncate(before)
            raise OutputError(f"{self._lines.path} cannot be written to: {error.strerror}") from error
        self._needs_compacting |= replacing
        self._other_jobs.pop(key, None)
        self._found_done.discard(key)
        heads = [self._lines.parse_head(line) for line in lines]
        self._states.update(key, HAS_RESULT if has_result(heads) else FAILED, _make_mark(heads))

    def iter_pictures(self) -> Iterator[list[R]]:
        """Yield the outcomes of this job, image by image, for images that have a result, whole or in part.

        Those that are recorded meanwhile are left out.
        """
        self.tidy()
        for _, block in self._lines.iter_blocks(self._lines.path.stat().st_size):
            if block[0].job in self._own_jobs and has_result(block):
                yield list(map(self._lines.parse, block))

    def _add_block(self, block: Block, place: int) -> None:
        """Add one image's lines to what is known."""
        first = block[0]
        key = hash_text(first.name)
        own = first.job in self._own_jobs
        if own and is_whole(block):
            failed, state = False, hash_text(first.stamp)
        else:
            failed = not has_result(block)
            state = FAILED if failed else HAS_RESULT
        self._states.add(key, state, _make_mark(block), place)
        if not failed:
            self.roots.add(first.name, first.root)
            self.has_marked_names |= MARK in first.name
        self.jobs_found.add(first.job)
        if not own:
            self._other_jobs[key] = sys.intern(first.job)
        elif not failed and self._other_jobs:
            self._other_jobs.pop(key, None)

    def _has_files(self, key: int) -> bool:
        """Return whether an image's last result has all files that are wanted."""
        return has_all_files(self._index.read_last(key), self.folder.find_size, self._wanted)

    def tidy(self, wholly: bool = True) -> None:
        """Drop a torn end and replaced lines, and open the ledger to append.

        Args:
            wholly: also of a large ledger, where they are few and no file goes with them.

        Raises:
            OutputError: it cannot be written to, or a file cannot be deleted.
        """
        path = self._lines.path
        self.folder.check()
        states = self._states
        many = states.blocks <= FEW_BLOCKS or states.replaced > REPLACED_SHARE * states.blocks
        try:
            if self._file is not None:
                self._file.close()
            drop_torn_end(path)
            if self._needs_compacting or states.files_go or (states.replaced and (many or wholly)):
                self._index.clear()
                unwanted = self._to_drop
                stays = make_line_filter(
                    self._lines,
                    lambda key, head: key in unwanted and head.job not in self._own_jobs,
                    self._found_done,
                )
                trouble = compact(self._lines, self.folder, stays)
                self._needs_compacting = False
                states.clear_replaced()
                self._found_done.clear()
                if trouble:
                    raise trouble
            self._file = path.open("ab", buffering=0)
            if self.folder.durable:
                atomic.sync(self.folder.records)
        except OSError as error:
            raise OutputError(f"{path} cannot be written to: {error.strerror}") from error


def _make_mark(block: Block) -> int:
    """Return a number that is equal for blocks of the same job with the same files."""
    files = block[0].files if len(block) == 1 else tuple(head.files for head in block)
    return hash((block[0].job, files)) & 0xFFFF_FFFF_FFFF_FFFF


def read_stamps(
    path: Path,
    jobs: Container[str],
    line_type: Callable[..., R],
    wanted: Mapping[str, str] | None = None,
    file: str = FILE,
    find_size: Callable[[str], int] | None = None,
    shard: Shard | None = None,
) -> States:
    """Read which images are done, with the hash of their own file's stamp; the folder is neither locked nor made.

    Args:
        path: the output folder.
        jobs: fingerprints of the jobs whose outcomes count.
        line_type, wanted, file: as for :class:`Ledger`.
        find_size: returns the size of a file there, if the folder has only its records.
        shard: the shard whose images are looked at; default: all.

    Raises:
        RequestError: the file cannot be read, or is not a ledger.
    """
    states = States()
    find_size = find_size or partial(folder.find_size, path)
    for lines in (LineFile(record, line_type) for record in find_line_records(path, file)):
        for place, block in lines.iter_blocks():
            first = block[0]
            if has_result(block) and (shard is None or shard.holds(first.name)):
                done = is_result_of(block, jobs) and has_all_files(block, find_size, wanted)
                own = first.stamp.partition(STAMP_SEPARATOR)[0]
                states.add(hash_text(first.name), hash_text(own) if done else HAS_RESULT, 0, place)
    states.settle()
    return states
