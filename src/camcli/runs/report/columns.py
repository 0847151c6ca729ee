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
from camcli.base.words import shorten
from camcli.images.manifest_rows import JSON_SUFFIXES, PARQUET_HINT, PARQUET_SUFFIX, PICTURE_COLUMNS
from camcli.runs.record.outcome import Outcome

# Columns of a line for each metric of each map, as ``evaluation.jsonl`` has them.
METRIC_COLUMNS = frozenset({"name", "map", "kind", "metric", "value"})
NAME_COLUMNS = (*PICTURE_COLUMNS, "name")


class Columns:
    """Numbers by image and title, from any number of tables.

    A table has a column of images, called by a usual title (``image``, ``path``, ``file``, ...): their paths, their
    names in the output folder, or their file names alone, if these are enough. Columns with nothing but numbers are
    used. Of several rows of an image numbers are averaged, such as those of its classes.

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
        self._by_file_name: dict[str, str | None] = {}
        for file in files:
            self._read(Path(file))
        for name in self._sums:
            base = name.rpartition("/")[2]
            self._by_file_name[base] = name if base not in self._by_file_name else None
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

    def find(self, outcome: Outcome) -> list[float | None]:
        """Return the numbers of an image, in the order of the titles; None for those that it has not."""
        names = (outcome.name, os.path.normpath(outcome.source).replace("\\", "/"))
        key = next((one for one in names if one in self._sums), None)
        key = key or self._by_file_name.get(outcome.name.rpartition("/")[2])
        if key is None:
            return [None] * len(self.titles)
        self._unmatched.discard(key)
        sums = self._sums[key]
        return [sums[title][0] / sums[title][1] if title in sums else None for title in self.titles]

    def describe_unmatched(self) -> str:
        """Describe the names in the tables that were none of the images asked for; empty if there are none."""
        left = sorted(self._unmatched)
        return (
            f"the columns are of {len(left)} that are not among the images: {shorten(left, len(left))}" if left else ""
        )


def _iter_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Iterate over the rows of a table: the image's name, and the other values by title."""
    for row in _iter_objects(file):
        if row.keys() >= METRIC_COLUMNS:
            if row["kind"] == "method" and row["metric"]:
                yield str(row["name"]), {f"{row['metric']}, {row['map']}": row["value"]}
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
