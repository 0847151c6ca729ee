"""What the user can put right: each error says what was given, what exists, and what to do."""

import difflib
from collections.abc import Iterable


class CamcliError(Exception):
    """An error with a reason for people.

    Args:
        message: what was given and why it cannot be done.
        hint: what to do instead, or what exists; may span lines.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.hint)


class RequestError(CamcliError):
    """The request itself is wrong; nothing was started. Exit code 2."""

    exit_code = 2


class PictureError(CamcliError):
    """This picture (or this target of it) cannot be done; the others can. Exit code 1."""

    exit_code = 1


class OutputError(CamcliError):
    """What belongs to the run as a whole cannot be written, so the run ends; what was done stays. Exit code 1."""

    exit_code = 1


class NothingFoundError(CamcliError):
    """The request is sound, but there is nothing to do. Exit code 3."""

    exit_code = 3


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names most like ``word``, best first; case does not count."""
    by_folded: dict[str, str] = {}
    for name in known:
        by_folded.setdefault(name.casefold(), name)
    close = difflib.get_close_matches(word.casefold(), by_folded, n=most, cutoff=0.6)
    within = [folded for folded in by_folded if word.casefold() in folded and folded not in close] if word else []
    return [by_folded[folded] for folded in [*close, *sorted(within, key=len)][:most]]


def did_you_mean(word: str, known: Iterable[str], most: int = 3) -> str:
    """A line for a hint: ``did you mean 'resnet50'?``, or nothing if no name is near."""
    close = [repr(name) for name in nearest(word, known, most)]
    if not close:
        return ""
    return "did you mean " + (" or ".join(filter(None, [", ".join(close[:-1]), close[-1]]))) + "?"
