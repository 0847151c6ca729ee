"""What files list picture by picture, and how they name pictures: by path, from several folders."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from camcli.errors import PictureError, RequestError
from camcli.paths import absolute

if TYPE_CHECKING:
    import _csv

T = TypeVar("T")

# How the first row of a CSV file may call the column of pictures.
PICTURE_COLUMNS = ("picture", "image", "file", "filename", "path", "source")
# How many names a message lists.
MOST_NAMES = 5


class Names:
    """Which pictures the names in a file stand for.

    A picture is named by its path: as it stands, from the file's folder, or from one of ``folders``.

    Args:
        file: the file.
        folders: the folders that pictures are taken from.

    Attributes:
        surplus: what was named and nobody can find.
    """

    def __init__(self, file: Path, folders: Sequence[Path] = ()) -> None:
        self.file = file
        self.surplus: list[str] = []
        self._bases = list(dict.fromkeys(base.absolute() for base in [Path(), file.parent, *folders]))

    def find(self, name: str, where: str) -> Path | None:
        """The picture of this name, as :func:`normal` has it; None if there is none, which is kept in ``surplus``.

        Args:
            name: as the file has it.
            where: in the file, such as ``line 3``, for messages.

        Raises:
            RequestError: two folders have one.
        """
        # A name that is no path at all, such as one with a NUL in it, is nobody's.
        bases = self._bases if name and "\0" not in name else []
        places = {normal(base / name) for base in bases if (base / name).exists()}
        if len(places) > 1:
            raise RequestError(
                f"{self.file}, {where}: {name!r} can be {len(places)} pictures: " + ", ".join(sorted(map(str, places))),
                "write its whole path",
            )
        if not places:
            self.surplus.append(name)
            return None
        return places.pop()


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file can list of pictures.

    Attributes:
        noun: what one is called: ``target``.
        meaning: what is written for one: ``class``.
        columns: how the first row of a CSV file may call its column; any other first row is data.
        example: one, for messages.
    """

    noun: str
    meaning: str
    columns: tuple[str, ...]
    example: str


# Files of these types list picture by picture.
JSON_LINES = (".jsonl", ".ndjson", ".json")


class Listing(Generic[T]):
    """What a file lists picture by picture.

    The file is CSV with a picture and a word a row (a first row ``picture,target`` may stand above; further columns are
    further words, unless the first row names one), or JSONL with ``{"picture": ..., "target": ...}`` a line, which is a
    word or a list of them. Several rows of one picture are several words. A picture is named by its path: as it stands,
    from the file's folder, or from one of ``folders``.

    Args:
        file: the file.
        kind: what it lists.
        meant: from a word to what it stands for.
        folders: the folders that pictures are taken from.

    Attributes:
        surplus: what the file lists and nobody can find.

    Raises:
        RequestError: the file cannot be read; a row is malformed, has a word that stands for nothing, or a picture that
            two folders have.
    """

    def __init__(self, file: Path, kind: Kind, meant: Callable[[str], T], folders: Sequence[Path] = ()) -> None:
        self.file, self.kind = file, kind
        self._found: dict[Path, list[T]] = {}
        names = Names(file, folders)
        self.surplus = names.surplus
        find = cache(meant)
        for line, picture, words in _rows(file, kind):
            try:
                found = [find(word) for word in words]
            except RequestError as error:
                raise RequestError(f"{file}, line {line} ({picture!r}): {error.message}", error.hint) from None
            place = names.find(picture, f"line {line}")
            if place is not None:
                self._found.setdefault(place, []).extend(found)

    def of(self, path: Path) -> tuple[T, ...]:
        """What is listed for a picture, in order, each once; nothing if the file does not list it."""
        return tuple(dict.fromkeys(self._found.get(normal(path), ())))

    def pictures(self) -> list[Path]:
        """Those that are listed and there, as :func:`normal` has them."""
        return list(self._found)

    def wanted(self, path: Path) -> tuple[T, ...]:
        """What is listed for a picture.

        Raises:
            PictureError: nothing is.
        """
        found = self.of(path)
        if not found:
            raise PictureError(
                f"{self.file} lists no {self.kind.noun} for this picture",
                f"add a line with its path and {self.kind.meaning}",
            )
        return found

    def unused(self, paths: Iterator[Path]) -> list[str]:
        """What the file lists and none of the pictures of the run is."""
        left = set(self._found) - {normal(path) for path in paths}
        return [*self.surplus, *sorted(map(str, left))]

    def check(self, paths: Iterator[Path]) -> None:
        """See that every picture is listed.

        Raises:
            RequestError: some are not.
        """
        names, missing, met = lacking(self._found, paths)
        if missing:
            raise RequestError(
                f"{self.file} lists {self.kind.noun}s of {met} of the {met + missing} pictures; not of "
                f"{several(names, missing)}",
                f"add a line with path and {self.kind.meaning} for each, or leave those pictures out",
            )


