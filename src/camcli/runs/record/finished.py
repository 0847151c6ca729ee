"""Finished runs, read again image by image: the result of each that counts, with its maps, wherever the run wrote."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float32

from camcli.base.errors import OutputError, PictureError, RequestError
from camcli.engine.explanation import Explanation
from camcli.images.address import show_path
from camcli.images.own_outputs import find_line_records
from camcli.images.placement import Placement
from camcli.images.transform import Preprocess
from camcli.images.view import View
from camcli.outputs.style import rectify
from camcli.runs.record import ledger
from camcli.runs.record.folder import is_plain_path
from camcli.runs.record.heads import Worth, find_worth
from camcli.runs.record.join import MAX_OPEN
from camcli.runs.record.lines import LineFile
from camcli.runs.record.outcome import Outcome, restore_tuples
from camcli.runs.record.provenance import list_jobs, read_record
from camcli.runs.record.view import look_at, open_files

ARRAYS_HINT = "run the same command again with --save array (beside other formats), which keeps the maps"
SIZE_HINT = "an earlier version of camcli wrote it: run the same command again with --overwrite"


@dataclass(frozen=True, slots=True)
class RecordedMap:
    """Map of a finished run, or the failure in its place.

    Attributes:
        outcome: its line.
        read: reads the map as the method gave it; raises PictureError.
        preprocess: preprocessing of the model.
    """

    outcome: Outcome
    read: Callable[[], np.ndarray]
    preprocess: Preprocess

    @property
    def has_map(self) -> bool:
        """False if it failed; a map that could only not be drawn is one."""
        return self.outcome.error is None or bool(self.outcome.files)

    def load(self) -> Float32[np.ndarray, "h w"]:
        """Load the map; of one with colours the greatest magnitude at each pixel, as for drawing.

        Raises:
            PictureError: there is none, it cannot be read, or is not a single map.
        """
        map: np.ndarray = self.read()
        if self.outcome.concepts:
            raise PictureError("concepts have several maps, which are not those of one class")
        if map.ndim not in (2, 3) or map.dtype != np.float32 or not map.size:
            raise PictureError(f"an array of {map.dtype} and shape {list(map.shape)} is no map")
        if not np.isfinite(map).all():
            raise PictureError("the map has values that are not finite")
        return rectify(map) if map.ndim == 3 else map

    @property
    def view(self) -> View:
        """View of the image, with the places of the map's cells.

        Raises:
            RequestError: the line does not have the image's size.
        """
        if self.outcome.image_size is None:
            raise RequestError(f"the record of {self.outcome.name!r} does not have the image's size", SIZE_HINT)
        numbers = self.outcome.placement
        return self.preprocess.view(*self.outcome.image_size).placed(
            Placement.from_numbers(numbers) if numbers else None
        )


# The maps of one image, and the failures.
RecordedImage = Sequence[RecordedMap]


@runtime_checkable
class ReadableRun(Protocol):
    """Run whose maps can be read, as a ``with`` block."""

    @property
    def path(self) -> Path:
        """Its folder, or its address."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Contents of its ``run.json``."""

    def iter_images(self) -> Iterator[RecordedImage]:
        """Yield the maps of each image, sorted by the bytes of the image's name."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FinishedRun:
    """Output folder of ``camcli explain``, local or in a store, with its shards; used as a ``with`` block.

    It is neither locked nor changed. Memory does not grow with its images, which are sorted on the disk.

    Args:
        path: the folder.

    Attributes:
        facts: contents of ``run.json``.

    Raises:
        NothingFoundError: no run wrote there.
        RequestError: the run kept no arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: Mapping[str, Any] = read_record(path)
        self._stack = ExitStack()

    def __enter__(self) -> FinishedRun:
        view = self._stack.enter_context(look_at(self.path))
        found = find_line_records(view.path, ledger.FILE)
        if len(found) > MAX_OPEN:
            raise RequestError(
                f"{show_path(self.path)!r} has the records of {len(found)} shards",
                f"join them first: camcli merge {show_path(self.path)}",
            )
        self._files = [self._stack.enter_context(closing(LineFile(one, Outcome))) for one in found]
        self._read = open_files(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def iter_images(self) -> Iterator[RecordedImage]:
        """Yield the maps of each image of the run's job, sorted by the bytes of the image's name.

        Raises:
            RequestError: a record cannot be read.
            OutputError: there is no room to sort the images.
        """
        try:
            for lines, place in self._sort_images():
                yield [self._record(lines.parse(head)) for head in lines.read_block(place)]
        except sqlite3.Error as error:
            raise OutputError(f"the images cannot be sorted in the folder for temporary files: {error}") from error

    def _sort_images(self) -> Iterator[tuple[LineFile[Outcome], int]]:
        """Yield where the lines of each image begin that count (``find_worth``)."""
        jobs = list_jobs(self.facts)
        with closing(sqlite3.connect("")) as base:  # an empty name is a file that is gone when it is closed
            base.execute(
                "create table images (name blob primary key, worth, run, file integer, place integer) without rowid"
            )
            base.executemany(
                "insert into images values (?, ?, ?, ?, ?) on conflict (name) do update set worth = excluded.worth, "
                "run = excluded.run, file = excluded.file, place = excluded.place "
                "where (excluded.worth, excluded.run) >= (worth, run)",
                (
                    (os.fsencode(heads[0].name), int(worth), heads[0].run, number, place)
                    for number, lines in enumerate(self._files)
                    for place, heads in lines.iter_blocks()
                    if heads[0].job in jobs and (worth := find_worth(heads)) > Worth.CUT
                ),
            )
            for number, place in base.execute("select file, place from images order by name"):
                yield self._files[number], place

    def _record(self, outcome: Outcome) -> RecordedMap:
        return RecordedMap(outcome, partial(self._load, outcome), self._preprocess)

    @cached_property
    def _preprocess(self) -> Preprocess:
        return read_preprocess(self.facts, self.path)

    def _load(self, outcome: Outcome) -> np.ndarray:
        if outcome.error and not outcome.files:
            raise PictureError(outcome.error)
        if (file := outcome.files.get("array")) is None:
            raise RequestError(f"{show_path(self.path)!r} has no array of the map of {outcome.name!r}", ARRAYS_HINT)
        content = self._read(file) if is_plain_path(file) else None
        if content is None or len(content) != outcome.sizes.get("array", len(content)):
            raise PictureError(f"the array {file!r} is missing, or is not as it was written")
        try:
            return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise PictureError(f"the array {file!r} cannot be read: {error}") from error


def make_explanation(outcome: Outcome, map: np.ndarray) -> Explanation:
    """Make the explanation that an outcome was made from, with its map."""
    shared = {field.name for field in fields(Explanation)} & {field.name for field in fields(Outcome)}
    values = {name: value for name in shared if (value := getattr(outcome, name)) is not None}
    return Explanation(
        map=map,
        **{
            "method": "",
            "layer": "",
            "index": None,
            "label": "",
            "score": 0.0,
            "probability": None,
            **values,
            "placement": Placement.from_numbers(outcome.placement) if outcome.placement else None,
        },
    )


def read_preprocess(facts: Mapping[str, Any], path: Path) -> Preprocess:
    """Return the preprocessing that a run recorded.

    Raises:
        RequestError: what was recorded is none.
    """
    try:
        if "slices" in facts["model"]["preprocessing"]:
            raise RequestError(
                f"the maps in {show_path(path)!r} are of volumes, which are not compared or measured",
                "their arrays, of --save array, are (slices, rows, columns)",
            )
        return Preprocess(**restore_tuples(facts["model"]["preprocessing"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"what {show_path(path)!r} says of the preprocessing cannot be read: {error}") from error
