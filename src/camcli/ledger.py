"""What is done and what failed: ``outcomes.jsonl``, or another such file, read back to resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

import filelock

from camcli.errors import OutputError, RequestError
from camcli.job import Compared, Outcome

FILE = "outcomes.jsonl"
LOCK = ".camcli.lock"

# What a line is.
R = TypeVar("R", Outcome, Compared)
# The lines of one picture from one run, each as read and as written.
Block = list[tuple[dict[str, Any], bytes]]


class Ledger(Generic[R]):
    """The outcomes under one output folder, one JSON line for each picture and target.

    All lines of a picture are written in one piece, so that after a crash it is there whole or is done again. A
    picture's later lines replace its earlier ones; replaced lines are dropped, with the files that only they name,
    when the ledger is closed or next opened. Memory: two numbers for each picture that an earlier run has done.

    Args:
        folder: the output folder; made if need be.
        job: the fingerprint of the job under way.
        kind: what a line is.
        kept: which of an outcome's files must still exist for it to count as done; default: all.
        replace: drop the outcomes of other jobs, and their files.
        file: its name in the folder.

    Attributes:
        others: fingerprints of other jobs whose outcomes lie here.

    Raises:
        RequestError: another run writes here now, or the file is not a ledger.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        job: str,
        kind: type[R],
        kept: Callable[[dict[str, str]], Sequence[str]] = lambda files: [*files.values()],
        replace: bool = False,
        file: str = FILE,
    ) -> None:
        self.folder = folder
        self._kind: type[R] = kind
        self._path = folder / file
        self._names = frozenset(field.name for field in fields(kind))
        self.others: set[str] = set()
        self._job = job
        self._done: dict[int, int] = {}  # a picture's name to its stamp under this job, or to 0; both hashed
        self._replaced = False
        self._file: IO[bytes] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(folder / LOCK, timeout=0)
            self._lock.acquire()
        except filelock.Timeout:
            raise RequestError(
                f"another run is writing to {str(folder)!r}", "wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise OutputError(f"the output folder {str(folder)!r} cannot be written to: {error.strerror}") from error
        try:
            for block in self._blocks():
                first = block[0][0]
                name = _hash(first["name"])
                self._replaced |= name in self._done or (replace and first["job"] != job)
                self.others.add(first["job"])
                self._done[name] = _hash(first["stamp"]) if self._is_done(block, kept) else 0
            self.others.discard(job)
            self._settle(only=job if replace else None)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Ledger[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The lock's file stays: deleted, it could be held by two at a time.
        try:
            self._settle()
            if self._file is not None:
                self._file.close()
        finally:
            self._lock.release()

    def done(self, name: str, stamp: str) -> bool:
        """Whether this picture, unchanged, is done under this job, with all its files."""
        return bool(stamp) and self._done.get(_hash(name)) == _hash(stamp)

    def append(self, outcomes: Sequence[R], replacing: bool = False) -> None:
        """Record all outcomes of one picture.

        Args:
            outcomes: all of them, in order.
            replacing: this run has recorded the picture before.

        Raises:
            OutputError: they cannot be written; what stood there stays whole.
        """
        self._replaced |= replacing or _hash(outcomes[0].name) in self._done
        assert self._file is not None  # open from the beginning to the end of the with block
        before = self._file.seek(0, 2)
        left = memoryview(b"".join(outcome.as_line() for outcome in outcomes))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._file.truncate(before)
            raise OutputError(f"{self._path} cannot be written to: {error.strerror}") from error

    def pictures(self, failed: bool = False) -> Iterator[list[R]]:
        """The outcomes of this job, picture by picture; of pictures without failures, unless ``failed``."""
        self._settle()
        for block in self._blocks():
            if all(values["job"] == self._job and (failed or not values["error"]) for values, _ in block):
                yield [self._kind.read(values) for values, _ in block]

    def _is_done(self, block: Block, kept: Callable[[dict[str, str]], Sequence[str]]) -> bool:
        return (
            block[0][0]["part"] == f"1/{len(block)}"
            and all(values["job"] == self._job and not values["error"] for values, _ in block)
            and all((self.folder / file).is_file() for values, _ in block for file in kept(values["files"]))
        )

    def _lines(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        path = self._path
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # torn by a crash; its picture is not whole and will be done again
                try:
                    values = json.loads(line)
                    known = isinstance(values, dict) and values.keys() == self._names
                except ValueError:
                    known = False
                if not known:
                    raise RequestError(
                        f"{path}, line {number}, is not an outcome of this version of camcli",
                        "choose another --out, or move the file away",
                    )
                yield values, line

    def _blocks(self) -> Iterator[Block]:
        block: Block = []
        for values, line in self._lines():
            if block and (values["part"].startswith("1/") or values["name"] != block[0][0]["name"]):
                yield block
                block = []
            block.append((values, line))
        if block:
            yield block

    def _settle(self, only: str | None = None) -> None:
        """Leave the ledger without replaced lines and without a torn end, open to be appended to."""
        path = self._path
        try:
            if self._file is not None:
                self._file.close()
            if self._replaced or (path.exists() and _is_torn(path)):
                self._compact(path, only)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise OutputError(f"{path} cannot be written to: {error.strerror}") from error

    def _compact(self, path: Path, only: str | None) -> None:
        """Drop replaced lines, those of jobs other than ``only`` and a torn end; and the files that only they name."""
        latest: dict[int, int] = {}
        for number, block in enumerate(self._blocks()):
            latest[_hash(block[0][0]["name"])] = number

        def stays(number: int, block: Block) -> bool:
            first = block[0][0]
            return latest[_hash(first["name"])] == number and only in (None, first["job"])

        kept = {
            _hash(name)
            for number, block in enumerate(self._blocks())
            if stays(number, block)
            for values, _ in block
            for name in values["files"].values()
        }
        temporary = path.with_name(f".{path.name}.tmp")
        dropped = temporary.with_suffix(".dropped")
        with temporary.open("wb") as file, dropped.open("w") as names:
            for number, block in enumerate(self._blocks()):
                if stays(number, block):
                    file.writelines(line for _, line in block)
                else:
                    gone = (name for values, _ in block for name in values["files"].values())
                    names.writelines(json.dumps(name) + "\n" for name in gone if _hash(name) not in kept)
        # The files go last: until here the old ledger speaks for them.
        temporary.replace(path)
        with dropped.open() as names:
            for line in names:
                self._remove(json.loads(line))
        dropped.unlink()
        self._replaced = False

    def _remove(self, name: str) -> None:
        """Delete an output file, if the ledger's word for it stays in the folder."""
        file = self.folder / name
        if file.parent.resolve().is_relative_to(self.folder.resolve()):
            file.unlink(missing_ok=True)


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read() != b"\n"


def _hash(text: str) -> int:
    # 63 bits: two of a million pictures collide with a chance of 1 in 10 million. Never 0, which says "not done".
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") | 1
