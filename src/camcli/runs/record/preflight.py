"""Checks of a job against its images and its output folder, before its model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import BinaryIO

from camcli.base.errors import NothingFoundError, RequestError, did_you_mean
from camcli.base.paths import absolute
from camcli.images import BY_FOLDER
from camcli.images.address import is_url, to_url
from camcli.images.decode import parse_colour
from camcli.images.find import find
from camcli.images.formats import SkippedFiles
from camcli.images.pages import expand_pages
from camcli.images.refusals import suggest_path
from camcli.images.roots import Roots
from camcli.images.source import PAUSE, PictureSource
from camcli.models import RANDOM_WEIGHTS
from camcli.outputs import COLORMAPS
from camcli.runs.job.content import FILE_OPTIONS
from camcli.runs.job.folder_name import find_parent
from camcli.runs.job.job import Job
from camcli.runs.job.option import get_option
from camcli.runs.job.shard import Shard, parse_shard
from camcli.runs.store.store import Store


def find_sources(
    job: Job, stdin: BinaryIO | None = None, unread: SkippedFiles | None = None
) -> Iterator[PictureSource]:
    """Find the images that a job names, of its shard if it has one; its input ``-`` reads from ``stdin``."""
    found = find_unsharded_sources(job, stdin, unread)
    shard = read_shard(job)
    return (one for one in found if one is PAUSE or shard.holds(one.name)) if shard else found


def find_unsharded_sources(
    job: Job, stdin: BinaryIO | None = None, unread: SkippedFiles | None = None
) -> Iterator[PictureSource]:
    """Find the images that a job names in all its shards."""
    return _take(expand_pages(_find(job, stdin, unread), job.pages, job.every), job.limit)


def read_shard(job: Job) -> Shard | None:
    """Return the shard of a job's images that it is about; None for all of them."""
    shard = parse_shard(job.shard)
    return replace(shard, by_folder=job.group == BY_FOLDER) if shard else None


def _find(job: Job, stdin: BinaryIO | None = None, unread: SkippedFiles | None = None) -> Iterator[PictureSource]:
    return find(
        job.inputs,
        out=find_parent(job),
        stdin=stdin,
        null_separated=job.null_separated,
        root=Path(job.root) if job.root else None,
        skipped=unread,
        videos=bool(job.every),
        carry=job.carry,
    )


def _take(sources: Iterator[PictureSource], limit: int) -> Iterator[PictureSource]:
    """Yield the first images, as many as ``limit`` says; all for 0."""
    for source in sources:
        yield source
        if source is not PAUSE:
            limit -= 1
            if limit == 0:
                return


def check_early(job: Job) -> None:
    """Check a job's files and folders as far as that goes without PyTorch, so that a typo is answered at once.

    Raises:
        RequestError: a file or an input that the job names does not exist, or the store for the outputs cannot be used.
        NothingFoundError: there is no image.
    """
    parse_colour(job.background)
    _check_request(job)
    _check_files(job)
    if is_url(job.out):
        Store(job.out).check()
    sources = _find(job)
    if "-" not in job.inputs and next(sources, None) is None:
        check_and_count(job, SkippedFiles())  # says why, with what was left out


def _check_files(job: Job) -> None:
    if job.root and not Path(job.root).is_dir():
        raise RequestError(f"there is no folder {job.root!r}, which --root names", suggest_path(job.root))
    options = {one.name: get_option(one) for one in fields(job)}
    for name in FILE_OPTIONS:
        given, option = getattr(job, name), options[name]
        is_file = given and given != RANDOM_WEIGHTS and not (name == "region" and given.count(",") == 3)
        if is_file and not Path(given).exists():
            flag = option.find_flag(name) if option else name
            raise RequestError(f"there is no file {given!r}, which {flag} names", suggest_path(given))


def check_and_count(job: Job, unread: SkippedFiles) -> int | None:
    """Check a job before its model is loaded; return the number of images, of all shards; None if that is not known.

    Args:
        job: the job.
        unread: counts images in folders that are left out, unless names come from standard input.

    Raises:
        RequestError: it names no images, its output folder is not a folder, or there is no such colour map.
        NothingFoundError: there is no image.
    """
    _check_request(job)
    total = None if "-" in job.inputs else sum(1 for _ in find_unsharded_sources(job, unread=unread))
    if total == 0:
        beside = f"; {words}" if (words := unread.describe()) else ""
        raise NothingFoundError(f"there is no image in {', '.join(job.inputs)}{beside}")
    return total


def _check_request(job: Job) -> None:
    if job.drop_others and not job.overwrite:
        raise RequestError("--drop-others has no effect without --overwrite", "add --overwrite")
    if not job.inputs:
        raise RequestError("no images were named", "name files, folders, globs, @list.txt, or - for standard input")
    if is_url(job.out):
        if job.durable:
            raise RequestError("--durable is about disks; a store keeps what it was given", "leave --durable out")
        Store(job.out)
    else:
        _check_out(job)
    if job.colormap not in COLORMAPS:
        hint = did_you_mean(job.colormap, COLORMAPS) or f"there are: {', '.join(COLORMAPS)}"
        raise RequestError(f"there is no colour map {job.colormap!r}", hint)


def _check_out(job: Job) -> None:
    out = find_parent(job)
    if url := to_url(out):
        raise RequestError(f"--out {job.out} is no address", f"did you mean {url}?")
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        where = "is a file, not a folder" if there == out else f"would lie in {there}, which is a file"
        named = f"--out {job.out}" if job.out else f"the output folder {str(out)!r}"
        raise RequestError(f"{named} {where}", "name a folder by --out; it is created if it does not exist")


def refuse_store(job: Job, command: str) -> None:
    """Check that a command that writes to local folders alone is to do so.

    Raises:
        RequestError: it is to write to an object store.
    """
    if is_url(job.out):
        raise RequestError(
            f"camcli {command} writes to local folders, not to {job.out!r}", "name a folder by --out, and copy it"
        )


def check_output_folder(job: Job) -> None:
    """Check that outputs do not lie among the images of a folder, where the next run would find them.

    Raises:
        RequestError: they would.
    """
    roots = Roots.choose(job.inputs, absolute(job.root), job.null_separated)
    for given in job.inputs if job.out else ():
        folder = Path(given)
        beside = Path(job.out) / roots.name(given)[0]
        if folder.is_dir() and beside.is_dir() and beside.samefile(folder):
            raise RequestError(
                f"with --out {job.out} the outputs would lie among the images in {given!r}",
                "name another folder: --out maps",
            )
