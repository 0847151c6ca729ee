"""Folders that output names are relative to: the current one, and another for images outside it."""

# Paths stay strings, as in the search.
# ruff: noqa: PTH116, PTH118, PTH120

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.base import paths
from camcli.images.address import is_url
from camcli.images.archives import split_path
from camcli.images.braces import expand_braces
from camcli.images.formats import CONTAINER_SUFFIXES
from camcli.images.lists import iter_entries
from camcli.images.naming import output_name, shorten_component

# Folders whose names are remembered.
MAX_FOLDERS = 1000


@dataclass(frozen=True, slots=True)
class Roots:
    """Folders that output names are relative to, so that no two images of a run share a name.

    Attributes:
        inner: the folder named by ``--root``, or the current one; pictures below it are named by their path from there.
        outer: the folder from which other pictures are named; empty if there is none.
        piped: names also come from standard input, of which nothing is known beforehand.
    """

    inner: str
    outer: str = ""
    piped: bool = False

    @classmethod
    def choose(cls, inputs: Sequence[str], inner: str, null_separated: bool = False) -> "Roots":
        """Choose the folders for a run: outside ``inner``, the common parent of the inputs that lie there.

        If an input holds ``inner`` itself, all names are relative to its parent. If there are inputs on both sides, the
        outer folder lies so far up that no first part of a name exists in ``inner`` too.
        """
        piped = "-" in inputs
        parents: set[str] = set()
        mixed = piped
        for path in map(paths.absolute, map(_leave_archive, _iter_paths(expand_braces(inputs), null_separated))):
            if _is_inside(path, inner):
                mixed = True
            else:
                parents.add(os.path.dirname(path))
                if _is_inside(inner, path):
                    inner = os.path.dirname(path)
        outside = [parent for parent in parents if not _is_inside(parent, inner)]
        if piped:
            return cls(inner, os.path.splitdrive(inner)[0] + os.sep, piped)
        if not outside:
            return cls(inner)
        try:
            outer = os.path.commonpath(outside)
        except ValueError:  # on several drives
            return cls(inner)
        while mixed and any(_is_ambiguous(parent, outer, inner) for parent in outside):
            if outer == os.path.dirname(outer):
                return cls(inner)
            outer = os.path.dirname(outer)
        return cls(inner, outer)

    def name(self, path: str) -> tuple[str, str]:
        """Return an image's output name, and the folder that it is relative to; empty if it is none of the two."""
        absolute = paths.absolute(path)
        if _is_inside(absolute, self.inner):
            return output_name(absolute, self.inner), self.inner
        if not self.outer or not _is_inside(absolute, self.outer):
            return output_name(absolute, self.inner), ""
        if self.piped and _is_ambiguous(os.path.dirname(absolute), self.outer, self.inner):
            return output_name(absolute, self.inner), ""
        return output_name(absolute, self.outer), self.outer


class FileNames:
    """Output names of files, made from those of their folders once these are known.

    Args:
        roots: the folders that names are relative to.
    """

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._folders: dict[str, tuple[str, str]] = {}

    def name(self, path: str) -> tuple[str, str]:
        """Return a file's output name, and the folder that it is relative to; as :meth:`Roots.name`."""
        folder, _, last = path.rpartition("/")
        if last in ("", ".", ".."):
            return self.roots.name(path)
        if (known := self._folders.get(folder)) is not None:
            return f"{known[0]}/{shorten_component(last)}", known[1]
        name, root = self.roots.name(path)
        above, slash, _ = name.rpartition("/")
        if slash:  # else its first part may be written otherwise
            if len(self._folders) >= MAX_FOLDERS:
                self._folders.clear()
            self._folders[folder] = above, root
        return name, root


def _iter_paths(inputs: Sequence[str], null_separated: bool) -> Iterator[str]:
    """Yield the paths that inputs name: of lists their entries, of patterns the part before the first wildcard."""
    for given in inputs:
        if is_url(given):
            continue
        if os.path.lexists(given) and not given.startswith("@"):
            yield given
        elif given.startswith("@"):
            yield from _read_list(given[1:], null_separated)
        elif given != "-":
            parts = Path(given).parts
            fixed = next((place for place, part in enumerate(parts) if any(one in part for one in "*?[")), len(parts))
            # Any name will do for what matches.
            yield os.path.join(*parts[:fixed], "*") if fixed < len(parts) else given


def _leave_archive(path: str) -> str:
    """Return the path of the archive or table that a path leads into; any other path as it is."""
    inside = any(suffix + os.sep in path.lower() for suffix in CONTAINER_SUFFIXES)
    return (split_path(path) or (path,))[0] if inside else path


def _read_list(file: str, null_separated: bool) -> Iterator[str]:
    try:
        if stat.S_ISREG(os.stat(file).st_mode):
            entries = iter_entries(file, b"\0" if null_separated else b"\n")
            names = (os.fsdecode(entry.name) for entry in entries if entry and b"\0" not in entry.name)
            yield from (name for name in names if not is_url(name))
    except OSError:  # reported by the search
        return


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_ambiguous(parent: str, outer: str, inner: str) -> bool:
    """Return whether names of files in ``parent``, from ``outer``, could be those of others in ``inner``."""
    first = next(iter(Path(os.path.relpath(parent, outer)).parts), os.curdir)
    return first == os.curdir or os.path.lexists(os.path.join(inner, first))
