"""The output folder: held by one run at a time, and still the same one when something is written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePath
from types import TracebackType

import filelock

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError

LOCK = ".camcli.lock"


class Folder:
    """An output folder that this run alone writes to, from when it is made until it is closed.

    What a killed run left half written at its top is removed.

    Args:
        path: where it is; made if need be.
        durable: what is written is on the disk before :meth:`write` comes back.

    Raises:
        RequestError: another run writes here now, or its lock is a link.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, path: Path, durable: bool = False) -> None:
        self.path = path
        self.durable = durable
        lock = path / LOCK
        try:
            path.mkdir(parents=True, exist_ok=True)
            if lock.is_symlink():
                raise RequestError(
                    f"{str(lock)!r} is a link, and camcli makes none: what it points to could be harmed",
                    "delete the link, or choose another --out",
                )
            self._lock = filelock.FileLock(lock, timeout=0)
            self._lock.acquire()
        except filelock.Timeout:
            raise RequestError(
                f"another run is writing to {str(path)!r}", "wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise OutputError(f"the output folder {str(path)!r} cannot be written to: {error.strerror}") from error
        self._identity = _identity(path)
        self._sweep()

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write here. The lock's file stays: deleted, it could be held by two at a time."""
        self._lock.release()

    @property
    def gone(self) -> bool:
        """Whether the path leads elsewhere by now, or nowhere."""
        return _identity(self.path) != self._identity

    def check(self) -> None:
        """See that the folder is the one that was opened.

        Raises:
            OutputError: it was moved or deleted.
        """
        if self.gone:
            raise OutputError(
                f"the output folder {str(self.path)!r} is gone: it was moved or deleted, or its drive was detached, "
                "while this run was writing to it",
                "what was done is where the folder is now; put it back, and give the same command again",
            )

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        Args:
            name: its path from here; folders are made if need be.
            content: all of it.

        Raises:
            OSError: it cannot be written.
            OutputError: the folder is gone.
        """
        self.check()
        try:
            atomic.write(self.path / name, content, top=self.path, durable=self.durable)
        except OSError:
            self.check()
            raise

    def inside(self, name: str) -> Path | None:
        """The file of a name that somebody wrote down; None where it would lie outside, also by way of a link."""
        if not plain(name):
            return None
        file = self.path / name
        try:
            return file if file.parent.resolve().is_relative_to(self.path.resolve()) else None
        except (OSError, RuntimeError):  # links in a circle
            return None

    def _sweep(self) -> None:
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if atomic.TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    Path(entry.path).unlink(missing_ok=True)


def plain(name: str) -> bool:
    """Whether a name goes down only, from the folder that it belongs to."""
    path = PurePath(name)
    return bool(path.name) and not path.anchor and ".." not in path.parts and "\0" not in name


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
