"""Errors that the user can fix, each with what was given, what exists, and what to do."""

import difflib
from collections.abc import Iterable


class CamcliError(Exception):
    """An error with a message for the user.

    Args:
        message: what was given and why it cannot be done.
        hint: what to do instead, or what exists; may have several lines.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.hint)


class RequestError(CamcliError):
    """The request itself is invalid; nothing was started. Exit code 2."""

    exit_code = 2


class PictureError(CamcliError):
    """One image, or one of its targets, cannot be processed; others can. Exit code 1.

    Attributes:
        target: place of the target without a map among those of its image, from 0 on; None if that holds for all.
        method, layer: method and layer of the map that is missing; empty if that holds for all.
    """

    exit_code = 1
    target: int | None = None
    method = layer = ""


class TrialEndedError(PictureError):
    """A trial has run long enough to say how long the whole would take.

    Args:
        seconds: estimated time of what is left out.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("the rest of the masks is left out of a trial")
        self.seconds = seconds

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.seconds,)


class OutputError(CamcliError):
    """A file of the whole run cannot be written, so the run ends; finished results stay. Exit code 1."""

    exit_code = 1


class NothingFoundError(CamcliError):
    """The request is valid, but there is nothing to do. Exit code 3."""

    exit_code = 3


def find_nearest(word: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names most similar to ``word``, best first, ignoring case."""
    by_folded: dict[str, str] = {}
    for name in known:
        by_folded.setdefault(name.casefold(), name)
    close = difflib.get_close_matches(word.casefold(), by_folded, n=limit, cutoff=0.6)
    within = [folded for folded in by_folded if word.casefold() in folded and folded not in close] if word else []
    return [by_folded[folded] for folded in [*close, *sorted(within, key=len)][:limit]]


def did_you_mean(word: str, known: Iterable[str], limit: int = 3) -> str:
    """Return a line for a hint, ``did you mean 'resnet50'?``; empty if no name is similar."""
    return suggest(find_nearest(word, known, limit))


def suggest(names: Iterable[str]) -> str:
    """Return a line for a hint that suggests these names; empty if there are none."""
    close = [repr(name) for name in names]
    if not close:
        return ""
    return "did you mean " + (" or ".join(filter(None, [", ".join(close[:-1]), close[-1]]))) + "?"
