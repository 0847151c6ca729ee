"""Output folder: locked by one run at a time, and checked to be the same one at each write."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePath
from types import TracebackType

import filelock

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError

LOCK_FILE = ".camcli.lock"


class Folder:
    """Output folder, locked for this run until it is closed.

    Temporary files at its top, left by a killed run, are removed.

    Args:
        path: path of the folder; made if need be.
        durable: files are flushed to the disk before :meth:`write` returns.

    Raises:
        RequestError: another run writes here now, or its lock is a link.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, path: Path, durable: bool = False) -> None:
        self.path = path
        self.durable = durable
        lock = path / LOCK_FILE
        try:
            path.mkdir(parents=True, exist_ok=True)
            if lock.is_symlink():
                raise RequestError(
                    f"{str(lock)!r} is a link, which camcli does not create: its target could be damaged",
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
        self._identity = _find_identity(path)
        self._remove_temporary_files()

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. Its file stays: if it were deleted, two runs could hold it at a time."""
        self._lock.release()

    @property
    def is_gone(self) -> bool:
        """True if the path leads elsewhere by now, or nowhere."""
        return _find_identity(self.path) != self._identity

    def check(self) -> None:
        """Check that the folder is still the one that was opened.

        Raises:
            OutputError: it was moved or deleted.
        """
        if self.is_gone:
            raise OutputError(
                f"the output folder {str(self.path)!r} is gone: it was moved or deleted, or its drive was detached, "
                "while this run was writing to it",
                "finished results are where the folder is now; move it back, and run the same command again",
            )

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        Args:
            name: path relative to the folder; folders are made if need be.
            content: content of the file.

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

    def resolve_inside(self, name: str) -> Path | None:
        """Return the path of a file by its recorded name; None if it would lie outside, also through a link."""
        if not is_plain_path(name):
            return None
        file = self.path / name
        try:
            return file if file.parent.resolve().is_relative_to(self.path.resolve()) else None
        except (OSError, RuntimeError):  # links in a circle
            return None

    def _remove_temporary_files(self) -> None:
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                if atomic.TEMPORARY_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    Path(entry.path).unlink(missing_ok=True)


def is_plain_path(name: str) -> bool:
    """Return whether a name is a relative path that only goes down."""
    path = PurePath(name)
    return bool(path.name) and not path.anchor and ".." not in path.parts and "\0" not in name


def _find_identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
