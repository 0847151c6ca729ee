"""Folder of an object store, by its address: objects are put whole or not at all, read, listed and deleted."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from camcli.base.atomic import TEMPORARY_NAME
from camcli.base.errors import OutputError, PictureError, RequestError, did_you_mean
from camcli.images.address import READ_ONLY, SCHEMES
from camcli.images.remote import WAITS as QUICK_WAITS
from camcli.images.remote import ask_again, check_url, open_store

T = TypeVar("T")

# Seconds before each further try of what failed for a while: half a minute in all, since a run is to outlast it.
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
RESUME_HINT = "finished results are kept, and the same command goes on where this one stopped"


class Entry(NamedTuple):
    """Object of a listing.

    Attributes:
        name: its name, relative to the folder.
        size: its size in bytes.
    """

    name: str
    size: int


class Store:
    """Folder of an object store; methods may be called by several threads.

    Args:
        url: its address.
        waits: seconds before each further try of what failed for a while; default: half a minute in all.

    Raises:
        RequestError: it is not one that outputs can be written to, or a library is missing.
    """

    def __init__(self, url: str, waits: Sequence[float] | None = None) -> None:
        self._waits = WAITS if waits is None else waits
        scheme, _, rest = url.partition("://")
        if scheme in READ_ONLY or scheme not in SCHEMES:
            known = ", ".join(f"{one}://" for one in SCHEMES if one not in {*READ_ONLY, "memory"})
            raise RequestError(
                f"outputs cannot be written to {url!r}",
                did_you_mean(scheme, set(SCHEMES) - READ_ONLY) or f"name a local folder, or an address of {known}",
            )
        self.url, self._scheme, self._top = url.rstrip("/"), scheme, rest.strip("/")
        try:
            check_url(self.url)
            # What others write meanwhile is to be seen.
            self._files = open_store(scheme, use_listings_cache=False)
        except PictureError as error:
            raise RequestError(f"--out {url}: {error.message}", error.hint) from error

    def check(self) -> None:
        """Check that objects can be put, read and deleted here, by doing so.

        Raises:
            RequestError: they cannot.
        """
        try:
            Store(self.url, QUICK_WAITS).measure_skew()
        except OutputError as error:
            hint = "" if error.hint == RESUME_HINT else error.hint
            raise RequestError(f"the output folder cannot be used: {error.message}", hint) from error

    def measure_skew(self) -> float:
        """Return by how many seconds the store's clock is ahead, as an object shows that is put and deleted."""
        name = f".camcli-{secrets.token_hex(8)}.tmp"
        self.put(name, b"camcli")
        try:
            return (self._find_time(name) or datetime.now(UTC)).timestamp() - datetime.now(UTC).timestamp()
        finally:
            self.remove(name)

    def put(self, name: str, content: bytes, absent: bool = False) -> bool:
        """Put an object, whole or not at all.

        Args:
            name: its name.
            content: its content.
            absent: only if there is none of this name; return whether there was none.

        Raises:
            OutputError: it cannot be put.
            PictureError: a store has no objects of such a name.
        """
        path = self._locate(name)
        if not absent:
            self._ask(name, "written", lambda: self._files.pipe_file(path, content))
            return True
        try:
            self._ask(name, "written", lambda: _create(self._files, path, content))
        except OutputError:
            # Somebody was first; or a try that was reported as failed was not.
            if (there := self.get(name)) is None:
                raise
            return there == content
        return True

    def put_file(self, name: str, file: Path) -> None:
        """Put a file, which may be large and grow meanwhile, as an object, whole or not at all.

        Raises:
            OutputError: it cannot be put.
        """
        self._ask(name, "written", lambda: self._files.put_file(str(file), self._locate(name)))

    def get(self, name: str) -> bytes | None:
        """Return the content of an object; None if there is none.

        Raises:
            OutputError: it cannot be read.
        """
        path = self._locate(name)
        return self._ask(name, "read", lambda: _or_none(lambda: bytes(self._files.cat_file(path))))

    def get_file(self, name: str, file: Path) -> bool:
        """Copy an object, which may be large, to a file; return whether there is one.

        Raises:
            OutputError: it cannot be read.
        """
        path = self._locate(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if self._ask(name, "read", lambda: _or_none(lambda: bool(self._files.get_file(path, str(file)) or True))):
            return True
        file.unlink(missing_ok=True)
        return False

    def remove(self, name: str) -> None:
        """Delete an object, if there is one.

        Raises:
            OutputError: it cannot be deleted.
        """
        self._ask(name, "deleted", lambda: _or_none(lambda: self._files.rm_file(self._locate(name))))

    def find_age(self, name: str, skew: float = 0.0) -> float | None:
        """Return the seconds since an object was put, if the store tells; ``skew`` as :meth:`measure_skew` has it."""
        found = self._find_time(name)
        return None if found is None else datetime.now(UTC).timestamp() + skew - found.timestamp()

    def _find_time(self, name: str) -> datetime | None:
        path = self._locate(name)
        try:
            found = self._ask(name, "read", lambda: _or_none(lambda: self._files.modified(path)))
        except OutputError:  # of a store that tells no times
            return None
        return found if not isinstance(found, datetime) or found.tzinfo else found.replace(tzinfo=UTC)

    def iter_entries(self, folder: str = "") -> Iterator[Entry]:
        """Iterate over all objects below a folder, in no order; those of a page, or of one folder, are held at a time.

        Raises:
            OutputError: they cannot be listed.
        """
        top = "/".join(filter(None, [self._top, folder]))
        pages = self._list_pages_of_s3(top) if self._scheme == "s3" else self._list_folders(top)
        start = len(self._top) + 1
        for name, size in pages:
            if not name.endswith("/"):
                yield Entry(name[start:], size)

    def _list_pages_of_s3(self, top: str) -> Iterator[tuple[str, int]]:
        bucket, _, prefix = top.partition("/")
        more: dict[str, Any] = {}
        while True:
            words = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", **more}
            page = self._ask("", "listed", partial(self._files.call_s3, "list_objects_v2", **words))
            for one in page.get("Contents", ()):
                yield f"{bucket}/{one['Key']}", one["Size"]
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _list_folders(self, top: str) -> Iterator[tuple[str, int]]:
        def list_folder(path: str) -> list[dict[str, Any]]:
            return _or_none(lambda: self._files.ls(path, detail=True)) or []

        for entry in self._ask("", "listed", lambda: list_folder(top)):
            name = str(entry["name"]).strip("/")
            if entry["type"] != "directory":
                yield name, int(entry["size"])
            elif name != top:
                yield from self._list_folders(name)

    def _locate(self, name: str) -> str:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise PictureError(
                f"{name!r} cannot be the name of an object in a store: it is no valid UTF-8", "rename the image"
            ) from None
        return f"{self._top}/{name}"

    def _ask(self, name: str, done: str, work: Callable[[], T]) -> T:
        """Return what the store answers; what fails for a while is tried again.

        Raises:
            OutputError: it fails for longer, or for ever.
        """
        url = f"{self.url}/{name}" if name and not TEMPORARY_NAME.fullmatch(name) else self.url
        try:
            return ask_again(url, work, self._waits, done)
        except PictureError as error:
            raise OutputError(f"{url}: {error.message}", error.hint or RESUME_HINT) from error


def _create(files: Any, path: str, content: bytes) -> None:
    """Put an object of which there is none."""
    # A store that does not know the condition passes it over, or refuses it.
    if files.exists(path):
        raise FileExistsError(path)
    try:
        files.pipe_file(path, content, mode="create")
    except Exception as error:
        if files.exists(path):
            raise FileExistsError(path) from error  # which is not tried again
        if "implement" not in f"{type(error).__name__} {error}".lower():
            raise
        files.pipe_file(path, content)


def _or_none(work: Callable[[], T]) -> T | None:
    """Return what is found; None if there is nothing."""
    try:
        return work()
    except FileNotFoundError as error:
        if "bucket does not exist" in str(error).lower():  # else a misspelt one would look like an empty one
            raise
        return None


def parse_object(content: bytes | None) -> dict[str, Any]:
    """Return the JSON object that bytes are; empty if they are none."""
    try:
        found = json.loads(content or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
