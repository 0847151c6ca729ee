"""Files with a JSON line for each image and target, read by blocks: the lines of one image from one run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from threading import Lock
from typing import IO, Any, Generic, Protocol, Self, TypeVar, cast, runtime_checkable

from camcli.base.errors import RequestError
from camcli.runs.record.heads import Head, make_head, make_pattern, parse_head


@runtime_checkable
class Line(Protocol):
    """Protocol of a ledger's lines, which are dataclasses of plain values."""

    @property
    def source(self) -> str:
        """The image's path, as it was given."""

    @property
    def page(self) -> int:
        """Page of its file; 0 where pages are not counted."""

    @property
    def name(self) -> str:
        """Output name of the image."""

    @property
    def stamp(self) -> str:
        """Size and modification time of the image's file."""

    @property
    def run(self) -> str:
        """Id of the run that wrote the line."""

    @property
    def root(self) -> str:
        """Folder that the name is relative to."""

    @property
    def files(self) -> dict[str, str]:
        """Paths of the files by kind, relative to the output folder."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the files by kind, where known."""

    @property
    def looks(self) -> dict[str, str]:
        """Digits for how the files were drawn by kind, where that is not as by default."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader."""

    @property
    def error(self) -> str | None:
        """Reason why there is no result, or not all of it."""

    def as_line(self) -> bytes:
        """Return it as one JSON line, ended by a newline."""

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """Make a line from its JSON values."""


R = TypeVar("R", bound=Line)


class LineFile(Generic[R]):
    """File of lines, read again for each iteration over its blocks, so that memory does not grow with it.

    Args:
        path: path of the file.
        line_type: type of the lines, a dataclass.
    """

    def __init__(self, path: Path, line_type: Callable[..., R]) -> None:
        self.path = path
        self._line_type = cast("Any", line_type)
        self._field_names = frozenset(one.name for one in fields(self._line_type))
        self._defaults = _find_defaults(self._line_type)
        self._pattern = make_pattern([one.name for one in fields(self._line_type)])
        self._open: IO[bytes] | None = None
        self._lock = Lock()  # threads that write images look blocks up too

    def at(self, path: Path) -> LineFile[R]:
        """Return another file of such lines."""
        return LineFile(path, self._line_type)

    def iter_blocks(self, end: int | None = None) -> Iterator[tuple[int, list[Head]]]:
        """Yield the lines of each image from each run, and the byte where they begin.

        Args:
            end: bytes of the file that are read; default: all.

        Raises:
            RequestError: the file cannot be read, or has other lines; of usual lines only the heads are checked.
        """
        block: list[Head] = []
        start = offset = 0
        for number, line in self._iter_lines(end):
            head = self.parse_head(line, number)
            if block and (head.part.startswith("1/") or head.name != block[0].name or head.run != block[0].run):
                yield start, block
                start, block = offset, []
            block.append(head)
            offset += len(line)
        if block:
            yield start, block

    def read_block(self, offset: int) -> list[Head]:
        """Return the lines of an image from one run, which begin at a byte of the file.

        The file stays open until :meth:`close`.
        """
        found: list[Head] = []
        with self._lock:
            if self._open is None:
                self._open = self.path.open("rb")
            self._open.seek(offset)
            count = 1
            while len(found) < count:
                head = self.parse_head(self._open.readline())
                count = int(head.part.partition("/")[2])
                found.append(head)
        return found

    def close(self) -> None:
        """Close the file, which is about to be written anew, if it is open."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def parse(self, head: Head) -> R:
        """Return the object that a line was written from.

        Raises:
            RequestError: it is not of this version.
        """
        try:
            found: R = self._line_type.read(self._parse_line(head.line))
            return found
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise self._make_error(f": the line of {head.name!r}") from error

    def parse_head(self, line: bytes, number: int = 0) -> Head:
        """Return the head of a line, whose number is for the message of an error."""
        return parse_head(line, self._pattern) or make_head(self._parse_line(line, number), line)

    def _iter_lines(self, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        path = self.path
        try:
            if not os.path.lexists(path):
                return
            if not path.is_file():
                raise RequestError(f"{path} is not a file", "choose another --out, or move it away")
            with path.open("rb") as file:
                read = 0
                for number, line in enumerate(file, start=1):
                    read += len(line)
                    if not line.endswith(b"\n") or (end is not None and read > end):
                        return  # torn by a crash; its image is not whole and will be done again
                    yield number, line
        except OSError as error:
            raise RequestError(
                f"{path} cannot be read: {error.strerror}", "choose another --out, or move the file away"
            ) from error

    def _parse_line(self, line: bytes, number: int = 0) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict) and _is_valid_line(found := {**self._defaults, **values}, self._field_names):
            return found
        raise self._make_error(f", line {number},")

    def _make_error(self, where: str) -> RequestError:
        return RequestError(
            f"{self.path}{where} is not a record of this version of camcli",
            "choose another --out, or move the file away",
        )


def hash_text(text: str) -> int:
    """Return an odd number of 64 bits that stands for a text, in this process."""
    # Two of a million images collide with a chance of 1 in 10 million. Odd, since even numbers are states.
    return hash(text) & 0xFFFF_FFFF_FFFF_FFFF | 1


def _find_defaults(line_type: Any) -> dict[str, Any]:
    """Return the defaults of fields that a line may lack, as one of an earlier version does."""
    made = ((one.name, one.default_factory) for one in fields(line_type) if one.default_factory is not MISSING)
    given = {one.name: one.default for one in fields(line_type) if one.default is not MISSING}
    return given | {name: make() for name, make in made}


def _is_valid_line(values: dict[str, Any], names: frozenset[str]) -> bool:
    """Return whether these are a line's values, as far as a ledger uses them."""
    words = ("source", "name", "stamp", "job", "run", "part", "root")
    files, sizes, error = values.get("files"), values.get("sizes"), values.get("error")
    return (
        values.keys() == names
        and all(isinstance(values[name], str) for name in words)
        and isinstance(files, dict)
        and all(isinstance(file, str) for file in files.values())
        and isinstance(sizes, dict)
        and all(isinstance(size, int) for size in sizes.values())
        and isinstance(values.get("looks"), dict)
        and isinstance(error, str | None)
    )
