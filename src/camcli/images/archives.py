"""Images in tar and zip archives, read where they lie: nothing is unpacked, and no link in them is followed."""

# Paths stay strings, as in the search.
# ruff: noqa: PTH113, PTH116

import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from camcli.base.errors import PictureError
from camcli.images.formats import ARCHIVE_SUFFIXES, CONTAINER_SUFFIXES, SUFFIXES, UNREADABLE_SUFFIXES, suffix_of

COMPRESSED_TAR = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)
# A member is read into memory as a whole; a few kilobytes of zip could claim to be a terabyte.
MAX_MEMBER_BYTES = 2**30
# Members whose places are remembered, over all archives; those of the last one are, however many.
MAX_REMEMBERED = 200_000
# Files that tell about the image of the same name beside them, as in WebDataset's shards; and the most bytes of one.
TELLING_SUFFIXES = frozenset({".cls", ".json", ".txt"})
MAX_TELLING_BYTES = 2**24
# Bytes of a block of a tar, and of the header before the data of a member of a zip.
TAR_BLOCK, ZIP_HEADER = 512, 30
# Compression of members: of a tar none, of a zip by its number.
TAR, STORED, DEFLATED = -1, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


class Member(NamedTuple):
    """Place of a file in an archive.

    Attributes:
        place: position of its data in a tar, of its header in a zip.
        stored: number of its bytes in the archive.
        size: number of its bytes.
        method: ``TAR``, ``STORED`` or ``DEFLATED``.
        crc: checksum of its bytes in a zip.
    """

    place: int
    stored: int
    size: int
    method: int
    crc: int


class Contents:
    """Images in an archive.

    Args:
        stamp: stamp of the archive.

    Attributes:
        refused: reasons why files with an image's suffix, or the rest of the archive, are not read.
        unread: names of images of formats that are not read.
        duplicates: number of files that a later one of the same name replaces.
    """

    def __init__(self, stamp: str) -> None:
        self.stamp = stamp
        self.refused: list[str] = []
        self.unread: list[str] = []
        self.duplicates = 0
        self._rows: dict[str, int] = {}
        self._telling: dict[str, int] = {}
        self._places = array("q")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def weight(self) -> int:
        """Number of files whose places are held."""
        return len(self._rows) + len(self._telling)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def find(self, name: str) -> Member:
        """Return the place of an image.

        Raises:
            PictureError: there is no such image.
        """
        if name not in self._rows:
            raise PictureError("there is no such file in the archive (any more)")
        return self._read_place(self._rows[name])

    def find_telling(self, name: str) -> Member | None:
        """Return the place of a file of :data:`TELLING_SUFFIXES`; None if there is none."""
        return self._read_place(self._telling[name]) if name in self._telling else None

    def _read_place(self, row: int) -> Member:
        start = row * len(Member._fields)
        return Member(*self._places[start : start + len(Member._fields)])

    def _add_place(self, member: Member) -> int:
        self._places.extend(member)
        return len(self._places) // len(Member._fields) - 1

    def add(self, given: str, member: Member, problem: str) -> None:
        """Add a file if it is an image; ``problem`` says why it cannot be read, if it cannot."""
        parts = [part for part in given.split("/") if part not in ("", ".")]
        suffix = suffix_of(given)
        if suffix in TELLING_SUFFIXES and not problem and max(member.size, member.stored) <= MAX_TELLING_BYTES:
            self._telling["/".join(parts)] = self._add_place(member)
        if suffix not in SUFFIXES | UNREADABLE_SUFFIXES or any(part[0] == "." and part != ".." for part in parts):
            return
        name = "/".join(parts)
        if given.startswith("/") or ".." in parts or "\0" in given:
            self.refused.append(f"its file {given[:200]!r} is not read: the name leads out of the archive")
        elif suffix in UNREADABLE_SUFFIXES:
            self.unread.append(name)
        elif problem or max(member.size, member.stored) > MAX_MEMBER_BYTES:
            reason = problem or f"it has {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
            self.refused.append(f"its file {given[:200]!r} is not read: {reason}")
        else:
            self.duplicates += name in self._rows
            self._rows[name] = self._add_place(member)


