"""Find pictures, name them, decode them upright."""

# Paths stay strings while they are sought: no link is resolved, no step is lost.
# ruff: noqa: PTH112, PTH116, PTH118, PTH120, PTH121, PTH208

import fnmatch
import hashlib
import io
import itertools
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor, UnidentifiedImageError

from camcli import opening, paths, weightfiles
from camcli.depth import depth_of, eight_bits, unit_values
from camcli.errors import PictureError, RequestError, did_you_mean
from camcli.formats import FORMATS, SUFFIXES, Unread, suffix_of
from camcli.frames import turn_to
from camcli.job import BY_FOLDER, page_of
from camcli.names import entries
from camcli.written import Written

if TYPE_CHECKING:
    from camcli.geometry import View

T = TypeVar("T")

# Pillow refuses above this many pixels and warns above half of it; photographs of that size are real, so only the
# refusal is kept.
MOST_PIXELS = 2 * 89_478_485

# What has both of a pair in it is a folder that camcli wrote.
OUTPUT_MARKS = (
    ("run.json", "outcomes.jsonl"),
    ("channels.json", "channels.csv"),
    ("channels.json", "channels.untrained.csv"),
    ("prompts.json", "prompts.jsonl"),
)
LONGEST_COMPONENT = 180

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of these orientations: width and height change places; the picture's right edge lies left, its lower one above.
TURNED, FROM_RIGHT, FROM_BELOW = frozenset({5, 6, 7, 8}), frozenset({2, 3, 6, 7}), frozenset({3, 4, 7, 8})

# What can be decoded at a part of its size (MPO is a JPEG with more of them behind it), and at which.
SCALABLE, PARTS = frozenset({"JPEG", "MPO"}), (8, 4, 2)


# `sys.stdin.buffer` is declared as the first and is the second.
_Bytes = BinaryIO | io.BufferedIOBase


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to be done, or the reason why something that was asked for cannot be.

    Attributes:
        path: as given, or as found below what was given.
        name: its name under the output folder: relative, ``/`` between parts.
        error: why nothing can be read here; it rides along to be reported in its place.
        page: which of the file's pages, from 1 on, where several are asked for; 0 for the first.
    """

    path: Path
    name: str
    error: str = ""
    page: int = 0

    @property
    def shown(self) -> str:
        """It in words for people: its path, and its page if that matters."""
        return page_of(str(self.path), self.page)


# No picture, but the word that no name comes for a while.
PAUSE = Source(Path(), "")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        source: where it came from.
        pixels: upright, red green blue; fewer than the file has, where it was decoded at reduced size.
        view: which part of it the model saw, in pixels of the file.
    """

    source: Source
    pixels: UInt8[np.ndarray, "h w 3"]
    view: "View"


# --- find ---------------------------------------------------------------------------------------------------------


