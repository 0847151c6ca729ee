"""Checks of a job against its pictures and its output folder, before its model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from camcli.base.errors import NothingFoundError, RequestError, did_you_mean
from camcli.images.find import find
from camcli.images.formats import SkippedFiles
from camcli.images.naming import output_name
from camcli.images.pages import expand_pages
from camcli.images.source import PAUSE, PictureSource
from camcli.outputs import COLORMAPS
from camcli.runs.job.job import Job


def find_sources(
    job: Job, stdin: BinaryIO | None = None, unread: SkippedFiles | None = None
) -> Iterator[PictureSource]:
    """Find the pictures that a job names; its input ``-`` reads from ``stdin``, by default the process's own."""
    sources = find(
        job.inputs,
        out=Path(job.out),
        stdin=stdin,
        null_separated=job.null_separated,
        root=Path(job.root) if job.root else None,
        skipped=unread,
    )
    return _take(expand_pages(sources, job.pages), job.limit)


def _take(sources: Iterator[PictureSource], limit: int) -> Iterator[PictureSource]:
    """Yield the first pictures, as many as ``limit`` says; all for 0."""
    for source in sources:
        yield source
        limit -= source is not PAUSE
        if limit == 0:
            return


def check_and_count(job: Job, unread: SkippedFiles) -> int | None:
    """Check a job before its model is loaded; return its number of pictures, None if they come from standard input.

    Args:
        job: the job.
        unread: counts pictures in folders that are left out, unless names come from standard input.

    Raises:
        RequestError: it names no pictures, its output folder is not a folder, or there is no such colour map.
        NothingFoundError: there is no picture.
    """
    if job.drop_others and not job.overwrite:
        raise RequestError("other jobs' results are to be dropped, and nothing overwritten", "say --overwrite too")
    if not job.inputs:
        raise RequestError("no pictures were named", "name files, folders, globs, @list.txt, or - for standard input")
    there = next(path for path in (Path(job.out), *Path(job.out).absolute().parents) if path.exists())
    if not there.is_dir():
        where = "is a file, not a folder" if there == Path(job.out) else f"would lie in {there}, which is a file"
        raise RequestError(f"--out {job.out} {where}", "name a folder; it is made if need be")
    if job.colormap not in COLORMAPS:
        hint = did_you_mean(job.colormap, COLORMAPS) or f"there are: {', '.join(COLORMAPS)}"
        raise RequestError(f"there is no colour map {job.colormap!r}", hint)
    total = None if "-" in job.inputs else sum(1 for _ in find_sources(job, unread=unread))
    if total == 0:
        beside = f"; {words}" if (words := unread.describe()) else ""
        raise NothingFoundError(f"there is no picture in {', '.join(job.inputs)}{beside}")
    return total


def check_output_folder(job: Job) -> None:
    """Check that outputs do not lie among the pictures of a folder, where the next run would find them.

    Raises:
        RequestError: they would.
    """
    for given in job.inputs:
        folder = Path(given)
        beside = Path(job.out) / output_name(folder, Path(job.root).absolute())
        if folder.is_dir() and beside.is_dir() and beside.samefile(folder):
            raise RequestError(
                f"with --out {job.out} the outputs would lie among the pictures in {given!r}",
                "name another folder: --out maps",
            )
