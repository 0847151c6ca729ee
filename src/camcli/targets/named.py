"""Targets that somebody named: for all pictures, by the picture's folder, or in a file picture by picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli.errors import PictureError, RequestError
from camcli.listed import PICTURE_COLUMNS, Names, normal

if TYPE_CHECKING:
    import _csv

    from torch import Tensor

    from camcli.labels import Labels
    from camcli.network import Network
    from camcli.targets import Target

# How the first row of a CSV file may call the column of targets, beside that of pictures; any other first row is data.
TARGET_COLUMNS = ("target", "targets", "class", "label", "labels")


def named_class(argument: str, network: Network) -> Target:
    """The class that the argument names, for every picture.

    Raises:
        RequestError: it names no class, or several.
    """
    index = network.labels.find(argument)
    return lambda path, scores: [index]


def of_folder(argument: str, network: Network) -> Target:
    """The class that the picture's folder is named after: an index, a name or a WordNet id.

    A picture whose folder names no class, or several, has a PictureError.

    Raises:
        RequestError: an argument was given; it takes none.
    """
    if argument:
        raise RequestError(f"the target 'folder' takes no argument, but {argument!r} was given")

    @cache
    def named(folder: str) -> int | PictureError:
        try:
            return network.labels.find(folder)
        except RequestError as error:
            return PictureError(f"its folder {folder!r} names no class: {error.message}", error.hint)

    def target(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        found = named(path.absolute().parent.name)
        if isinstance(found, PictureError):
            raise PictureError(found.message, found.hint)
        return [found]

    return target


class Listed:
    """Targets that a file lists picture by picture.

    The file is CSV with a picture and a target a row (a first row ``picture,target`` may stand above; further columns
    are further targets, unless the first row names one ``target``), or JSONL with ``{"picture": ..., "target": ...}`` a
    line, the target being a class or a list of them. Several rows of one picture are several targets. A picture is
    named by its path: as it stands, from the file's folder, or from one of ``folders``.

    Args:
        file: the file.
        labels: the classes.
        folders: the folders that pictures are taken from.

    Attributes:
        surplus: what the file lists and nobody can find.

    Raises:
        RequestError: the file cannot be read; a row is malformed, names no class or several, or a picture that two
            folders have.
    """

    def __init__(self, file: Path, labels: Labels, folders: Sequence[Path] = ()) -> None:
        self.file = file
        self._classes: dict[Path, list[int]] = {}
        names = Names(file, folders)
        self.surplus = names.surplus
        find = cache(labels.find)
        for line, picture, words in _rows(file):
            try:
                indices = [find(word) for word in words]
            except RequestError as error:
                raise RequestError(f"{file}, line {line} ({picture!r}): {error.message}", error.hint) from None
            place = names.find(picture, f"line {line}")
            if place is not None:
                self._classes.setdefault(place, []).extend(indices)

    def __call__(self, path: Path, scores: Tensor) -> Sequence[int]:  # noqa: ARG002
        """The classes listed for a picture.

        Raises:
            PictureError: the file does not list it.
        """
        found = self._classes.get(normal(path))
        if not found:
            raise PictureError(f"{self.file} lists no target for this picture", "add a line with its path and class")
        return found

    def unused(self, paths: Iterator[Path]) -> list[str]:
        """What the file lists and none of the pictures of the run is."""
        left = set(self._classes) - {normal(path) for path in paths}
        return [*self.surplus, *sorted(map(str, left))]


def _rows(file: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, picture and targets of each row."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RequestError(f"the targets file {str(file)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the targets file {str(file)!r} is not UTF-8 text") from error
    reader: Callable[[str], Iterator[tuple[int, str, list[str]]]]
    reader = _json_rows if file.suffix.lower() in (".jsonl", ".ndjson", ".json") else _csv_rows
    empty = True
    try:
        for line, picture, words in reader(text):
            empty = False
            if not picture or not words or not all(words):
                raise RequestError(
                    f"{file}, line {line}: a picture and its target are needed, but one is missing",
                    'write picture,target or {"picture": "a.jpg", "target": "tabby"}',
                )
            yield line, picture, words
    except ValueError as error:
        raise RequestError(f"the targets file {str(file)!r} cannot be read: {error}") from error
    if empty:
        raise RequestError(f"the targets file {str(file)!r} lists nothing")


def _well_formed(reader: _csv.Reader) -> Iterator[list[str]]:
    """The rows, until one is no CSV; the error then says which."""
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error})") from error


def _csv_rows(text: str) -> Iterator[tuple[int, str, list[str]]]:
    reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    columns: list[int] | None = None
    picture_column = 0
    for number, row in enumerate(_well_formed(reader)):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        titles = [cell.lower() for cell in cells]
        if number == 0 and set(titles) & set(PICTURE_COLUMNS) and set(titles) & set(TARGET_COLUMNS):
            picture_column = next(at for at, title in enumerate(titles) if title in PICTURE_COLUMNS)
            columns = [at for at, title in enumerate(titles) if title in TARGET_COLUMNS]
            continue
        wanted = columns if columns is not None else range(1, len(cells))
        words = [cells[at] for at in wanted if at < len(cells) and cells[at]]
        yield reader.line_num, cells[picture_column] if picture_column < len(cells) else "", words


def _json_rows(text: str) -> Iterator[tuple[int, str, list[str]]]:
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
        target: Any = next((row[key] for key in TARGET_COLUMNS if key in row), [])
        words = target if isinstance(target, list) else [target]
        if not isinstance(picture, str) or not all(type(word) in (str, int) for word in words):
            raise ValueError(f"line {number}: a picture is a path, a target a class or a list of classes")
        yield number, picture, [str(word) for word in words]
