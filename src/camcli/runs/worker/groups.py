"""Groups of images that the model takes together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from camcli.base.errors import PictureError, RequestError
from camcli.base.paths import absolute
from camcli.images import BY_FOLDER
from camcli.images.grouping import group_items
from camcli.images.source import PAUSE, PictureSource
from camcli.runs.worker.item import Item, SourceFactory


def find_first_group(group: str, pictures: SourceFactory | None) -> list[Path]:
    """Return the images to try the network with: the first group (of several images, if any), or the first one.

    Raises:
        RequestError: the images do not make whole groups.
    """
    if pictures is None:
        return [Path()] * (1 if group in ("", BY_FOLDER) else int(group))
    if not group:
        return [source.path for source in islice(pictures(), 1)]
    first: list[Path] = []
    folders: set[int] = set()
    count = 0
    for some in group_items(pictures(), group, lambda one: one.path):
        count += len(some)
        # The scores of a single image cannot be told from its group's.
        if not first or len(first) == 1 < len(some):
            first = [source.path for source in some]
        if wrong := _find_fault(group, some, folders, count):
            raise RequestError(*wrong)
    return first


def form_groups(group_by: str, items: Iterable[Item], on_group: Callable[[Sequence[Item]], None]) -> Iterator[Item]:
    """Yield items group by group; a group of which one must be done is done as a whole.

    Args:
        group_by: the job's ``group``.
        items: the images.
        on_group: called with each group before it is started; may mark its items.
    """
    folders: set[int] = set()
    items = (item for item in items if item.source is not PAUSE)
    for group in group_items(items, group_by, lambda item: item.source.path):
        on_group(group)
        wrong = _find_fault(group_by, [item.source for item in group], folders)
        skipped = all(item.skipped for item in group)
        for item in group:
            item.group_size, item.skipped = len(group), skipped
            item.error = item.error or (PictureError(*wrong) if wrong else None)
        yield from group


def fail_whole_group(group: Sequence[Item]) -> None:
    """Give each image of a group the error of one that cannot be used, if any, since then none can."""
    bad = next((item for item in group if item.error), None)
    for item in group if bad and bad.error else ():
        item.input = item.picture_mask = item.region_mask = None
        if item.error is None:
            assert bad is not None
            assert bad.error is not None
            item.error = PictureError(
                f"{bad.source.path}, of its group, cannot be used: {bad.error.message}", bad.error.hint
            )


def _find_fault(
    group: str, sources: Sequence[PictureSource], folders: set[int], total: int = 0
) -> tuple[str, str] | None:
    """Return the reason why images are not a group, as a message and its hint.

    Args:
        group: the job's ``group``.
        sources: the images.
        folders: hashes of the folders seen so far.
        total: number of all images, if known.
    """
    if group == BY_FOLDER:
        folder = sources[0].path.parent
        place = absolute(folder)
        is_repeated = hash(place) in folders
        folders.add(hash(place))
        return (
            (f"the images of {str(folder)!r} come in two parts", "name the folder once, as a whole")
            if is_repeated
            else None
        )
    if len(sources) == int(group):
        return None
    fault = f"{total} images do not make groups of {group}" if total else f"images do not end with a group of {group}"
    return f"{fault}: {len(sources)} left over", "leave those out, or give as many as are missing"
