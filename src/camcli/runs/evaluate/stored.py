"""Maps that a finished run of ``camcli explain`` kept, in place of an explanation, and the images that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.engine.maps.result import Result
from camcli.images.address import show_path
from camcli.images.formats import SkippedFiles
from camcli.images.source import PictureSource
from camcli.runs.evaluate.recorded import ANEW_HINT
from camcli.runs.job.job import Job
from camcli.runs.record import provenance
from camcli.runs.record.finished import (
    ARRAYS_HINT,
    FinishedRun,
    RecordedImage,
    RecordedMap,
    make_explanation,
    read_preprocess,
)
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.kept import find_source
from camcli.runs.record.preflight import read_shard
from camcli.runs.worker.item import Item
from camcli.runs.worker.worker import Worker


@dataclass(frozen=True, slots=True)
class StoredSource(PictureSource):
    """Image of a finished run, with its maps."""

    maps: RecordedImage = field(default=(), repr=False)


class StoredMaps(Inputs):
    """Images of a finished run, in the place of those that a job names.

    Args:
        path: output folder of the run.
        job: the job, as `camcli.runs.evaluate.recorded.recorded_job` makes it.

    Attributes:
        facts: what the run recorded of itself.

    Raises:
        NothingFoundError: no run wrote there.
        RequestError: the run kept no arrays.
    """

    def __init__(self, path: Path, job: Job) -> None:
        self._job, self.path = job, path
        self.facts = provenance.read_record(path)
        self.unread = SkippedFiles()
        self.total_of_shards = self._check_and_count()
        self.total = sum(1 for _ in self.iter_sources()) if job.shard else self.total_of_shards

    def iter_sources(self) -> Iterator[PictureSource]:
        """Iterate over all images, of the job's shard if it has one, in the order of their names."""
        shard = read_shard(self._job)
        return (one for one in self._iter_unsharded() if shard is None or shard.holds(one.name))

    def stream(self) -> Iterator[PictureSource]:
        """Iterate over all images, as :meth:`iter_sources`."""
        return self.iter_sources()

    def describe(self) -> dict[str, Any]:
        """Describe for a run's record how many images it is about, and whose maps."""
        maps = {"folder": show_path(self.path), **{name: self.facts.get(name) for name in ("run", "fingerprint")}}
        return {**super().describe(), "maps": maps}

    def describe_incomplete(self) -> list[str]:
        """Return a note if the run is not complete."""
        expected = self.facts.get("images")
        there = self.total_of_shards
        if self._job.limit or expected is None or there is None or there >= int(expected):
            return []
        return [f"{show_path(self.path)} is not complete: {there} of its {expected} images are recorded"]

    def load(self, item: Item) -> list[Result]:
        """Return the maps of an image, and the failures."""
        assert isinstance(item.source, StoredSource)
        return [_load(one) for one in item.source.maps]

    def check_model(self, worker: Worker) -> None:
        """Check that the model is the run's: weights, preprocessing and layers.

        Raises:
            RequestError: it is not.
        """
        model: Mapping[str, Any] = self.facts.get("model") or {}
        found = {
            "weights": (model.get("sha256"), worker.sha256),
            "preprocessing": (read_preprocess(self.facts, self.path), worker.network.preprocess),
            "layers": (self.facts.get("layers"), [*worker.explainer.layers]),
        }
        for name, (then, now) in found.items():
            if then != now:
                raise RequestError(
                    f"the {name} of {worker.network.name} are not those of the run in {show_path(self.path)!r}: "
                    f"{_shorten(now)}, and then {_shorten(then)}",
                    f"install the versions that its run.json names; or {ANEW_HINT}",
                )

    def _iter_unsharded(self) -> Iterator[StoredSource]:
        with FinishedRun(self.path) as run:
            yield from map(self._make_source, islice(run.iter_images(), self._job.limit or None))

    def _check_and_count(self) -> int:
        count = arrays = 0
        for source in self._iter_unsharded():
            count += 1
            arrays += any("array" in one.outcome.files for one in source.maps)
        if count and not arrays:
            raise RequestError(f"{show_path(self.path)!r} has no arrays of its maps", f"{ARRAYS_HINT}; or {ANEW_HINT}")
        if not count:
            raise RequestError(f"the run in {show_path(self.path)!r} recorded no image", "run it first")
        return count

    def _make_source(self, image: RecordedImage) -> StoredSource:
        line = image[0].outcome
        try:
            found = find_source(line, self.path)
        except PictureError as error:
            found = PictureSource(line.source, line.name, error=error.message, page=line.page)
        return StoredSource(found.file, found.name, found.error, found.page, maps=image)


def _load(recorded: RecordedMap) -> Result:
    try:
        if not recorded.has_map:
            return PictureError(recorded.outcome.error or "it has no map")
        map = recorded.read()
        recorded.load()  # refuses what is no map
        return make_explanation(recorded.outcome, map)
    except CamcliError as error:
        return error if isinstance(error, PictureError) else PictureError(error.message, error.hint)


def _shorten(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)
