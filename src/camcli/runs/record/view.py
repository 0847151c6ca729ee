"""Look at an output folder, which is neither locked nor changed: a local one, or the records of one in a store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from camcli.images.address import to_url
from camcli.images.own_outputs import SHARDS, find_line_records
from camcli.runs.record import folder
from camcli.runs.record.store_folder import iter_records
from camcli.runs.store import lock
from camcli.runs.store.sizes import Sizes
from camcli.runs.store.store import Store


@dataclass(frozen=True, slots=True)
class View:
    """Content of an output folder.

    Attributes:
        path: local folder of its records.
        find_size: returns the size of an image's file; 0 if there is none.
        is_locked: returns whether a run writes to a folder of records.
    """

    path: Path
    find_size: Callable[[str], int]
    is_locked: Callable[[Path], bool]


@contextmanager
def look_at(out: Path) -> Iterator[View]:
    """Look at an output folder; of one in a store the records are copied, for as long as the block runs.

    Raises:
        RequestError: it is no address of a store.
        OutputError: the store cannot be read.
    """
    if not (url := to_url(out)):
        yield View(out, partial(folder.find_size, out), folder.is_locked)
        return
    store = Store(url)
    with tempfile.TemporaryDirectory(prefix="camcli-") as made:
        path = Path(made)
        for name in iter_records(store):
            store.get_file(name, path / name)

        def is_locked(records: Path) -> bool:
            return lock.is_held(store, (records.relative_to(path) / lock.FILE).as_posix())

        yield View(path, Sizes(store).get, is_locked)


def open_files(out: Path) -> Callable[[str], bytes | None]:
    """Return a function from the plain name of a file in an output folder to its content.

    It is None where there is no file, where it cannot be read, and where a link leads out of the folder.
    """
    return Store(url).get if (url := to_url(out)) else partial(_read_file, str(out.resolve()))


def _read_file(out: str, file: str) -> bytes | None:
    path = f"{out}/{file}"
    try:
        return Path(path).read_bytes() if _leads_inside(out, os.path.dirname(path)) else None  # noqa: PTH120  quick
    except OSError:
        return None


@lru_cache(maxsize=1000)
def _leads_inside(out: str, folder: str) -> bool:
    return Path(folder).resolve().is_relative_to(out)


def has_lines(out: Path, file: str) -> bool:
    """Return whether an output folder, or a shard in it, has a ledger of this name that is not empty."""
    if not (url := to_url(out)):
        return any(one.is_file() and one.stat().st_size for one in find_line_records(out, file))
    store = Store(url)
    there = (name for name, size in store.iter_entries(SHARDS) if size)
    return bool(store.get(file)) or any(name.endswith(f"/{file}") for name in there)
