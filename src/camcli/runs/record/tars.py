"""Tars of a job's outputs as WebDataset reads them: a sample for each image, with its outputs and its outcomes."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError
from camcli.images.address import show_path, to_url
from camcli.images.formats import SUFFIXES, UNREADABLE_SUFFIXES
from camcli.images.naming import mark_text
from camcli.runs.record import ledger
from camcli.runs.record.folder import is_plain_path
from camcli.runs.record.heads import Block, Worth, find_worth
from camcli.runs.record.lines import LineFile
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.provenance import list_jobs, read_record
from camcli.runs.record.view import look_at, open_files
from camcli.runs.store.store import Store

# A tar's name has a number of so many digits.
DIGITS = 6
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)(i?)B?", re.ASCII | re.IGNORECASE)
# Bytes of the smallest tar that may be asked for.
LEAST_BYTES = 10**5
# Two empty blocks end a tar.
END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class WrittenTars:
    """Findings of a writing of tars.

    Attributes:
        tars: their paths.
        samples: number of images in them.
        left_out: number of images without outputs, or whose files are not there as they were written.
        others: tars of an earlier writing whose numbers are greater.
    """

    tars: list[Path]
    samples: int
    left_out: int
    others: list[Path]


def parse_bytes(text: str) -> int:
    """Return the number of bytes in a size such as ``1GB``, ``500 MB`` or ``2GiB``.

    Raises:
        RequestError: the text is no size, or a very small one.
    """
    found = SIZE.fullmatch(text.strip())
    number = float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2].lower() or " ") if found else 0
    if number < LEAST_BYTES:
        raise RequestError(f"the size of a tar cannot be {text!r}", "give it as 500MB, 1GB or 2GiB; at least 0.1MB")
    return int(number)


def write_tars(out: Path, to: Path, max_bytes: int) -> WrittenTars:
    """Write the outputs in a merged folder to tars, each whole or not at all.

    A sample's key is its image's name without suffix, in which a dot is ``_``; where two images would have one, each
    has a mark after it. Samples are sorted by it. The same record gives the same bytes. Tars of the same names are
    replaced.

    Args:
        out: the output folder, or its address.
        to: ``maps.tar`` stands for ``maps-000000.tar`` and so on; may be an address.
        max_bytes: size that a tar has at most, unless a single sample is larger.

    Raises:
        OutputError: a tar cannot be written.
        RequestError: the record cannot be read.
    """
    jobs = list_jobs(read_record(out))
    read = open_files(out)
    writer = _Writer(to, max_bytes)
    samples = left_out = 0
    with look_at(out) as view, closing(LineFile(view.path / ledger.FILE, Outcome)) as lines:
        try:
            for key, place in _sort_images(lines, jobs):
                members = _read_sample(read, lines.read_block(place))
                samples += members is not None
                left_out += members is None
                if members is not None:
                    writer.add([(f"{key}.{end}", content) for end, content in members])
            writer.finish()
        except OSError as error:
            raise OutputError(f"{show_path(writer.next_path)} cannot be written: {error.strerror or error}") from error
        except sqlite3.Error as error:
            raise OutputError(f"the images cannot be sorted in the folder for temporary files: {error}") from error
        finally:
            writer.abandon()
    return WrittenTars(writer.tars, samples, left_out, _find_others(to, len(writer.tars)))


def make_key(name: str) -> str:
    """Return the key of an image's sample: its name without the image's suffix, and without dots in its last part.

    WebDataset takes the rest of a member's name, from the first dot of its last part, for what kind of member it is.
    """
    folder, slash, base = name.rpartition("/")
    first, *rest = base.split(".")
    kept = [one for one in rest if f".{one.lower()}" not in SUFFIXES | UNREADABLE_SUFFIXES]
    return f"{folder}{slash}{'_'.join([first, *kept]) or '_'}"


def _sort_images(lines: LineFile[Outcome], jobs: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield the key of each image and the byte of the record where its lines begin, sorted on the disk."""
    with closing(sqlite3.connect("")) as base:  # an empty name is a file that is gone when it is closed
        base.execute("create table images (name blob primary key, key blob, worth, place integer) without rowid")
        base.executemany(
            "insert into images values (?, ?, ?, ?) on conflict (name) do update set worth = excluded.worth, "
            "place = excluded.place where excluded.worth >= worth",  # runs are in order, since they were merged
            (
                (os.fsencode(heads[0].name), os.fsencode(make_key(heads[0].name)), int(worth), place)
                for place, heads in lines.iter_blocks()
                if heads[0].job in jobs and (worth := find_worth(heads)) > Worth.CUT
            ),
        )
        found = base.execute("select key, name, place, count(*) over (partition by key) from images order by key, name")
        for key, name, place, namesakes in found:
            folder, slash, last = os.fsdecode(key).rpartition("/")
            yield folder + slash + (mark_text(last, os.fsdecode(name)) if namesakes > 1 else last), place


