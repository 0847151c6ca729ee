"""Files that list values for each image, and the lookup of the images that they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from camcli.base.delimited import normalize_title
from camcli.base.errors import PictureError, RequestError
from camcli.base.paths import absolute
from camcli.base.words import MAX_NAMES, shorten
from camcli.images.address import is_url
from camcli.images.files import exists
from camcli.images.manifest_rows import PICTURE_COLUMNS, Column, read_manifest_rows

T = TypeVar("T")

# Files that lie beside images under the same name.
SIDECAR_SUFFIXES = frozenset(
    {
        *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".caption", ".md"),
        *(".npy", ".npz", ".pt", ".pth", ".safetensors"),
    }
)


class PathIndex:
    """Lookup of the images that a file names.

    An image is named by its path: from the current folder, from the file's folder, or from one of ``folders``; the
    suffix may be left out.

    Args:
        file: path of the file.
        folders: folders that images are taken from.

    Attributes:
        unmatched: names that match no image.
    """

    def __init__(self, file: Path, folders: Sequence[Path] = ()) -> None:
        self.file = file
        self.unmatched: list[str] = []
        self._bases = list(dict.fromkeys(base.absolute() for base in [Path(), file.parent, *folders]))
        self._stems: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str, where: str) -> Path | None:
        """Return the normalized path of the named image; if there is none, None, and add the name to ``unmatched``.

        Args:
            name: name as written in the file.
            where: place in the file, such as ``line 3``, for messages.

        Raises:
            RequestError: the name fits several images.
        """
        if is_url(name):  # whether something is there shows when it is read
            return normalize(Path(name))
        # A name with a NUL in it cannot be a path.
        bases = self._bases if name and "\0" not in name else []
        places = {normalize(base / name) for base in bases if exists(base / name)}
        places = places or {normalize(one) for base in bases for one in self._without_suffix(base / name)}
        if len(places) > 1:
            raise RequestError(
                f"{self.file}, {where}: {name!r} can be {len(places)} images: " + ", ".join(sorted(map(str, places))),
                "write its whole path",
            )
        if not places:
            self.unmatched.append(name)
            return None
        return places.pop()

    def _without_suffix(self, path: Path) -> list[Path]:
        """Return the images whose path without suffix is this one; each folder is read once."""
        folder = path.parent
        if folder not in self._stems:
            stems = self._stems[folder] = defaultdict(list)
            try:
                for one in folder.iterdir():
                    if one.suffix and one.suffix.lower() not in SIDECAR_SUFFIXES:
                        stems[one.stem].append(one)
            except (OSError, ValueError):  # a missing or unreadable folder counts as empty
                pass
        return self._stems[folder].get(path.name, [])


class Manifest(Generic[T]):
    """A file that lists one or several values for each image.

    The file is a table with an image and a word a row (with a first row ``picture,target`` or without; further columns
    are further words, unless the first row names one), or JSONL with ``{"picture": ..., "target": ...}`` a line, where
    the target is a word or a list of words. Several rows of one image are several words. If the column type allows
    it, the table may be one-hot, its first row naming the column of images and one column for each word. Images are
    named as for :class:`PathIndex`.

    Args:
        file: path of the file.
        column_type: kind of value that the file lists.
        parse: from a word to its value.
        folders: folders that images are taken from.

    Attributes:
        unmatched: names in the file that match no image.

    Raises:
        RequestError: the file cannot be read; a row is malformed, has an unknown word, or names an image that two
            folders have.
    """

    def __init__(
        self, file: Path, column_type: Column, parse: Callable[[str], T], folders: Sequence[Path] = ()
    ) -> None:
        self.file, self.column_type = file, column_type
        self._values: dict[Path, list[T]] = {}
        names = PathIndex(file, folders)
        self.unmatched = names.unmatched
        find = cache(parse)

        def means(word: str) -> bool:
            try:
                find(word)
            except RequestError:
                return False
            return True

        for turn, (line, picture, words) in enumerate(read_manifest_rows(file, column_type, means)):
            try:
                found = [find(word) for word in words]
            except RequestError as error:
                hint = error.hint
                if not turn and names.find(picture, f"line {line}") is None:
                    hint = f"is it a row of titles? call its columns image and {column_type.noun}\n{hint}"
                raise RequestError(f"{file}, line {line} ({picture!r}): {error.message}", hint) from None
            place = names.find(picture, f"line {line}")
            if place is not None:
                self._values.setdefault(place, []).extend(found)
            elif not turn and any(normalize_title(one) in PICTURE_COLUMNS for one in (picture, *words)):
                raise RequestError(
                    f"{file}, line {line}: {','.join((picture, *words))!r} is a header row without a column for the "
                    f"{column_type.noun}",
                    f"call it {column_type.noun}; there are: {', '.join(column_type.columns)}",
                )

    def get(self, path: Path) -> tuple[T, ...]:
        """Return the values of an image in order, without repetitions; empty if the file does not list it."""
        return tuple(dict.fromkeys(self._values.get(normalize(path), ())))

    def paths(self) -> list[Path]:
        """Return the normalized paths of the listed images that were found."""
        return list(self._values)

    def require(self, path: Path) -> tuple[T, ...]:
        """Return the values of an image.

        Raises:
            PictureError: the file does not list it.
        """
        found = self.get(path)
        if not found:
            raise PictureError(
                f"{self.file} lists no {self.column_type.noun} for this image",
                f"add a line with its path and {self.column_type.meaning}",
            )
        return found

    def find_unused(self, paths: Iterator[Path]) -> list[str]:
        """Return the names in the file that belong to none of the images of the run."""
        left = set(self._values) - {normalize(path) for path in paths}
        return [*self.unmatched, *sorted(map(str, left))]

    def check(self, paths: Iterator[Path]) -> None:
        """Check that every image is listed.

        Raises:
            RequestError: some are not.
        """
        names, missing, met = missing_from(self._values, paths)
        if missing:
            raise RequestError(
                f"{self.file} lists {self.column_type.noun}s of {met} of the {met + missing} images; not of "
                f"{shorten(names, missing)}",
                f"add a line with path and {self.column_type.meaning} for each, or leave those images out",
            )


def normalize(path: Path) -> Path:
    """Return the absolute path, by which an image is known however it was named."""
    return Path(absolute(path))


def missing_from(known: Iterable[Path], paths: Iterator[Path]) -> tuple[list[str], int, int]:
    """Return the first names of missing images, the number of missing ones, and the number of known ones.

    Args:
        known: normalized paths.
        paths: paths of the images of a run.
    """
    there = frozenset(known)
    names: list[str] = []
    missing = met = 0
    for path in paths:
        if normalize(path) in there:
            met += 1
            continue
        missing += 1
        if len(names) < MAX_NAMES:
            names.append(str(path))
    return names, missing, met
