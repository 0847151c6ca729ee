"""Search for images in files, folders, globs and lists."""

# Paths stay strings during the search, so that no link is resolved and no part normalised away.
# ruff: noqa: PTH112, PTH116, PTH118, PTH121

import fnmatch
import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from camcli.base import paths
from camcli.base.errors import PictureError, RequestError
from camcli.images import VIDEO_SUFFIXES, archives, remote, tables
from camcli.images.address import is_url, to_url
from camcli.images.braces import expand_braces
from camcli.images.formats import SUFFIXES, SkippedFiles, suffix_of
from camcli.images.lists import iter_entries
from camcli.images.name_stream import peek
from camcli.images.naming import natural_key
from camcli.images.own_outputs import WrittenFiles, is_written_folder
from camcli.images.refusals import check_file, check_names, make_missing_error
from camcli.images.roots import FileNames, Roots
from camcli.images.source import PAUSE, ByteStream, PictureSource

# --- find ---------------------------------------------------------------------------------------------------------


def find(
    inputs: Sequence[str],
    *,
    out: Path,
    stdin: ByteStream | None = None,
    null_separated: bool = False,
    root: Path | None = None,
    skipped: SkippedFiles | None = None,
    videos: bool = False,
    carry: Sequence[str] = (),
) -> Iterator[PictureSource]:
    """Iterate over the images that the inputs name, always in the same order.

    An input is a file (of any suffix except those of weights), an archive (``.tar``, ``.zip``: the images in it), a
    file in one (``photos.zip/a.jpg``), a folder (all files below it with an image's suffix, no hidden ones, links
    followed but never in circles, no archives), a glob pattern (with ``**``; a file of that very name takes precedence;
    matches count as given by name), ``@list.txt`` or ``-`` (names of files and folders, one a line). ``{000..123}`` and
    ``{a,b}`` stand for several inputs. Folders that camcli wrote, ``out`` among them, are left out unless given by
    name; so are single files that it wrote among others. An image that is reached twice is yielded once. A list may
    be a table: :mod:`camcli.images.lists`.

    The inputs are checked at once, entries of lists and folders when they are reached: the names of one folder are held
    at a time, never those of the whole tree. ``PAUSE`` is yielded whenever names come from a pipe and none comes for a
    while.

    Args:
        inputs: paths, patterns and lists as given.
        out: the output folder; it need not exist.
        stdin: the stream that ``-`` reads; default: the process's standard input.
        null_separated: True if names in lists end in NUL instead of a newline.
        root: the folder that output names are relative to, of pictures below it; default: the current one.
        skipped: counter of the images and named files that are left out.
        videos: True if videos in folders are found too.
        carry: columns of tables that list images whose values the sources carry along.

    Raises:
        RequestError: an input does not exist, matches nothing, cannot be read as a list, is the output folder, or is a
            file of weights; or no input is a list that could have the columns.
    """
    if carry and not any(given.startswith("@") for given in inputs):
        raise RequestError(
            f"no table lists the images, so there are no columns to carry along: {', '.join(carry)}",
            "name the images in a table: @files.csv, @files.jsonl, @files.parquet",
        )
    inputs = expand_braces(inputs)
    roots = Roots.choose(inputs, paths.absolute(root or ""), null_separated)
    suffixes = SUFFIXES | VIDEO_SUFFIXES if videos else SUFFIXES
    search = _Search(out, FileNames(roots), null_separated, skipped, suffixes, tuple(carry))
    sources = [search.expand_input(given, stdin) for given in inputs]
    found = itertools.chain.from_iterable(sources)
    # One file or folder cannot name an image twice; no set of names then grows with the run.
    return found if len(inputs) == 1 and os.path.lexists(inputs[0]) else _drop_duplicates(found, skipped)


def _drop_duplicates(sources: Iterable[PictureSource], skipped: SkippedFiles | None) -> Iterator[PictureSource]:
    seen: set[int] = set()  # hashes, because a run may have a million names
    for source in sources:
        name = hash(source.name)
        if source is PAUSE:
            yield source
        elif name not in seen:
            seen.add(name)
            yield source
        elif skipped is not None:
            skipped.duplicates += 1


