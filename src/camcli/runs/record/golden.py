"""Golden runs: a finished run's maps in two small files, which later runs are compared with.

``golden.json`` says what made the maps, and what was lost; ``maps.jsonl.gz`` has a line of JSON for each map, sorted by
the bytes of the image's name. The same run gives the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from camcli.base import atomic
from camcli.base.errors import NothingFoundError, OutputError, PictureError, RequestError
from camcli.images.address import show_path, to_url
from camcli.images.transform import Preprocess
from camcli.metrics import similarity
from camcli.runs.record.finished import FinishedRun, ReadableRun, RecordedImage, RecordedMap, read_preprocess
from camcli.runs.record.outcome import Outcome

FACTS_FILE, MAPS_FILE = "golden.json", "maps.jsonl.gz"
FORMAT = 1
LEVELS = 255
# Bytes of the longest line that is read, that of the largest map: a small file may unpack to far more than it is.
MAX_LINE = 1 << 28
# Fields of a line that are of its run's files and moment, and so of no use here.
LEFT_OUT: Mapping[str, Any] = {
    "stamp": "",
    "job": "",
    "run": "",
    "root": "",
    "files": {},
    "sizes": {},
    "looks": {},
    "seconds": None,
}


@dataclass(slots=True)
class WrittenGolden:
    """Findings of a writing.

    Attributes:
        images, maps, failed: numbers of images, of maps, and of failures.
        size: bytes of both files.
        error: greatest error of a value, as a share of its map's range.
        pearson: least correlation of a map with what was written of it; None if none varies.
        missing: number of the run's images that it has not recorded.
    """

    images: int = 0
    maps: int = 0
    failed: int = 0
    size: int = 0
    error: float = 0.0
    pearson: float | None = None
    missing: int = 0


def open_run(path: Path) -> ReadableRun:
    """Open a finished run or a golden one; neither is changed.

    Raises:
        NothingFoundError: there is none.
    """
    if not to_url(path) and (path / FACTS_FILE).is_file():
        return GoldenRun(path)
    return FinishedRun(path)


def write_golden(run: ReadableRun, out: Path) -> WrittenGolden:
    """Write a golden run of a finished one.

    A map's values are rounded to 255 steps between its least and greatest; one with colours is kept as the greatest
    magnitude at each pixel. An image that failed is kept as that.

    Args:
        run: the finished run.
        out: the folder; made if need be.

    Raises:
        NothingFoundError: the run recorded no map.
        RequestError: it kept no arrays, or the folder is the output of a run or has files of somebody's own.
        OutputError: a file cannot be written.
    """
    if (out / "run.json").exists():
        raise RequestError(f"{str(out)!r} is the output folder of a run", "name a folder of its own: golden")
    if others := _list_others(out):
        raise RequestError(
            f"{str(out)!r} has other files, such as {others[0]!r}", "name a folder for the golden run alone: golden"
        )
    found = WrittenGolden()
    try:
        out.mkdir(parents=True, exist_ok=True)
        temporary = atomic.make_temporary_path(out)
        try:
            with temporary.open("xb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as file:
                for image in run.iter_images():
                    found.images += 1
                    file.writelines(_encode_line(one, found) for one in image)
            if not found.maps:
                raise NothingFoundError(f"the run in {show_path(run.path)!r} has no map to keep", "run it first")
            temporary.replace(out / MAPS_FILE)
        finally:
            temporary.unlink(missing_ok=True)
        found.missing = max(0, int(run.facts.get("images") or 0) - found.images)
        text = json.dumps(_collect_facts(run.facts, found), indent=2, ensure_ascii=False) + "\n"
        atomic.write(out / FACTS_FILE, text.encode("utf-8", "backslashreplace"))
        found.size = sum((out / name).stat().st_size for name in (FACTS_FILE, MAPS_FILE))
    except OSError as error:
        raise OutputError(f"{str(out)!r} cannot be written to: {error.strerror or error}") from error
    return found


def _list_others(folder: Path) -> list[str]:
    """Return the names in a folder that has no golden run yet, hidden ones left out."""
    if not folder.is_dir() or (folder / FACTS_FILE).exists():
        return []
    return sorted(one.name for one in folder.iterdir() if not one.name.startswith(".") and one.name != MAPS_FILE)


def _encode_line(recorded: RecordedMap, found: WrittenGolden) -> bytes:
    """Return the line of a map or failure, and count it."""
    outcome = recorded.outcome
    line: dict[str, Any] = {**json.loads(outcome.as_line()), **LEFT_OUT}
    if not recorded.has_map:
        found.failed += 1
    else:
        try:
            map = recorded.load()
        except PictureError as error:
            raise RequestError(f"the map of {outcome.name!r} cannot be kept: {error.message}", error.hint) from error
        low, high, levels = quantize(map)
        line["map"] = {
            "shape": list(map.shape),
            "low": low,
            "high": high,
            "values": base64.b64encode(levels.tobytes()).decode("ascii"),
        }
        found.maps += 1
        _measure_loss(map, restore(low, high, levels), found)
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def quantize(map: Float32[np.ndarray, "h w"]) -> tuple[float, float, UInt8[np.ndarray, "h w"]]:
    """Return a map's least and greatest value, and its values as steps between them from 0 to ``LEVELS``."""
    low, high = float(map.min()), float(map.max())
    span = high - low
    steps = np.rint((map.astype(np.float64) - low) / span * LEVELS) if span > 0 else np.zeros(map.shape)
    return low, high, steps.astype(np.uint8)


