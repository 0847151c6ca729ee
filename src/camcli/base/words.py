"""Words for messages: a list that is cut short, the first line of an error."""

from collections.abc import Sequence

# How many names a message lists.
MOST_NAMES = 5


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def several(names: Sequence[str], count: int) -> str:
    """The first names of so many, in words."""
    shown = names[:MOST_NAMES]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
