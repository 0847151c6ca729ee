"""What is done and what failed: ``outcomes.jsonl``, read back to resume."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import filelock

from camcli.errors import RequestError
from camcli.job import Outcome

FILE = "outcomes.jsonl"
LOCK = ".camcli.lock"

# The lines of one picture from one run, each as read and as written.
Block = list[tuple[dict[str, Any], bytes]]


class Ledger:
    """The outcomes under one output folder, one JSON line for each picture and target.

    All lines of a picture are written in one piece, so that after a crash it is there whole or is done again. A later
    run's lines replace a picture's earlier ones; they are dropped when the ledger is closed or next opened. Memory:
    two small numbers for each picture done before.

    Args:
        folder: the output folder; made if need be.
        job: the fingerprint of the job under way.
        kept: which of an outcome's files must still exist for it to count as done; default: all.

    Attributes:
        others: fingerprints of other jobs whose outcomes lie here.

    Raises:
        RequestError: another run writes here now, or the file is not a ledger.
    """

    def __init__(
        self, folder: Path, job: str, kept: Callable[[dict[str, str]], Sequence[str]] = lambda files: [*files.values()]
    ) -> None:
        self.folder = folder
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
            raise RequestError(f"the output folder {str(folder)!r} cannot be written to: {error.strerror}") from error
        try:
            for block in self._blocks():
                first = block[0][0]
                self.others.add(first["job"])
                name = _hash(first["name"])
                self._replaced |= name in self._done
                self._done[name] = _hash(first["stamp"]) if self._is_done(block, kept) else 0
            self.others.discard(job)
            self._settle()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle()
        if self._file is not None:
            self._file.close()
        self._lock.release()
        (self.folder / LOCK).unlink(missing_ok=True)

    def done(self, name: str, stamp: str) -> bool:
        """Whether this picture, unchanged, is done under this job, with all its files."""
        return bool(stamp) and self._done.get(_hash(name)) == _hash(stamp)

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Record all outcomes of one picture."""
        name = _hash(outcomes[0].name)
        self._replaced |= name in self._done
        self._done.setdefault(name, 0)
        assert self._file is not None  # open from the beginning to the end of the with block
        self._file.write(b"".join(outcome.as_line() for outcome in outcomes))

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes of this job that are not failures, picture by picture."""
        self._settle()
        for block in self._blocks():
            for values, _ in block:
                if values["job"] == self._job and not values["error"]:
                    yield Outcome(**{**values, "notes": tuple(values["notes"]), "peak": tuple(values["peak"])})

    def _is_done(self, block: Block, kept: Callable[[dict[str, str]], Sequence[str]]) -> bool:
        return (
            block[0][0]["part"].endswith(f"/{len(block)}")
            and all(values["job"] == self._job and not values["error"] for values, _ in block)
            and all((self.folder / file).is_file() for values, _ in block for file in kept(values["files"]))
        )

    def _lines(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        path = self.folder / FILE
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # torn by a crash; its picture is not whole and will be done again
                try:
                    values = json.loads(line)
                    values["name"], values["run"], values["job"], values["part"], values["files"]
                except (ValueError, TypeError, KeyError) as error:
                    raise RequestError(
                        f"{path}, line {number}, is not an outcome of camcli",
                        "choose another --out, or move the file away",
                    ) from error
                yield values, line

    def _blocks(self) -> Iterator[Block]:
        for _, lines in itertools.groupby(self._lines(), key=lambda line: (line[0]["name"], line[0]["run"])):
            yield list(lines)

    def _settle(self) -> None:
        """Leave the ledger without replaced lines and without a torn end, open to be appended to."""
        path = self.folder / FILE
        if self._file is not None:
            self._file.close()
        if self._replaced or (path.exists() and _is_torn(path)):
            self._compact(path)
        self._file = path.open("ab", buffering=0)

    def _compact(self, path: Path) -> None:
        """Drop replaced lines and a torn end, and the files that only replaced lines name."""
        latest: dict[int, int] = {}
        for number, block in enumerate(self._blocks()):
            latest[_hash(block[0][0]["name"])] = number
        temporary = path.with_name(f".{FILE}.tmp")
        dropped: set[str] = set()
        kept: set[str] = set()
        with temporary.open("wb") as file:
            for number, block in enumerate(self._blocks()):
                current = latest[_hash(block[0][0]["name"])] == number
                if current:
                    file.writelines(line for _, line in block)
                if not current or dropped:
                    # A replaced block comes before the one that replaces it.
                    (kept if current else dropped).update(
                        name for values, _ in block for name in values["files"].values()
                    )
        temporary.replace(path)
        for name in dropped - kept:
            if (self.folder / name).resolve().is_relative_to(self.folder.resolve()):
                (self.folder / name).unlink(missing_ok=True)
        self._replaced = False


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        if not file.tell():
            return False
        file.seek(-1, 2)
        return file.read() != b"\n"


def _hash(text: str) -> int:
    # 63 bits: two of a million pictures collide with a chance of 1 in 10 million. Never 0, which says "not done".
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") | 1
