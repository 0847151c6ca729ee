"""Files with one JSON line for each picture and target, read block by block: the lines of one picture from one run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, cast, runtime_checkable

from camcli.base.errors import RequestError


@runtime_checkable
class Line(Protocol):
    """What a ledger needs of its lines, which are dataclasses of plain values."""

    @property
    def name(self) -> str:
        """The picture's output name."""

    @property
    def stamp(self) -> str:
        """The picture's size and time of change."""

    @property
    def run(self) -> str:
        """The run that wrote the line."""

    @property
    def files(self) -> dict[str, str]:
        """Kind to path, relative to the output folder."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""

    @property
    def error(self) -> str | None:
        """Why there is nothing, or not all."""

    def as_line(self) -> bytes:
        """It as one JSON line, ended by a newline."""

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """One as JSON has it."""


R = TypeVar("R", bound=Line)
# The lines of one picture from one run, each as read and as written.
Block = list[tuple[dict[str, Any], bytes]]


class LineFile(Generic[R]):
    """A file of lines; read again each time that it is asked for its blocks, so that memory does not grow with it.

    Args:
        path: where it is.
        kind: what a line is, which is a dataclass.
    """

    def __init__(self, path: Path, kind: Callable[..., R]) -> None:
        self.path = path
        self._kind = cast("Any", kind)
        self._names = frozenset(one.name for one in fields(self._kind))
        self._defaults = _defaults(self._kind)

    def blocks(self) -> Iterator[Block]:
        """Picture by picture its lines, a run's at a time.

        Raises:
            RequestError: the file cannot be read, or is none of such lines.
        """
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

    def parse(self, values: dict[str, Any]) -> R:
        """A line as the value that it was written of.

        Raises:
            RequestError: it is not of this version.
        """
        try:
            found: R = self._kind.read(values)
            return found
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise self._unknown(f": the line of {values['name']!r}") from error

    def _lines(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        path = self.path
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

    def _unknown(self, where: str) -> RequestError:
        return RequestError(
            f"{self.path}{where} is not an outcome of this version of camcli",
            "choose another --out, or move the file away",
        )


def is_whole(block: Block) -> bool:
    """Whether a picture was done with all its maps."""
    return block[0][0]["part"] == f"1/{len(block)}" and not any(values["error"] for values, _ in block)


def has_result(block: Block) -> bool:
    """Whether anything of a picture was done."""
    return any(values["files"] or not values["error"] for values, _ in block)


def hash_text(text: str) -> int:
    """An odd number that stands for a text."""
    # 63 bits: two of a million pictures collide with a chance of 1 in 10 million. Odd, since even numbers are words.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") | 1


def _defaults(kind: Any) -> dict[str, Any]:
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
