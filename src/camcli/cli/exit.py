"""Exit codes: turn interrupts, and errors that a user can fix, into a message and an exit code."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from camcli.base.errors import CamcliError, OutputError, RequestError
from camcli.cli.console import Console
from camcli.cli.progress import describe_counts
from camcli.cli.streams import redirect_prints_to_stderr

INTERRUPTED = 130
TERMINATED = 143  # the exit code that a shell reports for a process ended by SIGTERM
# Python's message if the system starts no more threads; the error has no class of its own.
NO_THREAD_MESSAGE = "can't start new thread"
PIPE_CLOSED = 141  # the exit code that a shell reports for a process ended by SIGPIPE


class Terminated(KeyboardInterrupt):
    """SIGTERM, which cluster schedulers send before SIGKILL; ends a run as gently as Ctrl-C."""


STOPPING_NOTE = "stopping after the images in progress; press Ctrl-C again to stop at once"
RESUME_NOTE = "finished results are kept, and the same command (without --overwrite) continues"


class _SignalHandler:
    """Handler of signals: the first ends the command gently, Ctrl-C after it at once.

    A gentle end takes time: images that are being read and written are finished.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.interrupted = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.interrupted:
            if number == signal.SIGINT:
                self.console.restore_terminal()
                # Wait for nothing: no threads, no files, no clean-up by Python.
                os._exit(INTERRUPTED)
            return
        self.interrupted = True
        if any(_is_worker(thread) for thread in threading.enumerate()):
            self.console.say(STOPPING_NOTE, style="bold")
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _is_worker(thread: threading.Thread) -> bool:
    """Return whether a thread reads or writes images; those that draw on the terminal need not be waited for."""
    return thread is not threading.main_thread() and (not thread.daemon or thread.name.startswith("camcli"))


@contextmanager
def exit_codes(console: Console, interrupted_note: str = RESUME_NOTE) -> Iterator[None]:
    """Turn what ends the block early into an exit code: errors of camcli, Ctrl-C, SIGTERM, a closed pipe.

    Args:
        console: prints the messages.
        interrupted_note: describes what an interrupted command leaves.
    """
    interrupts = _SignalHandler(console)
    handled = [signal.SIGTERM]
    # Where SIGINT is ignored, as a shell does for background processes, it stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handled.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupts) for number in handled}
    try:
        with redirect_prints_to_stderr():
            yield
        sys.stdout.flush()
    except CamcliError as error:
        console.error(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as interrupt:
        parts = "interrupted", describe_counts(*console.counted) if console.counted else "", interrupted_note
        console.say("; ".join(filter(None, parts)), style="bold")
        raise typer.Exit(TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED) from None
    except BrokenPipeError:
        # The reader is gone. Python would report that again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            console.error(
                RequestError(f"{str(error.filename)!r} is too long for a file name", "is it meant as a file name?")
            )
            raise typer.Exit(RequestError.exit_code) from None
        # Errors of files are reported elsewhere; this one is of standard output, which Python would flush again.
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        console.error(OutputError(f"standard output cannot be written to: {error.strerror}"))
        raise typer.Exit(OutputError.exit_code) from None
    except RuntimeError as error:
        if NO_THREAD_MESSAGE not in str(error):
            raise
        hint = "end other processes, raise the limit (ulimit -u), or use fewer: --workers 1"
        console.error(OutputError("the system cannot start more threads: its limit is reached", hint))
        raise typer.Exit(OutputError.exit_code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