def restore(low: float, high: float, levels: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Return the values that steps stand for."""
    return (low + (high - low) * (levels.astype(np.float64) / LEVELS)).astype(np.float32)


def _measure_loss(map: np.ndarray, kept: np.ndarray, found: WrittenGolden) -> None:
    span = float(np.ptp(map))
    if span > 0:
        found.error = max(found.error, float(np.abs(map - kept).max()) / span)
    pearson = float(similarity.pearson(np.stack([map, kept]))[0, 1])
    if not np.isnan(pearson):
        found.pearson = min(pearson, 1.0 if found.pearson is None else found.pearson)


def _collect_facts(facts: Mapping[str, Any], found: WrittenGolden) -> dict[str, Any]:
    loss = {"steps": LEVELS, "greatest_error": found.error, "least_pearson": found.pearson}
    return {
        "golden": FORMAT,
        "images": found.images,
        "maps": found.maps,
        "failed": found.failed,
        "loss": loss,
        "made_by": {name: value for name, value in facts.items() if name not in ("finished", "pictures", "skipped")},
    }


class GoldenRun:
    """Golden run, read as a finished one; used as a ``with`` block.

    Args:
        path: its folder.

    Attributes:
        facts: contents of the ``run.json`` of the run that it was made of.

    Raises:
        RequestError: it is not of this version of camcli.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads((path / FACTS_FILE).read_text(encoding="utf-8"))
            fits = content["golden"] == FORMAT
            self.facts: Mapping[str, Any] = {**content["made_by"], "images": content["images"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RequestError(f"{str(path / FACTS_FILE)!r} cannot be read: {error}", "make it again") from error
        if not fits:
            raise RequestError(f"{str(path)!r} was made by another version of camcli", "make it again: camcli golden")

    def __enter__(self) -> GoldenRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def iter_images(self) -> Iterator[RecordedImage]:
        """Yield the maps of each image, sorted by the bytes of its name.

        Raises:
            RequestError: the file cannot be read.
        """
        before, count = b"", 0
        for name, some in itertools.groupby(self._iter_maps(), lambda one: os.fsencode(one.outcome.name)):
            if name <= before:
                raise self._make_error("its lines are not sorted")
            before, count = name, count + 1
            yield [*some]
        if count != self.facts["images"]:
            raise self._make_error(f"it has {count} images, and {FACTS_FILE} says {self.facts['images']}")

    def _iter_maps(self) -> Iterator[RecordedMap]:
        names = {one.name for one in fields(Outcome)}
        try:
            with gzip.open(self.path / MAPS_FILE, "rb") as file:
                while line := file.readline(MAX_LINE + 1):
                    if len(line) > MAX_LINE:
                        raise ValueError(f"a line has more than {MAX_LINE:,} bytes")
                    values = json.loads(line)
                    map = values.pop("map", None)
                    outcome = Outcome.read({name: value for name, value in values.items() if name in names})
                    # What the lines of a run say of its files: that there is a map.
                    files = {} if map is None else {"array": MAPS_FILE}
                    yield RecordedMap(
                        replace(outcome, files=files), partial(self._read, outcome, map), self._preprocess
                    )
        except (OSError, EOFError, zlib.error, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._make_error(str(error)) from error

    @cached_property
    def _preprocess(self) -> Preprocess:
        return read_preprocess(self.facts, self.path)

    def _read(self, outcome: Outcome, map: dict[str, Any] | None) -> np.ndarray:
        if map is None:
            raise PictureError(outcome.error or "it has no map")
        try:
            levels = np.frombuffer(base64.b64decode(map["values"], validate=True), np.uint8).reshape(map["shape"])
            return restore(float(map["low"]), float(map["high"]), levels)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise self._make_error(f"the map of {outcome.name!r}: {error}") from error

    def _make_error(self, reason: str) -> RequestError:
        return RequestError(f"{str(self.path / MAPS_FILE)!r} cannot be read: {reason}", "make it again: camcli golden")
