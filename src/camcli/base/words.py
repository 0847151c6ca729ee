"""Text for messages: shortened lists and the first line of an error."""

from collections.abc import Sequence

# Number of names that a message lists.
MAX_NAMES = 5


# Verbs after several, and after one.
SINGULAR = {"are": "is", "were": "was", "have": "has"}


def count_of(number: int, noun: str, verb: str = "") -> str:
    """Return a number and what it counts, and a verb if need be: ``1 image``, ``2 images``, ``1 image is``.

    Args:
        number: the number.
        noun: the noun for one.
        verb: the verb for several.
    """
    words = [f"{number} {noun}" + "s" * (number != 1), SINGULAR.get(verb, verb) if number == 1 else verb]
    return " ".join(filter(None, words))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shorten(names: Sequence[str], count: int) -> str:
    """Return the first of ``count`` names, and the number of the others."""
    shown = names[:MAX_NAMES]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