def is_archive(path: str) -> bool:
    """Return whether a file is an archive by its name."""
    return suffix_of(path) in ARCHIVE_SUFFIXES or COMPRESSED_TAR.search(path) is not None


def check_archive(archive: str) -> None:
    """Check that an archive can be read, as far as its beginning shows for a tar.

    Raises:
        PictureError: it cannot.
    """
    _check_kind(archive)
    try:
        (zipfile.ZipFile(archive) if _is_zip(archive) else tarfile.open(archive, "r:")).close()  # noqa: SIM115
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged archive can raise anything
        raise _describe_damage(archive, error) from error


def choose_folder(archive: str) -> str:
    """Return the path under which the images of an archive or a table are named: its own without suffix.

    The suffix stays where something else beside it has that name, or another of these would be named so too.
    """
    stem, suffix = os.path.splitext(archive)  # noqa: PTH122
    others = [stem, *(stem + other for other in CONTAINER_SUFFIXES - {suffix})]
    return archive if suffix not in CONTAINER_SUFFIXES or any(map(os.path.lexists, others)) else stem


def split_path(path: str | Path) -> tuple[str, str] | None:
    """Split a path that leads through an archive or a table as if that were a folder; None for another."""
    # As text in a quarter of the time, which counts for each of a million members, where nothing is to be normalised.
    whole = path if isinstance(path, str) and "//" not in path and "/." not in path else Path(path).as_posix()
    archive, slash, name = whole.rpartition("/")
    while slash:
        if suffix_of(archive) in CONTAINER_SUFFIXES and os.path.isfile(archive):
            return archive, name
        archive, slash, last = archive.rpartition("/")
        name = f"{last}/{name}"
    return None


_remembered: OrderedDict[str, Contents] = OrderedDict()
_lock = Lock()


def read_contents(archive: str) -> Contents:
    """Return the images in an archive; those of the last archives are remembered while these do not change.

    Raises:
        PictureError: it is not an archive that can be read.
    """
    try:
        status = os.stat(archive)
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
        with _lock:
            contents = _remembered.get(archive)
            if contents is None or contents.stamp != stamp:
                contents = _list(archive, stamp)
                _remembered[archive] = contents
            _remembered.move_to_end(archive)
            while len(_remembered) > 1 and sum(one.weight for one in _remembered.values()) > MAX_REMEMBERED:
                _remembered.popitem(last=False)
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
    return contents


def read_member_stamp(archive: str, name: str) -> str:
    """Return a stamp of a file in an archive: that of the archive, and its place in it; empty if it is missing."""
    try:
        contents = read_contents(archive)
        return f"{contents.stamp}-{contents.find(name).place}"
    except PictureError:
        return ""


def open_member(archive: str, name: str) -> io.BytesIO:
    """Read a file in an archive into memory.

    Raises:
        PictureError: there is no such file, it is empty, or it is damaged.
        OSError: the archive cannot be read.
    """
    member = read_contents(archive).find(name)
    if not member.size:
        raise PictureError("the file is empty")
    return io.BytesIO(_read_member(archive, member))


def read_telling(archive: str, name: str, suffix: str) -> bytes | None:
    """Read the file that tells about an image: ``a/cat.cls`` about ``a/cat.jpg`` and ``a/cat.seg.png``.

    As WebDataset has it, what counts is the name up to its first dot; before that it is tried without its last suffix.

    Returns:
        Its content; None if there is none.

    Raises:
        PictureError: the archive cannot be read, or is damaged.
        OSError: the archive cannot be read.
    """
    contents = read_contents(archive)
    folder, slash, base = name.rpartition("/")
    for stem in dict.fromkeys((os.path.splitext(base)[0], base.partition(".")[0])):  # noqa: PTH122
        member = contents.find_telling(f"{folder}{slash}{stem}{suffix}")
        if member:
            return _read_member(archive, member)
    return None


