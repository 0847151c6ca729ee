"""Reasons why an image or a run failed, in words, and notes on earlier results."""

from __future__ import annotations

import errno

from camcli.base.errors import CamcliError, OutputError

RESULT_STAYS = "the result of an earlier run is kept"
NONE_DROPPED = "no image could be processed, so the results of other jobs are kept"
RESULT_OUTDATED = f"{RESULT_STAYS}, of the image before it was changed"
# Errors that would be every image's: the disk is full, the quota spent, the folder read-only.
FATAL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
RESUME_HINT = "finished results are kept; free some space and run the same command again"


def format_error(error: Exception) -> str:
    """Format an error on one line, with what to do about it."""
    if isinstance(error, CamcliError):
        hint = "; ".join(error.hint.splitlines()).replace(":; ", ": ")
        return f"{error.message} ({hint})" if hint else error.message
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def make_write_error(out: str, error: OSError, hint: str = "") -> OutputError:
    """Make the error of a run that cannot write to its output folder."""
    return OutputError(f"{out!r} cannot be written to: {error.strerror}", hint)


def raise_if_fatal(error: Exception, out: str) -> None:
    """Check that an error is one image's, and not the output folder's.

    Raises:
        OutputError: it would be every image's.
    """
    if isinstance(error, OutputError):
        raise error
    if isinstance(error, OSError) and error.errno in FATAL_ERRNOS:
        raise make_write_error(out, error, RESUME_HINT) from error
