"""Numbers of images from tables that somebody hands over, joined by the images' names."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.base.delimited import find_column, normalize_title, read_rows, read_text
from camcli.base.errors import RequestError
from camcli.base.words import count_of, shorten
from camcli.images.manifest_rows import JSON_SUFFIXES, PARQUET_HINT, PARQUET_SUFFIX, PICTURE_COLUMNS
from camcli.runs.record.outcome import Outcome

# Columns of a line for each metric of each map, as ``evaluation.jsonl`` has them.
METRIC_COLUMNS = frozenset({"name", "map", "kind", "metric", "value"})
NAME_COLUMNS = (*PICTURE_COLUMNS, "name")


class Columns:
    """Numbers by image and title, from any number of tables.

    A table has a column of images, called by a usual title (``image``, ``path``, ``file``, ...): their paths, their
    names in the output folder, or how these end, such as their file names alone, where that fits one image only.
    Columns with nothing but numbers are used. Of several rows of an image numbers are averaged, such as those of its
    classes. Every image is added before the first is looked up.

    Args:
        files: paths of the tables.

    Attributes:
        titles: titles of the columns.

    Raises:
        RequestError: a table cannot be read, has no column of images, or no numbers.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.titles: list[str] = []
        self._sums: dict[str, dict[str, tuple[float, int]]] = {}
        self._unmatched: set[str] = set()
        # Names of rows that are an image's own, and ends of paths with the one image that they fit; None if several.
        self._own: set[str] = set()
        self._ends: dict[str, str | None] = {}
        for file in files:
            self._read(Path(file))
        self._unmatched = set(self._sums)

    def _read(self, file: Path) -> None:
        known = set(self.titles)
        words: set[str] = set()
        found: dict[str, None] = {}
        for name, values in _iter_rows(file):
            sums = self._sums.setdefault(os.path.normpath(name).replace("\\", "/"), {})
            for title, value in values.items():
                number = _to_number(value)
                if number is None:
                    words.add(title)
                elif math.isfinite(number):
                    found[title] = None
                    total, count = sums.get(title, (0.0, 0))
                    sums[title] = (total + number, count + 1)
        self.titles += [title for title in found if title not in words and title not in known]
        if not found.keys() - words:
            raise RequestError(f"{str(file)!r} has no column of numbers", "name a table with numbers of images")

    def add_image(self, outcome: Outcome) -> None:
        """Take account of an image whose numbers will be asked for."""
        key = self._find_own(outcome)
        if key:
            self._own.add(key)
        elif end := self._find_end(outcome):
            self._ends[end] = outcome.source if self._ends.get(end, outcome.source) == outcome.source else None

    def find(self, outcome: Outcome) -> list[float | None]:
        """Return the numbers of an image, in the order of the titles; None for those that it has not."""
        key = self._find_own(outcome)
        if not key and (end := self._find_end(outcome)) and end not in self._own and self._ends.get(end):
            key = end
        if not key:
            return [None] * len(self.titles)
        self._unmatched.discard(key)
        sums = self._sums[key]
        return [sums[title][0] / sums[title][1] if title in sums else None for title in self.titles]

    def _find_own(self, outcome: Outcome) -> str:
        return next((one for one in _list_paths(outcome) if one in self._sums), "")

    def _find_end(self, outcome: Outcome) -> str:
        """Return the longest name of a row that an image's path ends with; empty if there is none."""
        ends = (end for path in _list_paths(outcome) for end in _iter_ends(path) if end in self._sums)
        return max(ends, key=len, default="")

    def describe_ambiguous(self) -> str:
        """Describe the names in the tables that fit several images, and are used for none; empty if there are none."""
        several = sorted(end for end, source in self._ends.items() if source is None and end not in self._own)
        if not several:
            return ""
        words = shorten(several, len(several))
        return (
            f"left out: {count_of(len(several), 'name')} in the columns that fit several images; add folders: {words}"
        )

    def describe_unmatched(self) -> str:
        """Describe the names in the tables that were none of the images asked for; empty if there are none."""
        left = sorted(self._unmatched - self._ends.keys())
        return (
            f"the columns are of {len(left)} that are not among the images: {shorten(left, len(left))}" if left else ""
        )


def _list_paths(outcome: Outcome) -> tuple[str, str]:
    return outcome.name, os.path.normpath(outcome.source).replace("\\", "/")


def _iter_ends(path: str) -> Iterator[str]:
    """Yield the ends of a path that begin after a slash, the longest first."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _iter_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the rows of a table: the image's name, and the other values by title."""
    layers = {row.get("layer") for row in _iter_objects(file) if _is_of_method(row)} - {None, ""}
    for row in _iter_objects(file):
        if row.keys() >= METRIC_COLUMNS:
            if _is_of_method(row) and row["metric"]:
                where = f" at {row['layer']}" if len(layers) > 1 and row.get("layer") else ""
                yield str(row["name"]), {f"{row['metric']}, {row['map']}{where}": row["value"]}
            continue
        titles = list(row)
        place = find_column([normalize_title(str(title)) for title in titles], NAME_COLUMNS)
        if place is None:
            raise RequestError(
                f"{str(file)!r} has no column that names images; there are: {', '.join(map(str, titles))[:200]}",
                "call it image",
            )
        if name := row.pop(titles[place]):
            yield str(name), row


def _is_of_method(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a metric of a method's map, as ``evaluation.jsonl`` has them."""
    return row.keys() >= METRIC_COLUMNS and row["kind"] == "method"


def _iter_objects(file: Path) -> Iterator[dict[str, Any]]:
    suffix = file.suffix.lower()
    if suffix == PARQUET_SUFFIX:
        yield from _iter_parquet(file)
        return
    text = read_text(file, f"the table {str(file)!r}")
    try:
        if suffix in JSON_SUFFIXES:
            yield from _iter_json(text)
            return
        rows = iter(read_rows(text))
        _, titles = next(rows, (0, []))
        for _, cells in rows:
            yield dict(zip(titles, cells, strict=False))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the table {str(file)!r} cannot be read: {error}") from error


def _iter_json(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield row


def _iter_parquet(file: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise RequestError(f"{str(file)!r} needs pyarrow, which is not installed", PARQUET_HINT) from error
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"the table {str(file)!r} cannot be read: {error}") from error


def _to_number(value: Any) -> float | None:
    """Return a number, also one in words; NaN for nothing, and None for anything else."""
    if value in (None, ""):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