def normal(path: Path) -> Path:
    """The path by which a picture is known, however it was named."""
    return Path(absolute(path))


def lacking(known: Iterable[Path], paths: Iterator[Path]) -> tuple[list[str], int, int]:
    """Of the pictures of a run: the first names that are not among those known, how many are not, and how many are.

    Args:
        known: paths as :func:`normal` has them.
        paths: of the pictures.
    """
    there = frozenset(known)
    names: list[str] = []
    missing = met = 0
    for path in paths:
        if normal(path) in there:
            met += 1
            continue
        missing += 1
        if len(names) < MOST_NAMES:
            names.append(str(path))
    return names, missing, met


def several(names: Sequence[str], count: int) -> str:
    """The first names of so many, in words."""
    shown = names[:MOST_NAMES]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")


def _rows(file: Path, kind: Kind) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, picture and words of each row."""
    what = f"the {kind.noun}s file {str(file)!r}"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"{what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 text") from error
    reader: Callable[[str, Kind], Iterator[tuple[int, str, list[str]]]]
    reader = _json_rows if file.suffix.lower() in JSON_LINES else _csv_rows
    empty = True
    try:
        for line, picture, words in reader(text, kind):
            empty = False
            if not picture or not words or not all(words):
                raise RequestError(
                    f"{file}, line {line}: a picture and its {kind.noun} are needed, but one is missing",
                    f'write picture,{kind.noun} or {{"picture": "a.jpg", "{kind.noun}": "{kind.example}"}}',
                )
            yield line, picture, words
    except ValueError as error:
        raise RequestError(f"{what} cannot be read: {error}") from error
    if empty:
        raise RequestError(f"{what} lists nothing")


def _well_formed(reader: _csv.Reader) -> Iterator[list[str]]:
    """The rows, until one is no CSV; the error then says which."""
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error})") from error


def _csv_rows(text: str, kind: Kind) -> Iterator[tuple[int, str, list[str]]]:
    reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    columns: list[int] | None = None
    picture_column = 0
    for number, row in enumerate(_well_formed(reader)):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        titles = [cell.lower() for cell in cells]
        if number == 0 and set(titles) & set(PICTURE_COLUMNS) and set(titles) & set(kind.columns):
            picture_column = next(at for at, title in enumerate(titles) if title in PICTURE_COLUMNS)
            columns = [at for at, title in enumerate(titles) if title in kind.columns]
            continue
        wanted = columns if columns is not None else range(1, len(cells))
        words = [cells[at] for at in wanted if at < len(cells) and cells[at]]
        yield reader.line_num, cells[picture_column] if picture_column < len(cells) else "", words


def _json_rows(text: str, kind: Kind) -> Iterator[tuple[int, str, list[str]]]:
    # Not splitlines(): JSON may hold other line ends, such as U+2028, as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        picture = next((row[key] for key in PICTURE_COLUMNS if key in row), "")
        given: Any = next((row[key] for key in kind.columns if key in row), [])
        words = given if isinstance(given, list) else [given]
        if not isinstance(picture, str) or not all(type(word) in (str, int) for word in words):
            raise ValueError(
                f"line {number}: a picture is a path, its {kind.noun} a {kind.meaning} or a list of several"
            )
        yield number, picture, [str(word) for word in words]
