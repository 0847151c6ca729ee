"""Pictures as files of targets and of features name them: by path, from several folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from camcli.errors import RequestError

# How the first row of a CSV file may call the column of pictures.
PICTURE_COLUMNS = ("picture", "image", "file", "filename", "path", "source")
# How many names a message lists.
MOST_NAMES = 5


class Names:
    """Which pictures the names in a file stand for.

    A picture is named by its path: as it stands, from the file's folder, or from one of ``folders``.

    Args:
        file: the file.
        folders: the folders that pictures are taken from.

    Attributes:
        surplus: what was named and nobody can find.
    """

    def __init__(self, file: Path, folders: Sequence[Path] = ()) -> None:
        self.file = file
        self.surplus: list[str] = []
        self._bases = list(dict.fromkeys(base.absolute() for base in [Path(), file.parent, *folders]))

    def find(self, name: str, where: str) -> Path | None:
        """The picture of this name, as :func:`normal` has it; None if there is none, which is kept in ``surplus``.

        Args:
            name: as the file has it.
            where: in the file, such as ``line 3``, for messages.

        Raises:
            RequestError: two folders have one.
        """
        # A name that is no path at all, such as one with a NUL in it, is nobody's.
        bases = self._bases if name and "\0" not in name else []
        places = {normal(base / name) for base in bases if (base / name).exists()}
        if len(places) > 1:
            raise RequestError(
                f"{self.file}, {where}: {name!r} can be {len(places)} pictures: " + ", ".join(sorted(map(str, places))),
                "write its whole path",
            )
        if not places:
            self.surplus.append(name)
            return None
        return places.pop()


def normal(path: Path) -> Path:
    """The path by which a picture is known, however it was named."""
    # Not resolve(): a link is a picture of its own.
    return Path(str(path.absolute())) if ".." not in path.parts else path.parent.resolve() / path.name


def lacking(known: Iterable[Path], paths: Iterator[Path]) -> tuple[list[str], int, int]:
    """Of the pictures of a run: the first names that are not among those known, how many are not, and how many are.

    Args:
        known: paths as :func:`normal` has them.
        paths: of the pictures.
    """
    there = frozenset(known)
    names: list[str] = []
    missing = met = 0
    for path in paths:
        if normal(path) in there:
            met += 1
            continue
        missing += 1
        if len(names) < MOST_NAMES:
            names.append(str(path))
    return names, missing, met


def several(names: Sequence[str], count: int) -> str:
    """The first names of so many, in words."""
    shown = names[:MOST_NAMES]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
