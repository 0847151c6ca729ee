"""Output folder in an object store: outputs are put there at once, records every half minute and at the end.

A run's records are local files, in a folder of the user's cache, as in any output folder. What the store has is true at
every moment: an image's files are put before its line, and a line's files are deleted after what replaced them.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from camcli.base import cache
from camcli.base.errors import OutputError
from camcli.base.log import LOGGER
from camcli.images.address import to_url
from camcli.images.own_outputs import LINE_RECORDS, SHARD_FOLDER, SHARDS
from camcli.runs.job.shard import Shard
from camcli.runs.record.folder import Folder
from camcli.runs.store import lock
from camcli.runs.store.lock import Say, StoreLock
from camcli.runs.store.sizes import Sizes
from camcli.runs.store.store import Store, parse_object

# Seconds between two times that records are put; more where that takes long, so that it takes up to a tenth of a run.
SAVE_SECONDS, MAX_SHARE = 30.0, 0.1
# Records of more bytes are put in parts.
SMALL_BYTES = 2**23
FACTS, LOG, TOKEN = "run.json", "camcli.log", ".camcli.token"
# Records of an output folder, in the order in which they are put.
RECORDS = (*LINE_RECORDS, "concepts.npz", "concepts.png", FACTS)


def open_folder(path: Path, durable: bool, shard: Shard | None, say: Say) -> Folder:
    """Open an output folder, local or in a store, and lock it.

    Raises:
        RequestError: another run writes there now.
        OutputError: it cannot be written to.
    """
    return StoreFolder(path, shard, say) if to_url(path) else Folder(path, durable, shard)


def iter_records(store: Store) -> Iterator[str]:
    """Iterate over the names of the records in a store, of all shards and others, as far as they may exist."""
    yield from RECORDS
    for name, _ in store.iter_entries(SHARDS):
        _, folder, record = (*name.split("/"), "", "")[:3]
        if SHARD_FOLDER.fullmatch(folder) and record in RECORDS:
            yield name


class StoreFolder(Folder):
    """Output folder in an object store, locked for this run until it is closed.

    Args:
        out: its address, kept as a path.
        shard: as for :class:`Folder`.
        say: told what is waited for.

    Raises:
        RequestError: another run writes there now.
        OutputError: the store, or the user's cache, cannot be read or written.
    """

    def __init__(self, out: Path, shard: Shard | None, say: Say) -> None:
        self.store = Store(to_url(out))
        super().__init__(_find_working_folder(self.store.url, shard), shard=shard, out=out)
        self._sizes = Sizes(self.store)
        self._error: OutputError | None = None
        self._saving, self._ended = threading.Lock(), threading.Event()
        self._saved: dict[str, tuple[int, ...]] = {}  # records in the store, and marks of the files that they are
        self._threads: list[threading.Thread] = []
        self._prefix = f"{SHARDS}/{shard.folder_name}/" if shard else ""
        token = self.path / TOKEN
        # Whoever had it held the lock of this local folder, and has ended.
        earlier = token.read_text("ascii", "replace") if token.exists() else ""
        self._store_lock = StoreLock(self.store, self._prefix + lock.FILE, earlier)
        try:
            self._store_lock.acquire(partial(_list_other_locks, self.store, shard), say)
            try:
                token.write_text(self._store_lock.token, "ascii")
                self._start(self._store_lock.renew, lock.RENEW_SECONDS)
                self._fetch()
            except BaseException:
                self._end()
                with suppress(OutputError):
                    self._store_lock.release()
                raise
        except BaseException:
            super().close()
            raise

    def check(self) -> None:
        """Check that the run may go on writing.

        Raises:
            OutputError: its lock was lost, or the store cannot be written to.
        """
        if self._error is not None:
            raise self._error
        super().check()

    def write(self, name: str, content: bytes) -> None:
        """Put an image's file into the store, whole or not at all.

        Raises:
            OutputError: it cannot be put.
        """
        self.check()
        with self._remembering():
            self.store.put(name, content)
        self._sizes.set(name, len(content))

    def write_record(self, name: str, content: bytes) -> None:
        """Write a record, and put it into the store, after the ledger.

        Raises:
            OSError: it cannot be written.
            OutputError: it cannot be put.
        """
        super().write(name, content)
        if name.startswith(self._prefix):
            self.save_records()
            if len(self._threads) == 1:  # the run has begun: its ledger is joined and compacted
                self._start(self.save_records, SAVE_SECONDS)
        else:  # of all shards, by the first of them
            self.store.put(name, content, absent=True)

    def find_file(self, name: str) -> Path | io.BytesIO:
        """Return the content of an image's file; the path of a missing one if there is none."""
        content = self.store.get(name)
        return self.path / name if content is None else io.BytesIO(content)

    def find_size(self, name: str) -> int:
        """Return the size of an image's file; 0 if there is none."""
        return self._sizes.get(name)

    def remove(self, name: str) -> None:
        """Delete an image's file, if there is one."""
        if self.resolve_inside(name) and self.find_size(name):
            self.store.remove(name)
            self._sizes.set(name, 0)

    def save_records(self) -> None:
        """Put the records that changed into the store, lines before what is said of the whole run.

        Raises:
            OutputError: the lock was lost, or they cannot be put.
        """
        with self._saving, self._remembering():
            self._store_lock.renew()
            there = [name for name in _list_files(self.path) if name.startswith(self._prefix)]
            for name in there:
                with suppress(FileNotFoundError):  # a log that begins anew
                    self._save(name)
            # Of shards whose lines were joined to the others, which the store has by now.
            for name in [one for one in self._saved if one.startswith(self._prefix) and one not in there]:
                self.store.remove(name)
                del self._saved[name]

    def _save(self, name: str) -> None:
        path = self.path / name
        mark = _make_mark(path)
        if mark != self._saved.get(name):
            if mark[0] < SMALL_BYTES:
                self.store.put(name, path.read_bytes())
            else:
                self.store.put_file(name, path)
            self._saved[name] = mark

    def close(self) -> None:
        """Put what the store does not have yet, and release the locks.

        Raises:
            OutputError: it cannot be put; the same command on this machine puts it.
        """
        self._end()
        try:
            if self._error is None:
                self.save_records()
                for name in _list_files(self.path):
                    if name.rpartition("/")[2] != LOG:
                        (self.path / name).unlink(missing_ok=True)
        finally:
            with suppress(OutputError):
                self._store_lock.release()
            super().close()

    def _end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[[], None], seconds: float) -> None:
        self._threads.append(threading.Thread(target=self._repeat, args=(work, seconds), daemon=True))
        self._threads[-1].start()

    def _repeat(self, work: Callable[[], None], seconds: float) -> None:
        """Do something again and again until the folder is closed; what fails ends the run at its next write."""
        pause = seconds
        while not self._ended.wait(pause):
            began = time.monotonic()
            try:
                work()
            except OutputError as error:
                self._error = self._error or error
                return
            except Exception as error:
                LOGGER.warning("records of %s cannot be put", self.store.url, exc_info=error)
            pause = max(seconds, (time.monotonic() - began) / MAX_SHARE)

    def _fetch(self) -> None:
        """Bring the store's records here, but for what an interrupted run on this machine has recorded since."""
        ledgers = [name for name in map(self._prefix.__add__, LINE_RECORDS) if (self.path / name).is_file()]
        facts = self._prefix + FACTS
        run = _read_facts(self.path / facts).get("run")
        goes_on = bool(run) and parse_object(self.store.get(facts)).get("run") == run
        for name in _list_files(self.path):
            if name not in ledgers and name.rpartition("/")[2] != LOG:
                (self.path / name).unlink()
        for name in iter_records(self.store):
            count = f"-of-{self.shard.count}/" if self.shard else None
            if count and count in name and not name.startswith(self._prefix):
                continue  # another shard's, which may go on, and has none of the images of this one
            fetched = self.path / f"{name}.fetched"
            found = self.store.get_file(name, fetched)
            if name in ledgers and goes_on and (not found or _begins_with(self.path / name, fetched)):
                fetched.unlink(missing_ok=True)  # all files of its further lines were put
                ledgers.remove(name)
            elif found:
                fetched.replace(self.path / name)
                self._saved[name] = _make_mark(self.path / name)
                ledgers = [one for one in ledgers if one != name]
        for name in ledgers if not goes_on else ():
            (self.path / name).unlink()

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Let an error of the store end the run, whichever thread it happens in."""
        try:
            yield
        except OutputError as error:
            self._error = self._error or error
            raise


def _list_other_locks(store: Store, shard: Shard | None) -> list[str]:
    """Return the locks of runs beside which one cannot be: of all images, and of other numbers of shards."""
    found = [name for name, _ in store.iter_entries(SHARDS) if name.endswith(f"/{lock.FILE}")]
    if not shard:
        return found
    return [lock.FILE, *(one for one in found if not one.rpartition("/")[0].endswith(f"-of-{shard.count}"))]


def _list_files(folder: Path) -> list[str]:
    """Return the names of the records in a local folder, in the order in which they are put."""
    order = (*LINE_RECORDS, "concepts.npz", "concepts.png", LOG, FACTS)
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    known = (name for name in found if name.rpartition("/")[2] in order)
    return sorted(known, key=lambda name: (order.index(name.rpartition("/")[2]), name))


def _find_working_folder(url: str, shard: Shard | None) -> Path:
    words = re.sub(r"[^\w.]+", "-", url).strip("-")[-60:]
    digits = hashlib.sha256(f"{url} {shard or ''}".encode()).hexdigest()[:16]
    return cache.find_folder() / "stores" / f"{words}-{digits}"


def _read_facts(path: Path) -> dict[str, object]:
    return parse_object(path.read_bytes()) if path.is_file() else {}


def _begins_with(path: Path, beginning: Path) -> bool:
    """Return whether a file begins with all of another."""
    with path.open("rb") as whole, beginning.open("rb") as part:
        while block := part.read(2**20):
            if whole.read(len(block)) != block:
                return False
    return True


def _make_mark(path: Path) -> tuple[int, ...]:
    """Return numbers that change with a file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
