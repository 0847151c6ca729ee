"""Write a file whole or not at all."""

import errno
import os
import re
import secrets
from itertools import takewhile
from pathlib import Path

# What a temporary file is called, and nothing else is: those of killed runs are known by it.
TEMPORARY = re.compile(r"\.camcli-[0-9a-f]{16}\.tmp", re.ASCII)


def write(path: Path, content: bytes, top: Path | None = None, durable: bool = False) -> None:
    """Write ``content`` under a temporary name, then move it to ``path`` in one step.

    Args:
        path: where it belongs; its folder is made if need be.
        content: all of it.
        top: the folder of the temporary file, which must be there; default: the one of ``path``.
        durable: come back only when the disk has the content, and its name.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full; nothing is left behind.
    """
    if top is None:
        _made(path.parent)
    holder = temporary(top or path.parent)
    try:
        fill(holder, content, durable)
        made = [path.parent, *(folder.parent for folder in _made(path.parent, top))]
        holder.replace(path)
        for folder in made if durable else ():
            sync(folder)
    except OSError as error:
        holder.unlink(missing_ok=True)
        if top is None or error.errno != errno.EXDEV:
            raise
        # A folder below is a link to another file system.
        write(path, content, durable=durable)
    except BaseException:
        holder.unlink(missing_ok=True)
        raise


def temporary(folder: Path) -> Path:
    """A name in a folder that nothing has: short, so that a file name of any length has a temporary one."""
    return folder / f".camcli-{secrets.token_hex(8)}.tmp"


def fill(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a new file.

    Raises:
        OSError: it is there, or cannot be written; then some of it may be.
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
    """Come back when the disk has the names in a folder, where the system knows how."""
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


def _made(folder: Path, top: Path | None = None) -> list[Path]:
    """Make a folder, but none that ``top`` lies in, nor itself: these may have been moved away. Which that took."""
    missing = list(takewhile(lambda one: one != top and not one.is_dir(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
    return missing
