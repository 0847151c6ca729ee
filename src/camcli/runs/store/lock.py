"""Lock of a run in an object store: an object that its run renews, and that ends with it."""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from camcli.base.errors import OutputError, RequestError
from camcli.runs.store.store import Store, parse_object

FILE = ".camcli.lock"
# A lock is renewed so often, and counts no more once it was not for so long.
RENEW_SECONDS, STALE_SECONDS = 30.0, 150.0
# While a lock stands in the way, its next renewal is looked for so often.
POLL_SECONDS = 5.0
# Where several runs may take over a lock that counts no more, the last to write it has it.
SETTLE_SECONDS = 1.0

Say = Callable[[str], None]


class StoreLock:
    """Lock in a store, held once :meth:`acquire` returns and as long as :meth:`renew` does.

    Args:
        store: the folder.
        name: the lock's name in it.
        earlier: token of an earlier run that is known to have ended.

    Attributes:
        token: text that no other lock has.
    """

    def __init__(self, store: Store, name: str = FILE, earlier: str = "") -> None:
        self._store, self._name, self._earlier = store, name, earlier
        self.token = secrets.token_hex(12)
        self._beats = 0
        self._renewing = Lock()

    def acquire(self, list_others: Callable[[], Iterable[str]], say: Say) -> None:
        """Take the lock; wait for runs that may have been killed, until their locks count no more.

        Args:
            list_others: returns the names of other locks that may not be held at the same time.
            say: told for what is waited.

        Raises:
            RequestError: another run is under way.
            OutputError: the store cannot be read or written.
        """
        self._wait(lambda: [self._name, *list_others()], say)
        if not self._store.put(self._name, self._make_content(), absent=True):
            self._store.put(self._name, self._make_content())
            time.sleep(SETTLE_SECONDS)
        try:
            self.renew()
            # A run that looked before this lock was there has one of its own by now.
            self._wait(list_others, say, self.renew)
        except BaseException as error:
            with suppress(OutputError):
                self.release()
            if isinstance(error, OutputError):  # nothing was begun yet
                raise RequestError(error.message, error.hint) from error
            raise

    def renew(self) -> None:
        """Show that the run is still there.

        Raises:
            OutputError: the lock is another run's by now, or the store cannot be read or written.
        """
        with self._renewing:
            found = parse_object(self._store.get(self._name))
            if found.get("token") != self.token:
                by = f"{_describe(found)} has taken it" if found else "its lock is gone"
                raise OutputError(
                    f"{self._store.url} is no longer this run's: {by}, perhaps since this one was stopped for long",
                    "results that are there stay; once no other run is under way, the same command goes on",
                )
            self._beats += 1
            self._store.put(self._name, self._make_content())

    def release(self) -> None:
        """Delete the lock, if it is still this run's."""
        with self._renewing:
            if parse_object(self._store.get(self._name)).get("token") == self.token:
                self._store.remove(self._name)

    def _make_content(self) -> bytes:
        values = {"token": self.token, "host": platform.node(), "process": os.getpid(), "renewed": self._beats}
        return json.dumps({**values, "time": datetime.now(UTC).isoformat(timespec="seconds")}).encode()

    def _wait(
        self, list_names: Callable[[], Iterable[str]], say: Say, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until no lock counts any more.

        Raises:
            RequestError: one was renewed meanwhile.
        """
        seen: dict[str, tuple[bytes, float]] = {}  # content of each lock, and when it was written
        skew: float | None = None
        said = False
        while True:
            left = 0.0
            for name in list_names():
                content = self._store.get(name)
                found = parse_object(content)
                if content is None or found.get("token") in {self._earlier or self.token, self.token}:
                    continue
                if name not in seen:
                    skew = self._store.measure_skew() if skew is None else skew
                    age = self._store.find_age(name, skew)
                    seen[name] = content, time.monotonic() - max(0.0, age or 0.0)
                if seen[name][0] != content:
                    raise RequestError(
                        f"another run is writing to {self._store.url}: {_describe(found)}",
                        "wait for it, or choose another --out",
                    )
                still = STALE_SECONDS - (time.monotonic() - seen[name][1])
                if still > 0 and not said:
                    said = True
                    say(
                        f"{self._store.url} has the lock of {_describe(found)}, which may have been killed: "
                        f"it counts for {still:.0f} s more, unless it is renewed"
                    )
                left = max(left, still)
            if left <= 0:
                return
            time.sleep(min(POLL_SECONDS, left))
            meanwhile()


def is_held(store: Store, name: str) -> bool:
    """Return whether a run holds a lock, as far as the clocks of store and machine agree."""
    age = store.find_age(name)
    return age is not None and age < STALE_SECONDS


def _describe(found: dict[str, Any]) -> str:
    return f"a run on {found.get('host', 'another machine')} (process {found.get('process', 'unknown')})"