def _read_member(archive: str, member: Member) -> bytes:
    with Path(archive).open("rb") as file:
        file.seek(member.place)
        if member.method != TAR:
            header = file.read(ZIP_HEADER)
            if header[:4] != b"PK\3\4":
                raise PictureError("the archive is damaged: the file is not where its list says")
            file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        content = file.read(member.stored)
    if member.method == DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size)
        except zlib.error as error:
            raise PictureError(f"the archive is damaged: {error}") from error
    if len(content) < member.size:
        raise PictureError("the archive is cut short")
    if member.method != TAR and zlib.crc32(content) != member.crc:
        raise PictureError("the archive is damaged: the file's checksum is another")
    return content


def _list(archive: str, stamp: str) -> Contents:
    _check_kind(archive)
    contents = Contents(stamp)
    (_list_zip if _is_zip(archive) else _list_tar)(archive, contents)
    return contents


def _is_zip(archive: str) -> bool:
    return suffix_of(archive) == ".zip"


def _check_kind(archive: str) -> None:
    if COMPRESSED_TAR.search(archive):
        raise PictureError(
            "is a compressed tar, in which no image can be reached without unpacking those before it",
            "decompress it to a plain .tar first, as gunzip does",
        )
    if not os.path.isfile(archive):  # opening a pipe could wait for ever
        raise PictureError("is not a regular file")


def _describe_damage(archive: str, error: Exception) -> PictureError:
    if _is_zip(archive):
        return PictureError(f"is not a zip archive, or is cut short ({error})")
    return PictureError(
        f"is not a tar archive ({error})", "a compressed tar must be decompressed first, as gunzip does"
    )


def _list_tar(archive: str, contents: Contents) -> None:
    try:
        tar = tarfile.open(archive, "r:")  # noqa: SIM115  closed below
    except tarfile.TarError as error:
        raise _describe_damage(archive, error) from error
    count = 0
    with tar:
        try:
            while (one := tar.next()) is not None:
                count += 1
                vars(tar)["members"].clear()  # which would grow with the archive
                if not one.isdir():
                    contents.add(
                        one.name, Member(one.offset_data, one.size, one.size, TAR, 0), _explain_tar_member(one)
                    )
            # tarfile takes anything that is not a header for the end.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            damaged = bool(tar.fileobj.read(TAR_BLOCK).strip(b"\0"))
        except OSError:
            raise
        except Exception as error:  # a damaged header can raise anything
            contents.refused.append(f"it is damaged or cut short after {count} files: {error}")
            return
    if damaged:
        contents.refused.append(f"it is damaged or cut short after {count} files")


def _explain_tar_member(one: tarfile.TarInfo) -> str:
    if one.issym() or one.islnk():
        return "it is a link, and links in archives are never followed"
    if not one.isreg():
        return "it is a device or a pipe"
    return "it is a sparse file" if one.issparse() else ""


def _list_zip(archive: str, contents: Contents) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
    except OSError:
        raise
    except Exception as error:  # a damaged list of files can raise anything
        raise _describe_damage(archive, error) from error
    for one in entries:
        if not one.is_dir():
            place = Member(one.header_offset, one.compress_size, one.file_size, one.compress_type, one.CRC)
            contents.add(one.filename, place, _explain_zip_member(one))


def _explain_zip_member(one: zipfile.ZipInfo) -> str:
    if stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG):
        return "it is a link or a device, and links in archives are never followed"
    if one.flag_bits & 1:
        return "it is encrypted"
    if one.compress_type not in (STORED, DEFLATED):
        return f"it is compressed by method {one.compress_type}; those read are stored (0) and deflate (8)"
    return ""
