"""Results that earlier runs kept as arrays, with the images that they are of, read again to be drawn in other looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camcli.base.errors import PictureError
from camcli.images.address import show_path
from camcli.images.decode import decode_reduced, never_reduce
from camcli.images.files import read_stamp
from camcli.images.source import Picture, PictureSource
from camcli.runs.record.earlier import has_file
from camcli.runs.record.folder import Folder
from camcli.runs.record.ledger import STAMP_SEPARATOR
from camcli.runs.record.lines import Line

if TYPE_CHECKING:
    from camcli.runs.worker.worker import Worker

REDRAWN = "images whose maps are in the output folder are drawn from these, and not computed again"


def can_redraw(folder: Folder, lines: Sequence[Line]) -> bool:
    """Return whether all maps of an image are kept, so that they can be drawn without the network."""
    return all(
        "array" in one.files and has_file(folder.find_size, one.files["array"], one.sizes.get("array")) for one in lines
    )


def check_inside(folder: Folder, files: Iterable[str]) -> None:
    """Check that files named by a ledger, which may have been edited, lie in the folder.

    Raises:
        PictureError: one lies outside the output folder.
    """
    for file in files:
        if folder.resolve_inside(file) is None:
            raise PictureError(f"a record in {show_path(folder.out)!r} names {file!r}, which lies outside the folder")


def load_array(folder: Folder, line: Line) -> Any:
    """Load the array that a line names, as NumPy does.

    Raises:
        PictureError: it lies outside the output folder.
    """
    check_inside(folder, [line.files["array"]])
    return np.load(folder.find_file(line.files["array"]), allow_pickle=False)


def find_source(line: Line, out: Path | None = None) -> PictureSource:
    """Find the image of a line.

    Args:
        line: the line.
        out: the output folder, to find an image whose path was given from another folder than the current one, by its
            name and the folder that this is relative to.

    Raises:
        PictureError: it is gone, or was changed since.
    """
    named = [str(out / line.root / line.name)] if out is not None and line.root and not line.page else []
    stamps = {path: read_stamp(path) for path in (line.source, *named)}
    for path, stamp in stamps.items():
        if stamp == line.stamp.partition(STAMP_SEPARATOR)[0]:
            return PictureSource(path, line.name, page=line.page)
    raise PictureError("the image was changed since" if any(stamps.values()) else "the image is gone")


def decode_again(worker: Worker, line: Line, max_divisor: Callable[[int, int], float] = never_reduce) -> Picture:
    """Decode the image of a line again.

    Args:
        worker: the resolved job.
        line: the line.
        max_divisor: see :func:`camcli.images.decode.decode_reduced`.

    Raises:
        PictureError: it was changed since, or cannot be read.
    """
    source, job = find_source(line), worker.job
    opened = decode_reduced(source.path, max_divisor, job.background, job.range, source.page, worker.bands)
    view = worker.network.preprocess.view(*opened.size)
    return Picture(source, np.asarray(opened.image), view, opened.info)
