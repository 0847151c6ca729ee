"""The pictures of a run: counted before its model is loaded, gone over as often as need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from camcli.images.formats import Unread
from camcli.images.source import Source
from camcli.runs.job.job import Job
from camcli.runs.record.preflight import check, found


class Inputs:
    """The pictures that a job names.

    Args:
        job: what is asked.
        stdin: what the input ``-`` reads; default: the process's own.

    Attributes:
        total: their number; None if they come from standard input.
        unread: what is in folders and is left out though it is a picture.

    Raises:
        RequestError: the job names no pictures, or what can be said of it before its model is loaded cannot be.
        NothingFoundError: there is no picture.
    """

    def __init__(self, job: Job, stdin: BinaryIO | None = None) -> None:
        self._job = job
        self._stdin = stdin
        self.unread = Unread()
        self.total = check(job, self.unread)

    @property
    def known(self) -> Callable[[], Iterator[Source]] | None:
        """Goes over all pictures, anew each time that it is called; None if they come from standard input."""
        return None if self.total is None else self.sources

    def sources(self) -> Iterator[Source]:
        """All pictures, in order."""
        return found(self._job, self._stdin)

    def names(self) -> Iterator[str]:
        """Their output names."""
        return (source.name for source in self.sources())

    def paths(self) -> Iterator[Path]:
        """Where they are."""
        return (source.path for source in self.sources())

    def stream(self) -> Iterator[Source]:
        """All pictures, as they come; of those from standard input it is counted now what is left out."""
        return found(self._job, self._stdin, self.unread if self.total is None else None)

    def notes(self) -> list[str]:
        """Note what is left out."""
        return list(filter(None, [self.unread.words()]))

    def late_notes(self) -> list[str]:
        """Note what is left out, if that is known behind the last picture only."""
        return self.notes() if self.total is None else []
