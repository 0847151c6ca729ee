"""Atomic writing of files."""

import errno
import os
import re
import secrets
from itertools import takewhile
from pathlib import Path

# Name of temporary files and of nothing else, so that those of killed runs can be recognised.
TEMPORARY_NAME = re.compile(r"\.camcli-[0-9a-f]{16}\.tmp", re.ASCII)


def write(path: Path, content: bytes, top: Path | None = None, durable: bool = False) -> None:
    """Write ``content`` under a temporary name, then move it to ``path`` in one step.

    Args:
        path: path of the file; its folder is created if necessary.
        content: bytes of the whole file.
        top: existing folder for the temporary file; default: the folder of ``path``.
        durable: return only when content and name are on disk.

    Raises:
        OSError: the folder cannot be created or written to, or the disk is full; nothing is left behind.
    """
    if top is None:
        make_folders(path.parent)
    temporary_file = make_temporary_path(top or path.parent)
    try:
        fill(temporary_file, content, durable)
        made = [path.parent, *(folder.parent for folder in make_folders(path.parent, top))]
        temporary_file.replace(path)
        for folder in made if durable else ():
            sync(folder)
    except OSError as error:
        temporary_file.unlink(missing_ok=True)
        if top is None or error.errno != errno.EXDEV:
            raise
        # A folder below `top` is a link to another file system.
        write(path, content, durable=durable)
    except BaseException:
        temporary_file.unlink(missing_ok=True)
        raise


def make_temporary_path(folder: Path) -> Path:
    """Return a new temporary path in a folder, short enough for any file system."""
    return folder / f".camcli-{secrets.token_hex(8)}.tmp"


def fill(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a new file.

    Raises:
        OSError: the file exists, or cannot be written, perhaps after a part of it was.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system supports it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that sync folders by themselves
            raise
    finally:
        os.close(descriptor)


def make_folders(folder: Path, top: Path | None = None) -> list[Path]:
    """Create a folder and its parents below ``top``, and return those that were missing.

    Neither ``top`` nor its parents are created: they may have been moved away on purpose.
    """
    missing = list(takewhile(lambda one: one != top and not one.is_dir(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
    return missing
