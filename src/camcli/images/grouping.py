"""Images in groups: of a fixed number, or of one folder each."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from camcli.base import paths
from camcli.images import BY_FOLDER

T = TypeVar("T")


def group_items(items: Iterable[T], group: str, path: Callable[[T], Path]) -> Iterator[list[T]]:
    """Split items into groups of a fixed number, or of one folder each.

    The group of a folder ends after its last image; groups of folders inside it end earlier.

    Args:
        items: items in the order of :func:`find`.
        group: the number of items in a group (the last may have fewer), or ``folder``.
        path: from an item to the path of its image.
    """
    if group != BY_FOLDER:
        rest = iter(items)
        while some := list(itertools.islice(rest, int(group))):
            yield some
        return
    begun: dict[Path, list[T]] = {}
    for item in items:
        folder = Path(paths.absolute(path(item))).parent
        for other in [one for one in reversed(begun) if one != folder and one not in folder.parents]:
            yield begun.pop(other)
        begun.setdefault(folder, []).append(item)
    yield from reversed(begun.values())
