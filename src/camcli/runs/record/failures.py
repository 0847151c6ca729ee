"""Why a picture or a run could not be done, in words, and what becomes of earlier results."""

from __future__ import annotations

import errno

from camcli.base.errors import CamcliError, OutputError

STANDS = "the result of an earlier run stays"
NONE_DROPPED = "no picture could be done, so the results of other jobs stay"
OUTDATED = f"{STANDS}, of the picture as it was then: it was changed since"
# What fails for one picture in these ways fails for all: the disk is full, the quota spent, the folder read-only.
NO_USE_TO_GO_ON = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
GO_ON_LATER = "what was done stays; make room and give the same command again"


def reason(error: Exception) -> str:
    """Why something failed, on one line, with what to do about it."""
    if isinstance(error, CamcliError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def cannot_write(out: str, error: OSError, hint: str = "") -> OutputError:
    """The end of a run that cannot write to its output folder."""
    return OutputError(f"{out!r} cannot be written to: {error.strerror}", hint)


def check_room(error: Exception, out: str) -> None:
    """See that an error is one picture's, and not the output folder's.

    Raises:
        OutputError: it would be every picture's.
    """
    if isinstance(error, OutputError):
        raise error
    if isinstance(error, OSError) and error.errno in NO_USE_TO_GO_ON:
        raise cannot_write(out, error, GO_ON_LATER) from error
