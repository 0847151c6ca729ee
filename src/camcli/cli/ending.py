"""How a command ends: every error a user can put right becomes words and an exit code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from camcli.console import Voice
from camcli.errors import CamcliError

INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell reports for a process that SIGPIPE ended


@contextmanager
def ending(voice: Voice) -> Iterator[None]:
    """Turns what ends a command early into its exit code: errors of camcli, Ctrl-C, a closed pipe."""
    try:
        yield
        sys.stdout.flush()
    except CamcliError as error:
        voice.error(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        voice.say("interrupted; what was done stays, and the same command (without --overwrite) goes on", style="bold")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Nobody reads on. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
