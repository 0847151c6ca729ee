"""How a command ends: every error a user can put right becomes words and an exit code."""

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
from camcli.cli.console import Voice
from camcli.cli.streams import prints_aside

INTERRUPTED = 130
TERMINATED = 143  # what a shell reports for a process that SIGTERM ended
# What Python says where the system starts no more threads; it has no class of its own.
NO_THREAD = "can't start new thread"
PIPE_CLOSED = 141  # what a shell reports for a process that SIGPIPE ended


class Terminated(KeyboardInterrupt):
    """SIGTERM, as cluster schedulers send it before they kill: ends a run as gently as Ctrl-C."""


WAITING = "stopping: what is being read and written is finished first; Ctrl-C once more ends it at once"
GO_ON = "what was done stays, and the same command (without --overwrite) goes on"


class _Interrupts:
    """What signals do: the first ends the command gently, Ctrl-C after it at once.

    What is gentle takes its time: pictures that are being read and written are finished.
    """

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self.struck = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.struck:
            if number == signal.SIGINT:
                self.voice.cut()
                # Nothing is waited for: no thread, no file, no clean-up of Python's.
                os._exit(INTERRUPTED)
            return
        self.struck = True
        if any(_works(thread) for thread in threading.enumerate()):
            self.voice.say(WAITING, style="bold")
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _works(thread: threading.Thread) -> bool:
    """Whether it is one that reads or writes pictures; those that draw on the terminal need no end."""
    return thread is not threading.main_thread() and (not thread.daemon or thread.name.startswith("camcli"))


@contextmanager
def ending(voice: Voice, interrupted: str = GO_ON) -> Iterator[None]:
    """Turns what ends a command early into its exit code: errors of camcli, Ctrl-C, SIGTERM, a closed pipe.

    Args:
        voice: says it.
        interrupted: what an interrupted command leaves behind.
    """
    interrupts = _Interrupts(voice)
    heard = [signal.SIGTERM]
    # Where nobody is to interrupt it, as a shell has it of what runs in the background, it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        heard.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupts) for number in heard}
    try:
        with prints_aside():
            yield
        sys.stdout.flush()
    except CamcliError as error:
        voice.error(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as interrupt:
        voice.say(f"interrupted; {interrupted}", style="bold")
        raise typer.Exit(TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED) from None
    except BrokenPipeError:
        # Nobody reads on. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            voice.error(
                RequestError(f"{str(error.filename)!r} is too long a name for any file", "is it a file's name?")
            )
            raise typer.Exit(RequestError.exit_code) from None
        # Of a file the command has told it already; this is standard output, which Python would flush once more.
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        voice.error(OutputError(f"standard output cannot be written to: {error.strerror}"))
        raise typer.Exit(OutputError.exit_code) from None
    except RuntimeError as error:
        if NO_THREAD not in str(error):
            raise
        hint = "end other processes, raise the limit (ulimit -u), or ask for fewer: --workers 1"
        voice.error(OutputError("the system starts no more threads: its limit of them is reached", hint))
        raise typer.Exit(OutputError.exit_code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
