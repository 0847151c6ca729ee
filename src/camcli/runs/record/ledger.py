"""What is done and what failed: ``outcomes.jsonl``, or another such file, read back to resume."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError
from camcli.runs.record.folder import Folder, plain
from camcli.runs.record.outcome import Compared, Outcome

FILE = "outcomes.jsonl"
# What is known of a picture that is not done, where done ones have their stamp's hash, which is odd.
FAILED, STANDS = 0, 2

# What a line is.
R = TypeVar("R", Outcome, Compared)
# The lines of one picture from one run, each as read and as written.
Block = list[tuple[dict[str, Any], bytes]]


class Ledger(Generic[R]):
    """The outcomes under one output folder, one JSON line for each picture and target.

    All lines of a picture are written in one piece, so that after a crash it is there whole or is done again. A
    picture's later lines replace its earlier ones, but a failure never replaces a result: a line stays as long as no
    later run did the picture whole, or wrote over one of its files. Replaced lines are dropped, with the files that
    only they name, when the ledger is closed or next opened. Memory: two numbers for each picture of earlier runs.

    Args:
        path: the output folder; made if need be, and held for this run alone.
        job: the fingerprint of the job under way.
        kind: what a line is.
        kept: which of an outcome's files must still be there for it to count as done; default: all.
        file: its name in the folder.
        durable: lines and files are on the disk before it goes on.
        accepted: gives the fingerprints of earlier jobs whose outcomes count as this one's; asked when the folder is
            held.

    Attributes:
        folder: the output folder.
        met: fingerprints of all jobs whose outcomes lay here when it was opened.

    Raises:
        RequestError: another run writes here now, or the file is not a ledger.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        job: str,
        kind: type[R],
        kept: Callable[[dict[str, str]], Sequence[str]] = lambda files: [*files.values()],
        file: str = FILE,
        durable: bool = False,
        accepted: Callable[[], Container[str]] = lambda: (),
    ) -> None:
        self._kind: type[R] = kind
        self._path = path / file
        self._names = frozenset(one.name for one in fields(kind))
        self._defaults = _defaults(kind)
        self._job = job
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
            self._accepted = accepted()
            for block in self._blocks():
                self._take(block, kept)
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

    @property
    def empty(self) -> bool:
        """Whether there were no outcomes when it was opened."""
        return not self._known

    def done(self, name: str, stamp: str) -> bool:
        """Whether this picture, unchanged, is done under this job, with all its files."""
        if not self.same(name, stamp):
            return False
        key = _hash(name)
        if key in self._doubted:  # it could not be done since, and need not be
            self._doubted.discard(key)
            self._cleared.add(key)
            self._replaced = True
        return True

    def same(self, name: str, stamp: str) -> bool:
        """Likewise, of a picture that is to be done again all the same."""
        return bool(stamp) and self._known.get(_hash(name)) == _hash(stamp)

    def stands(self, name: str) -> bool:
        """Whether an earlier run left a result of this picture, be it old or another job's."""
        return bool(self._known.get(_hash(name)))

    def changed(self, name: str, stamp: str) -> bool:
        """Whether a picture that this job did is not any more what it was."""
        known = self._known.get(_hash(name), FAILED)
        return bool(stamp) and known % 2 == 1 and known != _hash(stamp)

    def left(self, named: Iterable[str], own: bool = False) -> list[str]:
        """The pictures with results of other jobs, or of this one, that are not among those named."""
        there = self._known.keys() if own else self._others.keys()
        left = there - {_hash(name) for name in named}
        found = (block[0][0] for block in (self._blocks() if left else ()) if _has_result(block))
        names = dict.fromkeys(first["name"] for first in found if self._is_own(first) is own)
        return [name for name in names if _hash(name) in left]

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
        key = _hash(outcomes[0].name)
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
            raise OutputError(f"{self._path} cannot be written to: {error.strerror}") from error
        self._replaced |= replacing
        self._others.pop(key, None)
        self._cleared.discard(key)
        if key in self._known:
            self._note(key, failed, STANDS)

    def pictures(self) -> Iterator[list[R]]:
        """The outcomes of this job, picture by picture; of pictures that have a result, in whole or in part."""
        self._settle()
        for block in self._blocks():
            if self._is_own(block[0][0]) and _has_result(block):
                yield [self._read(values) for values, _ in block]

    def _take(self, block: Block, kept: Callable[[dict[str, str]], Sequence[str]]) -> None:
        """Know of one picture's lines."""
        first = block[0][0]
        key = _hash(first["name"])
        failed = not _has_result(block)
        self._note(key, failed, _hash(first["stamp"]) if self._is_done(block, kept) else STANDS)
        self.met.add(first["job"])
        if not self._is_own(first):
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

    def _is_done(self, block: Block, kept: Callable[[dict[str, str]], Sequence[str]]) -> bool:
        return (
            _is_whole(block)
            and all(self._is_own(values) for values, _ in block)
            and all(self._is_there(values, frozenset(kept(values["files"]))) for values, _ in block)
        )

    def _is_own(self, values: dict[str, Any]) -> bool:
        """Whether a line is this job's, or one that counts as its."""
        return values["job"] == self._job or values["job"] in self._accepted

    def _is_there(self, values: dict[str, Any], needed: frozenset[str]) -> bool:
        """Whether these of a line's files are there, and as long as they were: a crash can leave them cut short."""
        for kind, file in values["files"].items():
            if file not in needed:
                continue
            try:
                found = (self.folder.path / file).stat() if plain(file) else None
            except OSError:
                found = None
            least = max(1, values["sizes"].get(kind, 1))
            if found is None or not stat.S_ISREG(found.st_mode) or found.st_size < least:
                return False
        return True

    def _lines(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        path = self._path
        try:
            if not os.path.lexists(path):
                return
            if not path.is_file():
                raise RequestError(f"{path} is no file", "choose another --out, or move it away")
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        return  # torn by a crash; its picture is not whole and will be done again
                    yield self._values(line, number), line
        except OSError as error:
            raise RequestError(
                f"{path} cannot be read: {error.strerror}", "choose another --out, or move the file away"
            ) from error

    def _values(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict) and _is_sound(found := {**self._defaults, **values}, self._names):
            return found
        raise self._unknown(f", line {number},")

    def _read(self, values: dict[str, Any]) -> R:
        try:
            return self._kind.read(values)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise self._unknown(f": the line of {values['name']!r}") from error

    def _unknown(self, where: str) -> RequestError:
        return RequestError(
            f"{self._path}{where} is not an outcome of this version of camcli",
            "choose another --out, or move the file away",
        )

    def _blocks(self) -> Iterator[Block]:
        block: Block = []
        for values, line in self._lines():
            last = block[0][0] if block else values
            if block and (
                values["part"].startswith("1/") or values["name"] != last["name"] or values["run"] != last["run"]
            ):
                yield block
                block = []
            block.append((values, line))
        if block:
            yield block

    def _settle(self) -> None:
        """Leave the ledger without replaced lines and without a torn end, open to be appended to."""
        path = self._path
        self.folder.check()
        try:
            if self._file is not None:
                self._file.close()
            if self._replaced or (path.exists() and _is_torn(path)):
                self._compact(path)
            self._file = path.open("ab", buffering=0)
            if self.folder.durable:
                atomic.sync(self.folder.path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written to: {error.strerror}") from error

    def _compact(self, path: Path) -> None:
        """Drop replaced lines, those not wanted and a torn end; and the files that only they name."""
        stays = self._staying()
        kept = {
            _hash(name)
            for number, block in enumerate(self._blocks())
            for values, _ in block
            if stays(number, values)
            for name in values["files"].values()
        }
        temporary = atomic.temporary(self.folder.path)
        try:
            with temporary.open("xb") as file:
                for number, block in enumerate(self._blocks()):
                    file.writelines(line for values, line in block if stays(number, values))
                if self.folder.durable:
                    file.flush()
                    os.fsync(file.fileno())
            # First the files, while the old ledger still says that they can go: a crash between loses none of them.
            trouble = self._remove_all(stays, kept)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._replaced = False
        self._cleared.clear()
        if trouble:
            raise trouble

    def _staying(self) -> Callable[[int, dict[str, Any]], bool]:
        """Whether a line stays, by the number of its block and its values."""
        since: dict[int, int] = {}  # a picture to the last block of it that is whole
        trailing: dict[int, int] = {}  # to the last block of it behind that
        for number, block in enumerate(self._blocks()):
            key = _hash(block[0][0]["name"])
            if _is_whole(block):
                since[key] = number
                trailing.pop(key, None)
            else:
                since.setdefault(key, number)
                trailing[key] = number
        named = {
            _hash(file): number
            for number, block in enumerate(self._blocks() if trailing else ())
            if _hash(block[0][0]["name"]) in trailing
            for values, _ in block
            for file in values["files"].values()
        }

        def stays(number: int, values: dict[str, Any]) -> bool:
            key = _hash(values["name"])
            if number < since[key] or (key in self._unwanted and not self._is_own(values)):
                return False
            failed = bool(values["error"]) and not values["files"]
            if number == trailing.get(key, since[key]):
                return not (failed and key in self._cleared)
            return not failed and all(named[_hash(file)] == number for file in values["files"].values())

        return stays

    def _remove_all(self, stays: Callable[[int, dict[str, Any]], bool], kept: set[int]) -> OSError | None:
        """Delete the files of lines that go, unless others name them; the first that could not be."""
        trouble: OSError | None = None
        for number, block in enumerate(self._blocks()):
            gone = (name for values, _ in block if not stays(number, values) for name in values["files"].values())
            for name in gone:
                file = None if _hash(name) in kept else self.folder.inside(name)
                try:
                    if file is not None:
                        file.unlink(missing_ok=True)
                except OSError as error:
                    trouble = trouble or error
        return trouble


def _is_whole(block: Block) -> bool:
    return block[0][0]["part"] == f"1/{len(block)}" and not any(values["error"] for values, _ in block)


def _has_result(block: Block) -> bool:
    return any(values["files"] or not values["error"] for values, _ in block)


def _defaults(kind: type[Outcome] | type[Compared]) -> dict[str, Any]:
    """What a line need not say, as one of an earlier version, with what it then means."""
    made = ((one.name, one.default_factory) for one in fields(kind) if one.default_factory is not MISSING)
    given = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
    return given | {name: make() for name, make in made}


def _is_sound(values: dict[str, Any], names: frozenset[str]) -> bool:
    """Whether these are a line's values, as far as a ledger has to do with them."""
    words = ("source", "name", "stamp", "job", "run", "part")
    files, sizes, error = values.get("files"), values.get("sizes"), values.get("error")
    return (
        values.keys() == names
        and all(isinstance(values[name], str) for name in words)
        and isinstance(files, dict)
        and all(isinstance(file, str) for file in files.values())
        and isinstance(sizes, dict)
        and all(isinstance(size, int) for size in sizes.values())
        and isinstance(error, str | None)
    )


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read() != b"\n"


def _hash(text: str) -> int:
    # 63 bits: two of a million pictures collide with a chance of 1 in 10 million. Odd, since even numbers are words.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") | 1
