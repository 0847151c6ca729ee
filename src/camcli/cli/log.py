"""Log of a command: a file in its output folder; and with ``--debug``, tracebacks and timings on standard error."""

from __future__ import annotations

import logging
import logging.handlers
import platform
import shlex
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import typer

from camcli import __version__
from camcli.base import timing
from camcli.base.log import LOGGER
from camcli.base.versions import collect_versions

FILE = "camcli.log"
# The file is moved to camcli.log.1 when it would become longer than this.
MAX_BYTES = 2_000_000
# Tracebacks of images that failed; of further ones the reasons are logged.
MAX_TRACEBACKS = 10
# Records kept until there is a file; older ones are dropped.
MAX_BUFFERED = 1000


class CommandLog:
    """Log of one command, as a ``with`` block. What is logged before the output folder is there is kept until then.

    Args:
        debug: print tracebacks as they are logged, and at the end timings and versions.
    """

    def __init__(self, debug: bool) -> None:
        self.debug = debug
        self._buffer = _Buffer()
        # The printer first: the buffer keeps the text of a traceback, and not the traceback.
        self._handlers: list[logging.Handler] = [*([_TracebackPrinter()] if debug else []), self._buffer]
        self._file: logging.Handler | None = None

    def __enter__(self) -> CommandLog:
        self._began = time.perf_counter()
        timing.take()
        self._before = LOGGER.level, LOGGER.propagate
        LOGGER.setLevel(logging.DEBUG)
        LOGGER.propagate = False
        for handler in self._handlers:
            handler.addFilter(_TracebackLimit())
            LOGGER.addHandler(handler)
        return self

    def open(self, folder: Path) -> None:
        """Write to the log file in the output folder from now on, and what was logged before."""
        path = Path(folder, FILE)
        # A log is no reason to end a run, and a link could lead to a file that is not ours.
        with suppress(OSError):
            if self._file is not None or path.is_symlink():
                return
            self._file = _LogFile(path, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace")
            self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self._file.handle(_make_record(f"camcli {__version__}: {shlex.join(sys.argv[1:])}"))
            self._file.handle(_make_record(describe_versions()))
            self._buffer.pass_on_to(self._file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, typer.Exit | SystemExit | KeyboardInterrupt):
            LOGGER.critical("ended by an error of camcli's own", exc_info=error)
        seconds = {**timing.take(), "in all": time.perf_counter() - self._began}
        LOGGER.info("time: %s", timing.describe(seconds))
        if self.debug:
            for line in (f"time: {timing.describe(seconds)}", f"versions: {describe_versions()}"):
                print(line, file=sys.stderr)  # noqa: T201 - also when quiet
        for handler in (*self._handlers, self._file):
            if handler is not None:
                LOGGER.removeHandler(handler)
                handler.close()
        LOGGER.setLevel(self._before[0])
        LOGGER.propagate = self._before[1]


class _Buffer(logging.Handler):
    """Handler that keeps records, without what their tracebacks hold alive, until there is one to pass them on to."""

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[logging.LogRecord] = deque(maxlen=MAX_BUFFERED)
        self._next: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, or pass it on."""
        if record.exc_info:
            record.exc_text, record.exc_info = logging.Formatter().formatException(record.exc_info), None
        if self._next:
            self._next.handle(record)
        else:
            self._records.append(record)

    def pass_on_to(self, handler: logging.Handler) -> None:
        """Pass on what was kept, and all that follows."""
        self._next = handler
        while self._records:
            handler.handle(self._records.popleft())


class _LogFile(logging.handlers.RotatingFileHandler):
    """Log file; where it cannot be written to, the command goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's own name
        return


class _TracebackPrinter(logging.Handler):
    """Printer of tracebacks; what was said is printed by the console, and an uncaught error by Python."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the traceback of a record, if it has one."""
        if record.exc_info and record.levelno < logging.CRITICAL:
            text = logging.Formatter().formatException(record.exc_info)
            print(f"{record.getMessage()}\n{text}", file=sys.stderr)  # noqa: T201 - above a progress bar


class _TracebackLimit(logging.Filter):
    """Filter that lets the first tracebacks of images through."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        self._count += record.levelno == logging.DEBUG and record.exc_info is not None
        return record.levelno > logging.DEBUG or self._count <= MAX_TRACEBACKS


def describe_versions() -> str:
    """Describe the versions of what computes, and the system."""
    return ", ".join(f"{name} {version}" for name, version in collect_versions().items()) + f"; {platform.platform()}"


def _make_record(text: str) -> logging.LogRecord:
    return LOGGER.makeRecord(LOGGER.name, logging.INFO, "", 0, text, (), None)
