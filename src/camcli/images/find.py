"""Find pictures: files, folders, globs and lists."""

# Paths stay strings while they are sought: no link is resolved, no step is lost.
# ruff: noqa: PTH112, PTH116, PTH118, PTH120, PTH121, PTH208

import fnmatch
import itertools
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from camcli.base import paths, weight_files
from camcli.base.errors import RequestError, did_you_mean
from camcli.images import BY_FOLDER
from camcli.images.decode import T
from camcli.images.formats import SUFFIXES, Unread, suffix_of
from camcli.images.name_stream import entries
from camcli.images.naming import output_name
from camcli.images.source import PAUSE, Bytes, Source
from camcli.images.written import Written

# What has both of a pair in it is a folder that camcli wrote.
OUTPUT_MARKS = (
    ("run.json", "outcomes.jsonl"),
    ("channels.json", "channels.csv"),
    ("channels.json", "channels.untrained.csv"),
    ("prompts.json", "prompts.jsonl"),
)


# --- find ---------------------------------------------------------------------------------------------------------


def find(
    inputs: Sequence[str],
    *,
    out: Path,
    stdin: Bytes | None = None,
    null_separated: bool = False,
    root: Path | None = None,
    unread: Unread | None = None,
) -> Iterator[Source]:
    """The pictures that are asked for, one after the other, always in the same order.

    An input is a file (tried whatever its suffix, but for those of weights), a folder (everything below it with a
    picture's suffix, nothing hidden, links followed but never in circles), a glob pattern (``**`` too; what exists
    under that very name comes first; what matches counts as if given by name), ``@list.txt`` or ``-`` (file and folder
    names, one a line). Folders that camcli wrote, ``out`` among them, are left out unless they are given by name; so is
    every single file that it wrote among others. A picture that is reached twice is yielded once.

    What was given is checked now, what is listed or found is checked when its turn comes: one folder's names are held
    at a time, never the whole tree's. Where names come from a pipe and none comes for a while, ``PAUSE`` is given, as
    often as that is so.

    Args:
        inputs: what the user gave.
        out: the output folder; it need not exist.
        stdin: what ``-`` reads; default: the process's standard input.
        null_separated: names in lists end in NUL instead of a newline.
        root: output names are relative to this folder; default: the current one.
        unread: counts what is left out though it is a picture, or was named.

    Raises:
        RequestError: an input does not exist, matches nothing, cannot be read as a list, is the output folder, or is a
            file of weights.
    """
    search = _Search(out, paths.absolute(root or ""), null_separated, unread)
    sources = [search.input(given, stdin) for given in inputs]
    found = itertools.chain.from_iterable(sources)
    # One file or folder cannot name a picture twice: no set of names then grows with the run.
    return found if len(inputs) == 1 and os.path.lexists(inputs[0]) else _once(found, unread)