def _read_sample(read: Callable[[str], bytes | None], block: Block) -> list[tuple[str, bytes]] | None:
    """Return the ends of a sample's members with their content, sorted; None if not all its files are there."""
    found: dict[str, bytes] = {}
    for number, head in enumerate(block, start=1):
        sizes = json.loads(head.sizes)
        for kind, file in head.read_files().items():
            content = read(file) if is_plain_path(file) else None
            if content is None or len(content) != sizes.get(kind, len(content)):
                return None
            stem = f"{head.name}."
            # A name that was cut or marked is not the image's.
            end = file[len(stem) :] if file.startswith(stem) else f"{number}.{kind}{Path(file).suffix}"
            found[end] = content
    if not found:
        return None
    found["json"] = b"[" + b",\n".join(head.line.rstrip(b"\n") for head in block) + b"]\n"
    return sorted(found.items())


def _find_others(to: Path, count: int) -> list[Path]:
    pattern = re.compile(rf"{re.escape(to.stem)}-(\d{{{DIGITS},}})\.tar", re.ASCII)
    if url := to_url(to.parent):
        names = (name for name, _ in Store(url).iter_entries())
    else:
        names = (one.name for one in to.absolute().parent.iterdir())
    numbered = ((name, pattern.fullmatch(name)) for name in names)
    return sorted(to.parent / name for name, match in numbered if match and int(match[1]) >= count)


class _Writer:
    """Writes members to tars of at most so many bytes."""

    def __init__(self, to: Path, max_bytes: int) -> None:
        self.to, self.max_bytes = to, max_bytes
        self._store = Store(url) if (url := to_url(to.parent)) else None
        self.tars: list[Path] = []
        self._file: BinaryIO | None = None
        self._temporary = Path()
        self._size = 0

    @property
    def next_path(self) -> Path:
        return self.to.with_name(f"{self.to.stem}-{len(self.tars):0{DIGITS}}.tar")

    def add(self, members: Sequence[tuple[str, bytes]]) -> None:
        """Add the members of a sample, which lie in one tar."""
        content = b"".join(format_member(name, content) for name, content in members)
        if self._file and _round_up(self._size + len(content) + len(END), tarfile.RECORDSIZE) > self.max_bytes:
            self.finish()
        if self._file is None:
            folder = Path(tempfile.gettempdir()) if self._store else self.to.absolute().parent
            self._temporary = atomic.make_temporary_path(folder)
            self._file = self._temporary.open("xb")
            self._size = 0
        self._file.write(content)
        self._size += len(content)

    def finish(self) -> None:
        """Move the tar under way, if any, into place."""
        if self._file:
            self._file.write(bytes(_round_up(self._size + len(END), tarfile.RECORDSIZE) - self._size))
            self._file.close()
            if self._store:
                self._store.put_file(self.next_path.name, self._temporary)
                self._temporary.unlink()
            else:
                self._temporary.replace(self.next_path)
            self.tars.append(self.next_path)
            self._file = None

    def abandon(self) -> None:
        """Remove the tar under way, if any."""
        if self._file:
            with suppress(OSError):  # of a full disk, once more
                self._file.close()
            self._temporary.unlink(missing_ok=True)


def format_member(name: str, content: bytes) -> bytes:
    """Return a member with its header, in which nothing is of this machine or moment; names may be any bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(_round_up(info.size, tarfile.BLOCKSIZE) - info.size)


def _round_up(size: int, block: int) -> int:
    return -(-size // block) * block
