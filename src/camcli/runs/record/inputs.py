"""Images of a run: counted before its model is loaded, iterated over as often as need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from camcli.base import timing
from camcli.images.formats import SkippedFiles
from camcli.images.source import PictureSource
from camcli.runs.job.job import Job
from camcli.runs.record.preflight import check_and_count, find_sources


class Inputs:
    """Images that a job names.

    Args:
        job: the job.
        stdin: stream for the input ``-``; default: the process's own.

    Attributes:
        total: their number; None if they come from standard input.
        total_of_shards: number of those of all shards; None if they come from standard input.
        unread: counts of images in folders that are left out.

    Raises:
        RequestError: the job names no images, or is invalid as far as that shows before its model is loaded.
        NothingFoundError: there is no image.
    """

    def __init__(self, job: Job, stdin: BinaryIO | None = None) -> None:
        self._job = job
        self._stdin = stdin
        self.unread = SkippedFiles()
        with timing.measure("find"):
            self.total = self.total_of_shards = check_and_count(job, self.unread)
            if job.shard and self.total is not None:
                self.total = sum(1 for _ in self.iter_sources())

    @property
    def source_factory(self) -> Callable[[], Iterator[PictureSource]] | None:
        """Function that iterates over all images, anew at each call; None if they come from standard input."""
        return None if self.total is None else self.iter_sources

    def describe(self) -> dict[str, Any]:
        """Describe for a run's record how many images it is about, and which."""
        shard = {"shard": self._job.shard, "images_of_shard": self.total} if self._job.shard else {}
        return {"images": self.total_of_shards, **shard}

    def iter_sources(self) -> Iterator[PictureSource]:
        """Iterate over all images, in order."""
        return find_sources(self._job, self._stdin)

    def iter_paths(self) -> Iterator[Path]:
        """Iterate over the paths of all images."""
        return (source.path for source in self.iter_sources())

    def stream(self) -> Iterator[PictureSource]:
        """Iterate over all images as they come; for standard input, count what is left out meanwhile."""
        return find_sources(self._job, self._stdin, self.unread if self.total is None else None)

    def note_unread(self) -> list[str]:
        """Return a note on the images that are left out, if any."""
        return list(filter(None, [self.unread.describe()]))

    def note_unread_late(self) -> list[str]:
        """Return a note on the images that are left out, if these are known only after the last image."""
        return self.note_unread() if self.total is None else []