# A path and the reason why it cannot be read, or an empty string; the path of a folder ends in `/`.
_PathAndError = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Search:
    out: Path
    names: FileNames
    null_separated: bool
    skipped: SkippedFiles | None = None
    suffixes: Set[str] = frozenset()
    carry: tuple[str, ...] = ()
    written_files: WrittenFiles = field(default_factory=WrittenFiles)

    def make_source(self, path: str, error: str = "", named: str = "") -> PictureSource:
        """Make the source of a path; ``named`` is the path that its name is made from, if that is another."""
        name, root = (self.names.roots.name if error else self.names.name)(named or path)
        return PictureSource(path, name, error, root=root)

    def list_archive(self, archive: str, column: str = "") -> Iterator[PictureSource]:
        """Iterate over the images in an archive or a table, in its order; what is refused comes as errors."""
        in_table = tables.is_table(archive)
        try:
            contents = tables.read_images(archive, column) if in_table else archives.read_contents(archive)
        except PictureError as error:
            yield self.make_source(archive, "; ".join(filter(None, [error.message, error.hint])))
            return
        folder = archives.choose_folder(archive)
        for name in contents:
            yield self.make_source(f"{archive}/{name}", "", f"{folder}/{name}")
        for number, reason in enumerate(contents.refused, start=1):
            yield self.make_source(f"{archive}/refused {number}", reason, f"{folder}/refused {number}")
        if self.skipped is not None:
            self.skipped.duplicates += contents.duplicates
            for name in contents.unread:
                self.skipped(f"{archive}/{name}")

    def expand_input(self, given: str, stdin: ByteStream | None) -> Iterator[PictureSource]:
        """Return the images of one input; raise before returning if there can be none."""
        if given == "-":
            stream = stdin or sys.stdin.buffer
            check_names(peek(stream), "standard input")
            return self.read_names(stream, "standard input")
        if given.startswith("@"):
            return self.open_list(given[1:])
        if is_url(given):
            return self.open_url(given)
        if os.path.lexists(given):
            if _is_same(given, self.out):
                raise RequestError(
                    f"the input {given!r} is the output folder", "name another output folder with --out FOLDER"
                )
            check_file(given)
            return self.list_path(given)
        if _is_pattern(given):
            return self.expand_pattern(given)
        check_file(given)
        inside = self.list_inside(given)
        if inside is not None:
            return inside
        raise make_missing_error(given)

    def list_inside(self, path: str) -> Iterator[PictureSource] | None:
        """Return the images that a path through an archive, a table or a dataset's folder names; None for another."""
        try:
            named = tables.find_named_tables(path)
        except PictureError as error:
            return iter([self.make_source(path, error.message)])
        if named:
            return itertools.chain.from_iterable(itertools.starmap(self.list_archive, named))
        place = archives.split_path(path)
        if place is None:
            return None
        return iter([self.make_source(path, "", archives.choose_folder(place[0]) + "/" + place[1])])

    def list_path(self, path: str) -> Iterator[PictureSource]:
        is_folder = os.path.isdir(path)
        if (is_folder or tables.is_table(path)) and (inside := self.list_inside(path)):
            yield from inside
            return
        if not is_folder:
            if archives.is_archive(path):
                yield from self.list_archive(path)
            elif not self.skip_if_written(path):
                yield self.make_source(path)
            return
        # A folder that camcli wrote and that is given by name is read.
        wanted = _is_output_folder(path, self.out)
        for found, error in self.walk(_as_folder(path), self.should_read):
            if error or not (found.endswith("/") or (not wanted and self.skip_if_written(found))):
                yield self.make_source(found, error)

    def skip_if_written(self, path: str) -> bool:
        """Return whether a file is an output of camcli, and count it if so."""
        written = self.written_files(path)
        if written and self.skipped is not None:
            self.skipped.written += 1
        return written

    def should_read(self, folder: str, name: str) -> bool:
        """Return whether a file found in a folder is a readable image, and count an unreadable one."""
        if not _is_visible(name):
            return False
        read = suffix_of(name) in self.suffixes
        if not read and self.skipped is not None:
            self.skipped(folder + name)
        return read

    def open_list(self, path: str) -> Iterator[PictureSource]:
        try:
            if stat.S_ISFIFO(os.stat(path).st_mode):  # such as a shell's <(...); lists are read twice, first to count
                raise RequestError(f"the list {path!r} is a pipe, which can be read only once", "pipe the names into -")
            with Path(path).open("rb") as file:
                check_names(file.read(16), f"the list {path!r}", f"an image is named without @: {path}")
        except FileNotFoundError:
            raise make_missing_error(path, "list", "an image whose name begins with @ is given as ./@name") from None
        except OSError as error:
            raise RequestError(f"the list {path!r} cannot be read: {error.strerror}") from error
        return self.read_names(path, f"the list {path!r}")

    def read_names(self, names: ByteStream | str, what: str) -> Iterator[PictureSource]:
        """Iterate over the images that a stream, or the file of this path, names."""
        began = False
        for entry in iter_entries(names, b"\0" if self.null_separated else b"\n", self.carry):
            if entry is None:
                yield PAUSE
                continue
            if not began:
                check_names(entry.name, what)
                began = True
            found = self.expand_entry(os.fsdecode(entry.name))
            yield from (replace(one, columns=entry.columns) for one in found) if entry.columns else found

    def expand_entry(self, path: str) -> Iterable[PictureSource]:
        """Return the images that a name in a list stands for."""
        if is_url(path):
            return _list_url(path, self.out)
        if os.path.lexists(path):
            error = "is the output folder" if _is_same(path, self.out) else ""
            return [self.make_source(path, error)] if error else self.list_path(path)
        if "\0" in path:
            shown = path.replace("\0", "\N{REPLACEMENT CHARACTER}")
            return [self.make_source(shown, "the name has a NUL in it: is -0 missing?")]
        if inside := self.list_inside(path):
            return inside
        lines = self.null_separated and "\n" in path
        hint = ": are the names separated by newlines, and -0 too much?" if lines else ""
        return [self.make_source(path, "there is no such file or folder" + hint)]

    def open_url(self, url: str) -> Iterator[PictureSource]:
        found = _list_url(url, self.out, RequestError)
        first = next(found, None)
        if first is None:
            raise RequestError(
                f"there is no image at {url!r}", "`*` stays within one folder, `**` goes through all below"
            )
        return itertools.chain([first], found)

    def expand_pattern(self, pattern: str) -> Iterator[PictureSource]:
        start, parts = ("/", pattern.lstrip("/")) if pattern.startswith("/") else ("", pattern)
        matches = self.match_parts(start, [part for part in parts.split("/") if part])
        found = itertools.chain.from_iterable(
            [self.make_source(path, error)] if error else self.list_path(path) for path, error in matches
        )
        first = next(found, None)
        if first is None:
            raise RequestError(
                f"nothing matches {pattern!r}",
                "`*` stays within one folder, `**` goes through all below; quote the pattern",
            )
        return itertools.chain([first], found)

    def match_parts(self, path: str, parts: list[str]) -> Iterator[_PathAndError]:
        """Iterate over the matches of the remaining parts of a pattern below ``path``."""
        if not parts or parts == ["**"]:
            yield path or "./", ""
            return
        part, *rest = parts
        if not os.path.isdir(path or "."):
            return
        if part == "**":
            for folder, error in self.walk(_as_folder(path or "."), _keep_none):
                yield from [(folder, error)] if error else self.match_parts(folder, rest)
        elif not _is_pattern(part):
            if os.path.lexists(step := os.path.join(path, part)):
                yield from self.match_parts(step, rest)
        else:
            yield from self.match_in_folder(_as_folder(path) if path else "", part, rest)

    def match_in_folder(self, folder: str, part: str, rest: list[str]) -> Iterator[_PathAndError]:
        try:
            names = _list_names(
                folder or ".", lambda name: _matches_pattern(name, part), lambda name: _matches_pattern(name, part)
            )
        except OSError as error:
            yield folder or "./", _describe_error(error)
            return
        for name in names:
            is_folder = name.endswith("/")
            if not (rest and not is_folder) and not (is_folder and _is_output_folder(folder + name, self.out)):
                yield from self.match_parts(folder + name, rest)

    def walk(self, top: str, keep: Callable[[str, str], bool]) -> Iterator[_PathAndError]:
        """Iterate over all folders and the files to keep from ``top`` downwards, each folder before its contents."""
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
                    identity = _read_inode(path)
                    if identity in above or (above and _is_output_folder(path, self.out)):
                        continue
                    names = _list_names(path, partial(keep, path), _is_visible)
                except OSError as error:
                    yield path, _describe_error(error)
                    continue
                above.append(identity)
                levels.append(_join_names(path, names))
                yield path, ""


