"""Where a page's data go: files beside it, or blocks of text in it."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import filelock

from camcli.base import atomic
from camcli.images.own_outputs import REPORT_FILE, REPORT_FOLDER
from camcli.runs.record.folder import LOCK_FILE
from camcli.runs.report import PAGE
from camcli.runs.report.items import Item
from camcli.runs.report.page import Assets, dump_json, escape_json, render

# Images in a file of data.
CHUNK = 2000
# Where the template has the data of a single file, and its images.
DATA_PLACE, IMAGES_PLACE = "<!-- data -->", "<!-- images -->"
# Bytes of names that are no UTF-8 are kept as they are in the data, and cannot be in the page's text.
UNENCODABLE = "replace"


class FolderFiles:
    """Report of a page and a folder of files beside it. New files are collected in a temporary folder until the end.

    Args:
        out: the output folder.
    """

    def __init__(self, out: Path) -> None:
        self._page, self._folder = out / PAGE, out / REPORT_FOLDER
        # Held while this report is made, so that another one of this folder leaves its files alone.
        self._new, self._lock = _make_locked_folder(self._folder)
        self._written: set[str] = set()
        self._items: list[Item] = []
        self._chunks: list[str] = []

    def add_image(self, name: str, content: bytes) -> None:
        """Write a WebP file."""
        self._write(f"{name}.webp", content)

    def copy(self, name: str, path: Path) -> None:
        """Copy an image's file."""
        shutil.copyfile(path, self._new / name)
        self._written.add(name)

    def add_items(self, items: Sequence[Item]) -> None:
        """Write the data of many images at a time."""
        self._items += items
        if len(self._items) >= CHUNK:
            self._write_items()

    def _write_items(self) -> None:
        name = f"data-{len(self._chunks):03}.js"
        self._write(name, f"camcli.add({json.dumps(dump_json(self._items))});\n".encode())
        self._chunks.append(name)
        self._items = []

    def finish(self, facts: dict[str, Any]) -> Path:
        """Write the rest of the data, put files and page in their place, and remove an earlier page's files."""
        if self._items:
            self._write_items()
        assets = Assets.load()
        self._write("page.css", assets.style.encode())
        self._write("page.js", assets.script.encode())
        page = render(facts, assets, folder=REPORT_FOLDER, chunks=self._chunks)
        for name in self._written:
            (self._new / name).replace(self._folder / name)
        atomic.write(self._page, page.encode(errors=UNENCODABLE))
        self._lock.release()
        remove_others(self._folder, self._written)
        return self._page

    def discard(self) -> None:
        """Remove what is not in its place."""
        self._lock.release()
        shutil.rmtree(self._new, ignore_errors=True)
        with suppress(OSError):  # an earlier report's files are in it
            self._folder.rmdir()

    def _write(self, name: str, content: bytes) -> None:
        (self._new / name).write_bytes(content)
        self._written.add(name)


class SingleFile:
    """Report of one file with everything in it. Images are collected in a temporary file, since the page comes first.

    Args:
        out: the output folder.
    """

    def __init__(self, out: Path) -> None:
        self._page = out / PAGE
        self._temporary = [atomic.make_temporary_path(out) for _ in range(3)]
        self._images, self._data = (path.open("x", encoding="ascii") for path in self._temporary[:2])

    def add_image(self, name: str, content: bytes) -> None:
        """Add a WebP file as text."""
        self._images.write(f'<script type="text/plain" id="{name}">{base64.b64encode(content).decode()}</script>\n')

    def copy(self, name: str, path: Path) -> None:
        """Copy nothing: the file holds a smaller copy of each image."""

    def add_items(self, items: Sequence[Item]) -> None:
        """Add images to the data."""
        self._data.write(f'<script type="application/json" class="data">{escape_json(dump_json(items))}</script>\n')

    def finish(self, facts: dict[str, Any]) -> Path:
        """Write the page: its head, the data, the images."""
        self._images.close()
        self._data.close()
        page = render(facts, Assets.load(), folder="", chunks=[])
        head, _, rest = page.rpartition(DATA_PLACE)
        script, _, tail = rest.rpartition(IMAGES_PLACE)
        images, data, target = self._temporary
        with target.open("x", encoding="utf-8", errors=UNENCODABLE) as file:
            for text, path in ((head, data), (script, images)):
                file.write(text)
                with path.open(encoding="ascii") as part:
                    shutil.copyfileobj(part, file)
            file.write(tail)
        target.replace(self._page)
        remove_others(self._page.parent / REPORT_FOLDER, ())
        self.discard()
        return self._page

    def discard(self) -> None:
        """Remove the temporary files."""
        opened: Sequence[IO[str]] = (self._images, self._data)
        for file in opened:
            file.close()
        for path in self._temporary:
            with suppress(OSError):
                path.unlink(missing_ok=True)


# Where a report goes. Nothing of an earlier page is replaced before ``finish``.
ReportFiles = FolderFiles | SingleFile


def remove_others(folder: Path, kept: Container[str]) -> None:
    """Remove the files of an earlier report, and their folder if nothing else is in it; links are not followed."""
    if folder.is_symlink():
        return
    with suppress(OSError):  # what cannot be removed is in nobody's way
        for file in folder.iterdir():
            if atomic.TEMPORARY_NAME.fullmatch(file.name):
                _remove_abandoned(file)  # of this report, or of one that was killed
            elif file.name not in kept and REPORT_FILE.fullmatch(file.name) and not file.is_symlink():
                file.unlink(missing_ok=True)
        folder.rmdir()


def _make_locked_folder(parent: Path) -> tuple[Path, filelock.BaseFileLock]:
    """Make a temporary folder, and lock it; anew if another report took it for an abandoned one before it was."""
    while True:
        folder = atomic.make_temporary_path(parent)
        lock = filelock.FileLock(folder / LOCK_FILE)
        try:
            folder.mkdir(parents=True)
            lock.acquire()
        except (FileNotFoundError, FileExistsError):  # removed, with its parent perhaps, between two looks at it
            continue
        if Path(lock.lock_file).exists():
            return folder, lock
        lock.release()


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary folder of a report that nobody is making."""
    with suppress(OSError):  # a Timeout is one too
        with filelock.FileLock(folder / LOCK_FILE, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)  # while it is locked, so that nobody begins in it
        if os.name == "nt":  # where an open file cannot be removed
            shutil.rmtree(folder, ignore_errors=True)