def find(
    inputs: Sequence[str],
    *,
    out: Path,
    stdin: _Bytes | None = None,
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


def output_name(path: str | Path, root: str | Path) -> str:
    """The name a picture has under the output folder: a function of its path alone.

    Relative to ``root``; outside it ``%root/`` and the absolute path. A first part that begins with ``%`` has it
    written ``%25``, so that two paths never share a name. Links are not resolved, but before ``..``. A part of more
    than 180 bytes is cut and ends in ``~`` and 12 hex digits of its SHA-256.
    """
    absolute = paths.absolute(path)
    parts = Path(os.path.relpath(absolute, root)).parts
    if parts and parts[0] == "..":
        parts = ("%root", *Path(absolute).parts[1:])
    elif parts and parts[0].startswith("%"):
        parts = ("%25" + parts[0][1:], *parts[1:])
    return "/".join(map(_short, parts)) or "."


def stamp(path: Path) -> str:
    """The file's size and time of change, to see later whether it is still the same; empty if it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _short(part: str) -> str:
    full = os.fsencode(part)
    if len(full) <= LONGEST_COMPONENT:
        return part
    mark = "~" + hashlib.sha256(full).hexdigest()[:12]
    kept = part[:LONGEST_COMPONENT]
    while len(os.fsencode(kept)) + len(mark) > LONGEST_COMPONENT:
        kept = kept[:-1]
    return kept + mark


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

    def input(self, given: str, stdin: _Bytes | None) -> Iterator[Source]:
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

    def listed(self, stream: _Bytes) -> Iterator[Source]:
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
    other = weightfiles.not_a_picture(given)
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


@dataclass(frozen=True, slots=True)
class Reduced:
    """A picture that was perhaps decoded at a part of its size.

    Attributes:
        image: upright, RGB.
        size: width and height of the whole upright picture, in the file's pixels.
        box: x0, y0, x1, y1 of where the whole picture lies in ``image``, whose last pixels stand for fewer of the
            file's where its size is no multiple.
        notes: what whoever sees it must know of how it was read.
        planes: of an array that is no picture its values in 0..1, ``(h, w, channels)``; then ``image`` shows the first.
    """

    image: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    notes: tuple[str, ...] = ()
    planes: np.ndarray | None = None

    @classmethod
    def none(cls, image: Image.Image, notes: tuple[str, ...] = ()) -> "Reduced":
        """A picture as it is."""
        return cls(image, image.size, (0.0, 0.0, float(image.width), float(image.height)), notes)


# --- decode -------------------------------------------------------------------------------------------------------


def decode(path: Path, background: str = "#ffffff", levels: str = "", page: int = 0) -> Image.Image:
    """The picture in a file: whole, upright, 8-bit RGB.

    EXIF orientation is applied. Values of more than 8 bits are scaled by the full range of their type (65535 becomes
    255). What is transparent is laid onto ``background``.

    Args:
        path: a picture of one of ``FORMATS``, whatever its suffix.
        background: a colour such as ``#ffffff``.
        levels: of pictures of more than 8 bits, which values become 0 and 255: ``LOW,HIGH``, or ``auto``; see
            :func:`camcli.depth.eight_bits`.
        page: which of several in the file, from 1 on; 0 for the first.

    Raises:
        PictureError: there is no whole picture in the file; says why, without repeating the path.
        RequestError: ``background`` is not a colour.
    """
    return decode_reduced(path, undivided, background, levels, page).image


def decode_reduced(
    path: Path,
    spare: Callable[[int, int], float],
    background: str = "#ffffff",
    levels: str = "",
    page: int = 0,
    admit: Callable[[int], object] = lambda pixels: None,
) -> Reduced:
    """Likewise, but of a JPEG perhaps only a half, a quarter or an eighth of its size, as the decoder can give it.

    The decoder does it by transforming fewer frequencies, so that each pixel is about the mean of those it stands for.

    Args:
        path, background, levels, page: likewise.
        spare: given width and height of the upright picture, by how much it may be divided at most.
        admit: told how many pixels will be decoded, before they are; may wait until there is memory for them.

    Raises:
        PictureError, RequestError: likewise.
    """
    behind = colour(background)
    _check_file(path)
    try:
        with path.open("rb") as file:
            read = partial(_read, spare=spare, behind=behind, admit=admit, levels=levels, path=path, page=page)
            try:
                return read(file)
            except ValueError:
                bare = opening.without_texts(file)
                if bare is None:
                    raise
                return read(bare)
    except PictureError:
        raise
    except Exception as error:
        raise _told(error) from error


def _read(
    file: _Bytes,
    spare: Callable[[int, int], float],
    behind: tuple[int, int, int],
    admit: Callable[[int], object],
    levels: str,
    path: Path,
    page: int,
) -> Reduced:
    with opening.opened(file, FORMATS) as image:
        about_pages = turn_to(image, page)
        _check_size(image)
        opening.check_scans(image, file)
        width, height = image.size
        orientation, _ = opening.orientation(image) if image.format in SCALABLE else (1, "")
        turned = orientation in TURNED
        parts = _divide(image, spare(*((height, width) if turned else (width, height))))
        admit(image.width * image.height)
        whole, notes = _whole(image, behind, levels, path, page)
        notes = (*about_pages, *notes)
        if parts == 1:
            return Reduced.none(whole, notes)
        # What the last pixels stand for beyond the picture lies on the side that they were brought to.
        across, down = (height, width) if turned else (width, height)
        left = whole.width - across / parts if orientation in FROM_RIGHT else 0.0
        top = whole.height - down / parts if orientation in FROM_BELOW else 0.0
        return Reduced(whole, (across, down), (left, top, left + across / parts, top + down / parts), notes)


def undivided(_width: int, _height: int) -> float:
    """That a picture is not to be reduced, for :func:`decode_reduced`."""
    return 1.0


def pixels_of(path: Path) -> int:
    """How many pixels a file's header says that its picture has; 0 if it says nothing."""
    try:
        _check_file(path)
        with path.open("rb") as file, opening.opened(file, FORMATS) as image:
            return image.width * image.height
    except Exception:  # what is wrong with it is told when it is decoded
        return 0


def upright(image: Image.Image, background: str = "#ffffff", levels: str = "") -> Image.Image:
    """A picture of Pillow's as :func:`decode` would give it: whole, upright, 8-bit RGB; one of its own.

    Raises:
        PictureError, RequestError: likewise.
    """
    return in_memory(image, background, levels).image


def in_memory(image: Image.Image, background: str = "#ffffff", levels: str = "") -> Reduced:
    """Likewise, with what is to be said of it.

    Raises:
        PictureError: it cannot be loaded or understood.
        RequestError: ``background`` is not a colour.
    """
    behind = colour(background)
    try:
        whole, notes = _whole(image, behind, levels)
        return Reduced.none(whole.copy() if whole is image else whole, notes)
    except PictureError:
        raise
    except Exception as error:
        raise _told(error) from error


def from_array(values: np.ndarray, background: str = "#ffffff", levels: str = "") -> Reduced:
    """An array as a picture: ``(h, w)``, or ``(h, w, channels)``.

    What Pillow can hold is handled as a picture in memory: grey of any type, and red, green and blue of 8 bits. Other
    channels, or finer ones, are left as they are.

    Raises:
        PictureError: it is no image, or nothing says what its values mean.
        RequestError: ``background`` is not a colour.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or not values.size:
        form = "x".join(map(str, values.shape))
        raise PictureError(f"an array of {form} is no image", "give (height, width), or (height, width, channels)")
    known = {"u": np.uint8 if values.dtype == np.uint8 else np.uint16, "i": np.int32, "f": np.float32}
    kind = known.get(values.dtype.kind)
    if values.ndim == 2 and kind and values.dtype.itemsize <= np.dtype(kind).itemsize:
        return in_memory(Image.fromarray(np.ascontiguousarray(values, kind)), background, levels)
    if values.shape[2:] == (3,) and values.dtype == np.uint8:
        return in_memory(Image.fromarray(np.ascontiguousarray(values)), background, levels)
    planes, notes = unit_values(values if values.ndim == 3 else values[..., np.newaxis], levels)
    shown = planes[..., :3] if planes.shape[2] >= 3 else planes[..., [0, 0, 0]]
    image = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
    return replace(Reduced.none(image, notes), planes=planes)


def colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour such as ``#ffffff`` or ``white``.

    Raises:
        RequestError: it is not a colour.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise RequestError(f"{text!r} is not a colour", "give it as #rrggbb, such as #ffffff") from None


def _whole(
    image: Image.Image, behind: tuple[int, int, int], levels: str, path: Path | None = None, page: int = 0
) -> tuple[Image.Image, tuple[str, ...]]:
    """Loaded, upright, of eight bits, RGB; and what is to be said of it."""
    depth = depth_of(image)
    image.load()
    levelled, about_levels = eight_bits(image, depth, levels, path, page)
    orientation, note = opening.orientation(image)
    return _upright(_rgb(levelled, behind), orientation), (*about_levels, *((note,) if note else ()))


def _divide(image: Image.Image, spare: float) -> int:
    """Have a JPEG decoded at an eighth, a quarter or a half of its size, if that may be; gives the divisor, or 1."""
    parts = next((parts for parts in PARTS if parts <= min(spare, *image.size)), 1)
    if parts == 1 or image.format not in SCALABLE:
        return 1
    return parts if image.draft(None, (image.width // parts, image.height // parts)) else 1


def _told(error: Exception) -> PictureError:
    """A damaged file can make a decoder stumble in any way; each is this picture's fault, never the run's."""
    if isinstance(error, UnidentifiedImageError):
        formats = f"formats: {', '.join(FORMATS)}"
        return PictureError("is not a picture that can be read, or only the beginning of one", formats)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return PictureError(f"is too large: {error}")
    if isinstance(error, MemoryError):
        return PictureError("does not fit into memory")
    return PictureError(_reason(error))


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        reason = "is a link to a file that does not exist" if path.is_symlink() else "there is no such file (any more)"
        raise PictureError(reason) from None
    except (OSError, ValueError) as error:
        raise PictureError(_reason(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise PictureError("is a folder")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
        raise PictureError("is not a regular file")
    if not status.st_size:
        raise PictureError("the file is empty")


def _check_size(image: Image.Image) -> None:
    if not image.width * image.height:
        raise PictureError("has no pixels")
    if image.width * image.height > MOST_PIXELS:
        raise PictureError(f"is too large: {image.width} x {image.height} is more than {MOST_PIXELS:,} pixels")


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"is damaged or cut short: {error or type(error).__name__}"


def _rgb(image: Image.Image, behind: tuple[int, int, int]) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    canvas = Image.new("RGBA", image.size, behind)
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