def _is_output_folder(folder: str, out: Path) -> bool:
    return _is_same(folder, out) or is_written_folder(folder)


def _is_same(folder: str, other: Path) -> bool:
    try:
        return os.path.samefile(folder, other)
    except (OSError, ValueError):
        return False


def _list_url(url: str, out: Path, error_type: type[RequestError] | None = None) -> Iterator[PictureSource]:
    """Iterate over the images that an address names; if it cannot be read, raise the error, or yield it."""
    try:
        for one in remote.list_images(url, to_url(out)):
            yield PictureSource(one.url, remote.name_url(one.url), one.error)
    except PictureError as error:
        if error_type:
            raise error_type(f"the input {url!r}: {error.message}", error.hint) from error
        yield PictureSource(url, remote.name_url(url), "; ".join(filter(None, [error.message, error.hint])))


def _list_names(folder: str, keep: Callable[[str], bool], enter: Callable[[str], bool]) -> list[str]:
    """Return the files to keep and, with a final `/`, the folders to enter, in natural order."""
    with os.scandir(folder) as entries:
        names = [
            entry.name + "/" * is_folder
            for entry in entries
            for is_folder in [_is_folder(entry)]
            if (enter if is_folder else keep)(entry.name)
        ]
    return sorted(names, key=natural_key)


def _join_names(folder: str, names: list[str]) -> Iterator[str]:
    return (folder + name for name in names)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _read_inode(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _keep_none(_folder: str, _name: str) -> bool:
    return False


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _matches_pattern(name: str, pattern: str) -> bool:
    """Return whether a name matches; as in a shell, a hidden one only where the pattern begins with a dot."""
    return (_is_visible(name) or pattern.startswith(".")) and fnmatch.fnmatchcase(name, pattern)


def _as_folder(path: str) -> str:
    return path if path.endswith("/") else path + "/"


def _describe_error(error: OSError) -> str:
    return f"the folder cannot be read: {error.strerror or error}"