def grouped(items: Iterable[T], group: str, path: Callable[[T], Path]) -> Iterator[list[T]]:
    """Items in groups: so many after one another, or those of one folder.

    A folder's group ends where its folder does, so that folders inside it, which come between its pictures, end before.

    Args:
        items: in the order of :func:`find`.
        group: a number, the last group then being perhaps smaller, or ``folder``.
        path: of an item's picture.
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


def _once(sources: Iterable[Source], unread: Unread | None) -> Iterator[Source]:
    seen: set[int] = set()  # hashes, since a run may have a million names
    for source in sources:
        name = hash(source.name)
        if source is PAUSE:
            yield source
        elif name not in seen:
            seen.add(name)
            yield source
        elif unread is not None:
            unread.twice += 1


# A path and why it cannot be read; the path of a folder ends in `/`.
_Found = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Search:
    out: Path
    root: str
    null_separated: bool
    unread: Unread | None = None
    written: Written = field(default_factory=Written)

    def source(self, path: str, error: str = "") -> Source:
        return Source(Path(path), output_name(path, self.root), error)

    def input(self, given: str, stdin: Bytes | None) -> Iterator[Source]:
        """What one input stands for; whether it stands for anything is checked before this returns."""
        if given == "-":
            return self.listed(stdin or sys.stdin.buffer)
        if given.startswith("@"):
            return self.list_file(given[1:])
        if os.path.lexists(given):
            if self.is_out(given):
                raise RequestError(
                    f"the input {given!r} is the output folder", "name another output folder with --out FOLDER"
                )
            _check_is_no_weights(given)
            return self.named(given)
        if _is_pattern(given):
            return self.pattern(given)
        _check_is_no_weights(given)
        raise _missing(given)

    def named(self, path: str) -> Iterator[Source]:
        if not os.path.isdir(path):
            if not self.is_written(path):
                yield self.source(path)
            return
        # Who names a folder that camcli wrote means what is in it.
        wanted = self.is_output(path)
        for found, error in self.tree(_as_folder(path), self.keep):
            if error or not (found.endswith("/") or (not wanted and self.is_written(found))):
                yield self.source(found, error)

    def is_written(self, path: str) -> bool:
        """Whether a file is an output of camcli, which then is counted."""
        written = self.written(path)
        if written and self.unread is not None:
            self.unread.written += 1
        return written

    def keep(self, folder: str, name: str) -> bool:
        """Whether a file in a folder is a picture that is read; one that is not is counted."""
        if not _is_visible(name):
            return False
        read = suffix_of(name) in SUFFIXES
        if not read and self.unread is not None:
            self.unread(folder + name)
        return read

    def list_file(self, path: str) -> Iterator[Source]:
        try:
            if stat.S_ISFIFO(os.stat(path).st_mode):  # as a shell's <(...); lists are read twice, first to count
                raise RequestError(f"the list {path!r} is a pipe, which can be read only once", "pipe the names into -")
            with Path(path).open("rb"):
                pass
        except FileNotFoundError:
            raise _missing(path, "list", "a picture whose name begins with @ is given as ./@name") from None
        except OSError as error:
            raise RequestError(f"the list {path!r} cannot be read: {error.strerror}") from error
        return self.from_list(path)

    def from_list(self, path: str) -> Iterator[Source]:
        with Path(path).open("rb") as file:
            yield from self.listed(file)

    def listed(self, stream: Bytes) -> Iterator[Source]:
        for entry in entries(stream, b"\0" if self.null_separated else b"\n"):
            if entry is None:
                yield PAUSE
                continue
            path = os.fsdecode(entry)
            if os.path.lexists(path):
                error = "is the output folder" if self.is_out(path) else ""
                yield from [self.source(path, error)] if error else self.named(path)
            elif "\0" in path:
                yield self.source(
                    path.replace("\0", "\N{REPLACEMENT CHARACTER}"), "the name has a NUL in it: is -0 missing?"
                )
            else:
                lines = self.null_separated and "\n" in path
                hint = ": are the names separated by newlines, and -0 too much?" if lines else ""
                yield self.source(path, "there is no such file or folder" + hint)

    def pattern(self, pattern: str) -> Iterator[Source]:
        start, parts = ("/", pattern.lstrip("/")) if pattern.startswith("/") else ("", pattern)
        found = self.expanded(start, [part for part in parts.split("/") if part])
        first = next(found, None)
        if first is None:
            raise RequestError(
                f"nothing matches {pattern!r}",
                "`*` stays within one folder, `**` goes through all below; quote the pattern",
            )
        return itertools.chain([first], found)

    def expanded(self, start: str, parts: list[str]) -> Iterator[Source]:
        for path, error in self.matches(start, parts):
            yield from [self.source(path, error)] if error else self.named(path)

    def matches(self, path: str, parts: list[str]) -> Iterator[_Found]:
        """What the rest of a pattern stands for at ``path``."""
        if not parts or parts == ["**"]:
            yield path or "./", ""
            return
        part, *rest = parts
        if not os.path.isdir(path or "."):
            return
        if part == "**":
            for folder, error in self.tree(_as_folder(path or "."), _never):
                yield from [(folder, error)] if error else self.matches(folder, rest)
        elif not _is_pattern(part):
            if os.path.lexists(step := os.path.join(path, part)):
                yield from self.matches(step, rest)
        else:
            yield from self.matching(_as_folder(path) if path else "", part, rest)

    def matching(self, folder: str, part: str, rest: list[str]) -> Iterator[_Found]:
        try:
            names = _names(folder or ".", lambda name: _fits(name, part), lambda name: _fits(name, part))
        except OSError as error:
            yield folder or "./", _unreadable(error)
            return
        for name in names:
            is_folder = name.endswith("/")
            if not (rest and not is_folder) and not (is_folder and self.is_output(folder + name)):
                yield from self.matches(folder + name, rest)

    def tree(self, top: str, keep: Callable[[str, str], bool]) -> Iterator[_Found]:
        """All folders, and the files to keep, from ``top`` downwards, each folder before what is in it."""
        levels = [iter([top])]
        above: list[tuple[int, int]] = []
        while levels:
            path = next(levels[-1], None)
            if path is None:
                levels.pop()
                del above[len(levels) - 1 :]
            elif not path.endswith("/"):
                yield path, ""
            else:
                try:
                    identity = _identity(path)
                    if identity in above or (above and self.is_output(path)):
                        continue
                    names = _names(path, partial(keep, path), _is_visible)
                except OSError as error:
                    yield path, _unreadable(error)
                    continue
                above.append(identity)
                levels.append(_below(path, names))
                yield path, ""

    def is_output(self, folder: str) -> bool:
        return self.is_out(folder) or any(all(Path(folder, mark).is_file() for mark in marks) for marks in OUTPUT_MARKS)

    def is_out(self, folder: str) -> bool:
        try:
            return os.path.samefile(folder, self.out)
        except (OSError, ValueError):
            return False


def _names(folder: str, keep: Callable[[str], bool], enter: Callable[[str], bool]) -> list[str]:
    """The files to keep and, marked by a final `/`, the folders to enter, as a person would order them."""
    with os.scandir(folder) as entries:
        names = [
            entry.name + "/" * is_folder
            for entry in entries
            for is_folder in [_is_folder(entry)]
            if (enter if is_folder else keep)(entry.name)
        ]
    return sorted(names, key=_natural)


def _below(folder: str, names: list[str]) -> Iterator[str]:
    return (folder + name for name in names)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle to itself
        return False


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _natural(name: str) -> tuple[str, str]:
    """2 before 10; each run of digits is preceded by its length."""
    return re.sub("[0-9]+", lambda run: f"{len(run[0].lstrip('0')):03}{run[0].lstrip('0')}", name.casefold()), name


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _never(_folder: str, _name: str) -> bool:
    return False


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _fits(name: str, pattern: str) -> bool:
    """As in a shell, a hidden name fits only a pattern that begins with a dot."""
    return (_is_visible(name) or pattern.startswith(".")) and fnmatch.fnmatchcase(name, pattern)


def _as_folder(path: str) -> str:
    return path if path.endswith("/") else path + "/"


def _unreadable(error: OSError) -> str:
    return f"the folder cannot be read: {error.strerror or error}"


def _check_is_no_weights(given: str) -> None:
    other = weight_files.not_a_picture(given)
    if other:
        raise RequestError(f"the input {given!r} is {other.what}", other.hint)


def _missing(given: str, what: str = "file or folder", hint: str = "") -> RequestError:
    """The first step of a path that does not exist, and what it may have been meant to be."""
    folder, name = os.path.split(os.path.normpath(given))
    while folder and not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder, name = os.path.split(folder)
    try:
        near = did_you_mean(name, os.listdir(folder or "."))
    except OSError:
        near = ""
    where = f"in {folder!r}: {near}" if folder and near else near
    return RequestError(f"there is no {what} {given!r}", "\n".join(filter(None, [where, hint])))
