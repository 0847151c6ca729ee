"""Output folder: locked by one run at a time, and checked to be the same one at each write."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from types import TracebackType

import filelock

from camcli.base import atomic
from camcli.base.errors import OutputError, RequestError
from camcli.images.address import show_path
from camcli.images.own_outputs import SHARDS, find_shard_folders
from camcli.runs.job.shard import Shard

LOCK_FILE = ".camcli.lock"
# A run that starts waits so long for others that start, each of which takes a moment.
GATE_SECONDS = 120.0
# A lock is waited for so long, since it may only be tried by ``camcli status``.
PROBE_SECONDS = 0.3
# Most names; others are looked at part by part.
PLAIN_PATH = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w. -]*)*")


class Folder:
    """Output folder, locked for this run until it is closed.

    Temporary files at its top, left by a killed run, are removed.

    Runs of the shards of a job write to one folder at a time, each with records, and a lock, in a folder of its own.

    Args:
        path: path of the folder; made if need be.
        durable: files are flushed to the disk before :meth:`write` returns.
        shard: the shard that the run does; None for a run of all images, beside which no shard can run.
        out: the output folder that it stands for, if that is another: an address, kept as a path.

    Attributes:
        out: the output folder, for people and for the names of images.
        records: folder of the run's records and temporary files: the folder itself, or its shard's.

    Raises:
        RequestError: another run writes here now, or its lock is a link.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, path: Path, durable: bool = False, shard: Shard | None = None, out: Path | None = None) -> None:
        self.path, self.out = path, out or path
        self.durable = durable
        self.shard = shard
        self.records = path / SHARDS / shard.folder_name if shard else path
        with _explaining(path):
            made = atomic.make_folders(path)
            self._lock = self._lock_all() if shard is None else self._lock_shard(shard)
            try:
                for folder in {path, path / SHARDS, *(one.parent for one in made)} if durable else ():
                    if folder.is_dir():
                        atomic.sync(folder)
            except BaseException:
                self._lock.release()
                raise
        self._identity = _find_identity(self.records)
        _remove_temporary_files(self.records)

    def _lock_all(self) -> filelock.BaseFileLock:
        lock = _take_lock(self.path, f"another run is writing to {show_path(self.out)!r}")
        try:
            if (self.path / SHARDS).is_dir():
                with self.gate():
                    _check_no_shard_runs(self.path)
        except BaseException:
            lock.release()
            raise
        return lock

    def _lock_shard(self, shard: Shard) -> filelock.BaseFileLock:
        (self.path / SHARDS).mkdir(exist_ok=True)
        with self.gate():
            # A run of all images that starts now waits at the gate, with its lock, and will see this one's.
            _take_lock(self.path, f"a run of all images is writing to {show_path(self.out)!r}").release()
            _check_no_shard_runs(self.path, shard)
            self.records.mkdir(exist_ok=True)
            return _take_lock(self.records, f"another run does shard {shard} in {show_path(self.out)!r} now")

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. Its file stays: if it were deleted, two runs could hold it at a time."""
        self._lock.release()

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Keep runs of shards from starting while the block runs; there must be a folder of their records."""
        with _explaining(self.path):
            lock = _take_lock(
                self.path / SHARDS, f"runs of shards in {str(self.path)!r} are about to start", GATE_SECONDS
            )
        try:
            yield
        finally:
            lock.release()

    def check(self) -> None:
        """Check that the folder is still the one that was opened.

        Raises:
            OutputError: it was moved or deleted.
        """
        if _find_identity(self.records) != self._identity:
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
            atomic.write(self.path / name, content, top=self.records, durable=self.durable)
        except OSError:
            self.check()
            raise

    def write_record(self, name: str, content: bytes) -> None:
        """Write a file that is of the run, and not an image's; as :meth:`write`."""
        self.write(name, content)

    def find_file(self, name: str) -> Path | io.BytesIO:
        """Return an image's file to read: its path, or its content where there is none."""
        return self.path / name

    def find_size(self, name: str) -> int:
        """Return the size of an image's file; 0 if there is none."""
        return find_size(self.path, name)

    def remove(self, name: str) -> None:
        """Delete an image's file, if there is one, and if it would not lie outside the folder.

        Raises:
            OSError: it cannot be deleted.
        """
        if file := self.resolve_inside(name):
            file.unlink(missing_ok=True)

    def save_records(self) -> None:
        """Bring the records to where the output folder is, if that is elsewhere."""

    def resolve_inside(self, name: str) -> Path | None:
        """Return the path of a file by its recorded name; None if it would lie outside, also through a link."""
        return resolve_inside(self.path, name)


def resolve_inside(folder: Path, name: str) -> Path | None:
    """Return the path of a file in a folder by its recorded name; None if it would lie outside, also through a link."""
    if not is_plain_path(name):
        return None
    file = folder / name
    try:
        return file if file.parent.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError):  # links in a circle
        return None


def find_size(folder: Path, name: str) -> int:
    """Return the size of a file in an output folder; 0 if there is none."""
    try:
        found = os.stat(f"{folder}/{name}")  # noqa: PTH116  four times as quick
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _remove_temporary_files(records: Path) -> None:
    with suppress(OSError), os.scandir(records) as entries:
        for entry in entries:
            if atomic.TEMPORARY_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"the output folder {str(path)!r} cannot be written to: {error.strerror}") from error


def _take_lock(folder: Path, refusal: str, seconds: float = PROBE_SECONDS) -> filelock.BaseFileLock:
    """Lock a folder; wait so many seconds for it.

    Raises:
        RequestError: it is locked by another run, as ``refusal`` says, or its lock is a link.
    """
    lock = folder / LOCK_FILE
    if lock.is_symlink():
        raise RequestError(
            f"{str(lock)!r} is a link, which camcli does not create: its target could be damaged",
            "delete the link, or choose another --out",
        )
    taken = filelock.FileLock(lock, timeout=seconds)
    try:
        taken.acquire()
    except filelock.Timeout:
        raise RequestError(refusal, "wait for it, or choose another --out") from None
    return taken


def _check_no_shard_runs(path: Path, shard: Shard | None = None) -> None:
    """Check that no shard is done now, or only shards of the same number of them; the folder must be locked."""
    for folder in find_shard_folders(path):
        if shard is None or not folder.name.endswith(f"-of-{shard.count}"):
            _take_lock(folder, f"shard {folder.name} is being done in {str(path)!r}").release()


def is_locked(folder: Path) -> bool:
    """Return whether a run writes to a folder of records now, as far as this machine can tell."""
    if not (folder / LOCK_FILE).is_file():
        return False
    try:
        _take_lock(folder, "").release()
    except (RequestError, OSError):
        return True
    return False


def is_plain_path(name: str) -> bool:
    """Return whether a name is a relative path that only goes down."""
    if PLAIN_PATH.fullmatch(name):
        return True
    path = PurePath(name)
    return bool(path.name) and not path.anchor and ".." not in path.parts and "\0" not in name


def _find_identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
