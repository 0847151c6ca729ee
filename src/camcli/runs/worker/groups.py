"""Pictures that belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from camcli.base.errors import PictureError, RequestError
from camcli.base.paths import absolute
from camcli.images import BY_FOLDER
from camcli.images.find import grouped
from camcli.images.source import PAUSE, Source
from camcli.runs.worker.item import Item, Pictures


def first_group(group: str, pictures: Pictures | None) -> list[Path]:
    """The pictures to try the network with: those of the first group (of several, if there is one), or the first.

    Raises:
        RequestError: the pictures do not make whole groups.
    """
    if pictures is None:
        return [Path()] * (1 if group in ("", BY_FOLDER) else int(group))
    if not group:
        return [source.path for source in islice(pictures(), 1)]
    first: list[Path] = []
    folders: set[int] = set()
    met = 0
    for some in grouped(pictures(), group, lambda one: one.path):
        met += len(some)
        # Of a single picture nobody can say whether its scores are its own or its group's.
        if not first or len(first) == 1 < len(some):
            first = [source.path for source in some]
        if wrong := _find_fault(group, some, folders, met):
            raise RequestError(*wrong)
    return first


def form_groups(group_by: str, items: Iterable[Item], begin: Callable[[Sequence[Item]], None]) -> Iterator[Item]:
    """Items group by group; a group of which one must be done is done as a whole.

    Args:
        group_by: what makes a group.
        items: the pictures.
        begin: is told each group before it is begun, and may mark its items.
    """
    folders: set[int] = set()
    items = (item for item in items if item.source is not PAUSE)
    for group in grouped(items, group_by, lambda item: item.source.path):
        begin(group)
        wrong = _find_fault(group_by, [item.source for item in group], folders)
        skipped = all(item.skipped for item in group)
        for item in group:
            item.mates, item.skipped = len(group), skipped
            item.error = item.error or (PictureError(*wrong) if wrong else None)
        yield from group


def fail_together(group: Sequence[Item]) -> None:
    """Give each picture of a group the error of one that cannot be used, since then none can."""
    bad = next((item for item in group if item.error), None)
    for item in group if bad and bad.error else ():
        item.input = item.seen = item.region = None
        if item.error is None:
            assert bad is not None
            assert bad.error is not None
            item.error = PictureError(
                f"{bad.source.path}, of its group, cannot be used: {bad.error.message}", bad.error.hint
            )


def _find_fault(group: str, sources: Sequence[Source], folders: set[int], total: int = 0) -> tuple[str, str] | None:
    """Reason why these are no group, as a message and its hint.

    Args:
        group: what makes one.
        sources: the pictures.
        folders: hashes of the folders met so far.
        total: of pictures, if it is known.
    """
    if group == BY_FOLDER:
        folder = sources[0].path.parent
        place = absolute(folder)
        again = hash(place) in folders
        folders.add(hash(place))
        return (
            (f"the pictures of {str(folder)!r} come in two parts", "name the folder once, as a whole")
            if again
            else None
        )
    if len(sources) == int(group):
        return None
    of = f"{total} pictures do not make groups of {group}" if total else f"pictures do not end with a group of {group}"
    return f"{of}: {len(sources)} left over", "leave those out, or give as many as are missing"
