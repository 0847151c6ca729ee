"""Rows of files that list images: CSV, TSV, one-hot tables, JSON lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.base.delimited import find_column, normalize_title, read_rows, read_text
from camcli.base.errors import RequestError

# Titles that a table may give the column of images; the first of these that is present counts.
PICTURE_COLUMNS = (
    *("picture", "path", "filepath", "file_path", "image_path", "img_path", "picture_path"),
    *("file", "filename", "file_name", "fname", "image_file", "image", "image_name", "img", "img_name", "photo"),
    *("source", "image_id", "imageid", "img_id", "id"),
)


@dataclass(frozen=True, slots=True)
class Column:
    """Kind of value that a file lists for images.

    Attributes:
        noun: name of a value: ``target``.
        meaning: what a value stands for: ``class``.
        columns: titles that a table may give its column; the first of these that is present counts.
        example: a value, for messages.
        one_hot: True if a table may instead have a column of 0 and 1 for each value.
    """

    noun: str
    meaning: str
    columns: tuple[str, ...]
    example: str
    one_hot: bool = False


# Suffixes of files with a JSON object a line.
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIX = ".parquet"
PARQUET_HINT = "pip install 'camcli-vision[parquet]'"


# Line number, image and words.
_Row = tuple[int, str, list[str]]
# Cells of a one-hot table for yes and no.
YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})


def read_manifest_rows(file: Path, column_type: Column, is_known: Callable[[str], bool]) -> Iterator[_Row]:
    """Iterate over the rows of a file; ``is_known`` returns whether a word has a value."""
    what = f"the {column_type.noun}s file {str(file)!r}"
    suffix = file.suffix.lower()
    text = "" if suffix == PARQUET_SUFFIX else read_text(file, what)
    objects = _read_parquet_objects(file, column_type) if suffix == PARQUET_SUFFIX else None
    objects = _read_json_objects(text) if suffix in JSON_SUFFIXES else objects
    empty = True
    try:
        table = (
            _read_objects(objects, column_type)
            if objects is not None
            else _TextTable(text, file, column_type).read_rows(is_known)
        )
        for line, picture, words in table:
            empty = False
            if not picture or not all(words):
                raise RequestError(
                    f"{file}, line {line}: an image and its {column_type.noun} are needed, but one is missing: "
                    f"{_quote_line(text, line)!r}",
                    f"write picture,{column_type.noun} or "
                    f'{{"picture": "a.jpg", "{column_type.noun}": "{column_type.example}"}}',
                )
            yield line, picture, words
    except ValueError as error:
        raise RequestError(f"{what} cannot be read: {error}") from error
    if empty:
        raise RequestError(f"{what} lists nothing")


def _quote_line(text: str, number: int) -> str:
    """Return a line of a text, counted from 1, for a message."""
    return text.split("\n")[number - 1].strip()[:200] if text else f"row {number}"


class _TextTable:
    """A text table of images and words."""

    def __init__(self, text: str, file: Path, column_type: Column) -> None:
        self.text, self.file, self.column_type = text, file, column_type

    def read_rows(self, is_known: Callable[[str], bool]) -> Iterator[_Row]:
        """Iterate over the rows: of a table with titles, of a one-hot table, or of an image and its words each."""
        table = read_rows(self.text)
        first = next(table, None)
        if first is None:
            return
        titles = list(map(normalize_title, first[1]))
        picture = find_column(titles, PICTURE_COLUMNS)
        meant = find_column(titles, self.column_type.columns)
        if picture is not None and meant is not None and picture != meant:
            yield from self._read_titled(table, titles, picture, self._find_meant_columns(titles, meant))
            return
        rest = list(table)
        hot = (
            self._find_one_hot_columns(first[1], picture, rest, is_known)
            if picture is not None and self.column_type.one_hot
            else []
        )
        if picture is not None and hot:
            for line, cells in rest:
                yield line, cells[picture], [first[1][at] for at in hot if cells[at].lower() in YES]
            return
        plain = [(line, cells[0], [cell for cell in cells[1:] if cell] or [""]) for line, cells in (first, *rest)]
        if self.column_type.one_hot:
            _check_not_one_hot(plain, self.text, self.file)
        yield from plain

    def _find_meant_columns(self, titles: Sequence[str], meant: int) -> list[int]:
        """Return all columns with the chosen title; raise RequestError if another title could be meant."""
        others = [one for one in titles if one in self.column_type.columns and one != titles[meant]]
        if others and titles[meant] not in (self.column_type.noun, f"{self.column_type.noun}s"):
            raise RequestError(
                f"{self.file}, line 1: the columns {titles[meant]!r} and {others[0]!r} can both be the "
                f"{self.column_type.noun}: {_quote_line(self.text, 1)!r}",
                f"rename the intended one to {self.column_type.noun}",
            )
        return [at for at, one in enumerate(titles) if one == titles[meant]]

    def _read_titled(
        self, table: Iterable[tuple[int, list[str]]], titles: Sequence[str], picture: int, columns: Sequence[int]
    ) -> Iterator[_Row]:
        for line, cells in table:
            if len(cells) > len(titles):
                raise RequestError(
                    f"{self.file}, line {line}: {len(cells)} cells under {len(titles)} titles: "
                    f"{_quote_line(self.text, line)!r}",
                    "quote cells that contain the delimiter",
                )
            words = [cells[at] for at in columns if at < len(cells) and cells[at]]
            yield line, cells[picture] if picture < len(cells) else "", words or [""]

    def _find_one_hot_columns(
        self,
        titles: Sequence[str],
        picture: int,
        table: Sequence[tuple[int, list[str]]],
        is_known: Callable[[str], bool],
    ) -> list[int]:
        """Return the columns of 0 and 1 for one word each; none where the table is not one-hot.

        Raises:
            RequestError: a column is ambiguous.
        """
        hot: list[int] = []
        for at, name in enumerate(titles):
            if at == picture or not table:
                continue
            odd = next((line for line, cells in table if "".join(cells[at : at + 1]).lower() not in YES | NO), 0)
            if not odd and not is_known(name):
                raise RequestError(
                    f"{self.file}, line 1: the column {name!r} has 0 and 1 in it, and its name is no "
                    f"{self.column_type.meaning}: {_quote_line(self.text, 1)!r}",
                    f"rename it to a {self.column_type.meaning} (name or number), or remove it; a column that lists "
                    f"the {self.column_type.meaning} is called {self.column_type.noun}",
                )
            if odd and is_known(name):
                raise RequestError(
                    f"{self.file}, line {odd}: the column {name!r} is a {self.column_type.meaning}, and its value is "
                    f"neither 0 nor 1: {_quote_line(self.text, odd)!r}",
                    f"write 0 or 1; or picture,{self.column_type.noun} as the header, and the "
                    f"{self.column_type.meaning} in a column",
                )
            if not odd:
                hot.append(at)
        return hot


def _check_not_one_hot(table: Sequence[_Row], text: str, file: Path) -> None:
    """Check that rows without titles, of several words each, cannot be one-hot.

    Raises:
        RequestError: they can be.
    """
    if all(len(words) > 1 and set(words) <= YES | NO for _, _, words in table):
        line = table[0][0] if table else 1
        raise RequestError(
            f"{file}, line {line}: 0 and 1 can be class indices or one-hot values: {_quote_line(text, line)!r}",
            "add a header row: picture,ant,bee,... with the class names, or picture,target,target",
        )


def _read_json_objects(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # Not splitlines(): JSON strings may hold other line ends, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        yield number, row


def _read_parquet_objects(file: Path, column_type: Column) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over the rows of a Parquet file: their numbers from 1, and the values of columns with known titles."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise RequestError(f"{str(file)!r} needs pyarrow, which is not installed", PARQUET_HINT) from error
    try:
        with parquet.ParquetFile(file) as table:
            known = {*PICTURE_COLUMNS, *column_type.columns}
            titles = {one: normalize_title(one) for one in table.schema_arrow.names if normalize_title(one) in known}
            rows = (row for batch in table.iter_batches(columns=list(titles)) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield number, {titles[title]: value for title, value in row.items()}
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"is not a Parquet file that can be read: {error}") from error


def _read_objects(rows: Iterable[tuple[int, dict[str, Any]]], column_type: Column) -> Iterator[_Row]:
    for number, row in rows:
        picture = next((row[key] for key in PICTURE_COLUMNS if key in row), "")
        given: Any = next((row[key] for key in column_type.columns if key in row), [])
        words = given if isinstance(given, list) else [given]
        if not isinstance(picture, str) or not all(type(word) in (str, int) for word in words):
            raise ValueError(
                f"line {number}: an image is a path, its {column_type.noun} a {column_type.meaning} or a list of "
                "several"
            )
        if column_type.one_hot and len(words) > len(set(words)) and set(words) <= {0, 1}:
            raise ValueError(
                f"line {number}: {words} is one-hot; write the {column_type.meaning}es of the image instead: "
                f"{str(row)[:200]}"
            )
        yield number, picture, [str(word) for word in words] or [""]
