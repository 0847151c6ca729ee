"""What is done and what failed: ``outcomes.jsonl``, or another such file, read back to resume."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic

from camcli.base import atomic
from camcli.base.errors import OutputError
from camcli.runs.record.compact import compact, find_staying, is_torn
from camcli.runs.record.folder import Folder, plain
from camcli.runs.record.lines import Block, LineFile, R, has_result, hash_text, is_whole

FILE = "outcomes.jsonl"
# What is known of a picture that is not done, where done ones have their stamp's hash, which is odd.
FAILED, STANDS = 0, 2


class Ledger(Generic[R]):
    """The outcomes under one output folder, one JSON line for each picture and target.

    All lines of a picture are written in one piece, so that after a crash it is there whole or is done again. A
    picture's later lines replace its earlier ones, but a failure never replaces a result: a line stays as long as no
    later run did the picture whole, or wrote over one of its files. Replaced lines are dropped, with the files that
    only they name, when the ledger is closed or next opened. Memory: two numbers for each picture of earlier runs.

    Args:
        path: the output folder; made if need be, and held for this run alone.
        job: the fingerprint of the job under way.
        kind: what a line is, which is a dataclass.
        kept: which of an outcome's files must still be there for it to count as done; default: all.
        file: its name in the folder.
        durable: lines and files are on the disk before it goes on.
        accepted: gives the fingerprints of earlier jobs whose outcomes count as this one's; asked when the folder is
            held.

    Attributes:
        folder: the output folder.
        empty: there were no outcomes when it was opened.
        met: fingerprints of all jobs whose outcomes lay here when it was opened.

    Raises:
        RequestError: another run writes here now, or the file is not a ledger.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        job: str,
        kind: Callable[..., R],
        kept: Callable[[dict[str, str]], Sequence[str]] = lambda files: [*files.values()],
        file: str = FILE,
        durable: bool = False,
        accepted: Callable[[], Iterable[str]] = lambda: (),
    ) -> None:
        self._lines = LineFile(path / file, kind)
        self._known: dict[int, int] = {}  # a picture's name, hashed, to its stamp under this job, likewise, or a word
        self._doubted: set[int] = set()  # whose last lines are a failure behind a result
        self._cleared: set[int] = set()  # of these, those that were found to be done
        self._others: dict[int, str] = {}  # whose lines are another job's
        self._unwanted: frozenset[int] = frozenset()  # of these, those to be dropped
        self._replaced = False
        self._file: IO[bytes] | None = None
        self.met: set[str] = set()
        self.folder = Folder(path, durable)
        try:
            self._own = frozenset([job, *accepted()])
            for block in self._lines.blocks():
                self._take(block, kept)
            self.empty = not self._known
            self._settle()
        except BaseException:
            self.folder.close()
            raise

    def __enter__(self) -> Ledger[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._settle()
        finally:
            if self._file is not None:
                self._file.close()
            self.folder.close()

    @property
    def others(self) -> set[str]:
        """Fingerprints of other jobs whose outcomes lie here."""
        return set(self._others.values())

    def done(self, name: str, stamp: str) -> bool:
        """Whether this picture, unchanged, is done under this job, with all its files."""
        if not self.same(name, stamp):
            return False
        key = hash_text(name)
        if key in self._doubted:  # it could not be done since, and need not be
            self._doubted.discard(key)
            self._cleared.add(key)
            self._replaced = True
        return True

    def same(self, name: str, stamp: str) -> bool:
        """Likewise, of a picture that is to be done again all the same."""
        return bool(stamp) and self._known.get(hash_text(name)) == hash_text(stamp)

    def stands(self, name: str) -> bool:
        """Whether an earlier run left a result of this picture, be it old or another job's."""
        return bool(self._known.get(hash_text(name)))

    def changed(self, name: str, stamp: str) -> bool:
        """Whether a picture that this job did is not any more what it was."""
        known = self._known.get(hash_text(name), FAILED)
        return bool(stamp) and known % 2 == 1 and known != hash_text(stamp)

    def left(self, named: Iterable[str], own: bool = False) -> list[str]:
        """The pictures with results of other jobs, or of this one, that are not among those named."""
        there = self._known.keys() if own else self._others.keys()
        left = there - {hash_text(name) for name in named}
        found = (block[0][0] for block in (self._lines.blocks() if left else ()) if has_result(block))
        names = dict.fromkeys(first["name"] for first in found if (first["job"] in self._own) is own)
        return [name for name in names if hash_text(name) in left]

    def drop_others(self) -> None:
        """Drop the results of other jobs, but of pictures that this run has met, and their files."""
        self._unwanted = frozenset(self._others)
        self._replaced |= bool(self._unwanted)
        self._settle()

    def append(self, outcomes: Sequence[R], replacing: bool = False) -> None:
        """Record all outcomes of one picture.

        Args:
            outcomes: all of them, in order.
            replacing: this run has recorded the picture before.

        Raises:
            OutputError: they cannot be written; what stood there stays whole.
        """
        key = hash_text(outcomes[0].name)
        failed = all(outcome.error and not outcome.files for outcome in outcomes)
        assert self._file is not None  # open from the beginning to the end of the with block
        self.folder.check()
        before = self._file.seek(0, 2)
        left = memoryview(b"".join(outcome.as_line() for outcome in outcomes))
        try:
            while left:
                left = left[self._file.write(left) :]
            if self.folder.durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # else the line stays torn, and goes when the ledger is opened next
                self._file.truncate(before)
            raise OutputError(f"{self._lines.path} cannot be written to: {error.strerror}") from error
        self._replaced |= replacing
        self._others.pop(key, None)
        self._cleared.discard(key)
        if key in self._known:
            self._note(key, failed, STANDS)

    def pictures(self) -> Iterator[list[R]]:
        """The outcomes of this job, picture by picture; of pictures that have a result, in whole or in part."""
        self._settle()
        for block in self._lines.blocks():
            if block[0][0]["job"] in self._own and has_result(block):
                yield [self._lines.parse(values) for values, _ in block]

    def _take(self, block: Block, kept: Callable[[dict[str, str]], Sequence[str]]) -> None:
        """Know of one picture's lines."""
        first = block[0][0]
        key = hash_text(first["name"])
        failed = not has_result(block)
        done = all(values["job"] in self._own for values, _ in block) and _holds_all(self.folder, block, kept)
        self._note(key, failed, hash_text(first["stamp"]) if done else STANDS)
        self.met.add(first["job"])
        if first["job"] not in self._own:
            self._others[key] = sys.intern(first["job"])
        elif not failed:
            self._others.pop(key, None)

    def _note(self, key: int, failed: bool, state: int) -> None:
        """One more block of a picture: whether it replaces any, and what is known of the picture now."""
        before = self._known.get(key)
        if failed and before:  # a result stays what it is, and so does its line
            self._replaced |= key in self._doubted
            self._doubted.add(key)
            return
        self._replaced |= before is not None
        self._doubted.discard(key)
        self._known[key] = FAILED if failed else state

    def _settle(self) -> None:
        """Leave the ledger without replaced lines and without a torn end, open to be appended to."""
        path = self._lines.path
        self.folder.check()
        try:
            if self._file is not None:
                self._file.close()
            if self._replaced or (path.exists() and is_torn(path)):
                unwanted = self._unwanted
                stays = find_staying(
                    self._lines, lambda key, values: key in unwanted and values["job"] not in self._own, self._cleared
                )
                trouble = compact(self._lines, self.folder, stays)
                self._replaced = False
                self._cleared.clear()
                if trouble:
                    raise trouble
            self._file = path.open("ab", buffering=0)
            if self.folder.durable:
                atomic.sync(self.folder.path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written to: {error.strerror}") from error


def _holds_all(folder: Folder, block: Block, kept: Callable[[dict[str, str]], Sequence[str]]) -> bool:
    """Whether a picture was done whole, and all files are there that its lines must keep."""
    return is_whole(block) and all(_are_there(folder, values, frozenset(kept(values["files"]))) for values, _ in block)


def _are_there(folder: Folder, values: dict[str, Any], needed: frozenset[str]) -> bool:
    """Whether these of a line's files are there, and as long as they were: a crash can leave them cut short."""
    for kind, file in values["files"].items():
        if file not in needed:
            continue
        try:
            found = (folder.path / file).stat() if plain(file) else None
        except OSError:
            found = None
        least = max(1, values["sizes"].get(kind, 1))
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size < least:
            return False
    return True
