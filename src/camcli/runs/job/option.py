"""An option: a field of a job, or of what is asked beside it, with its flag and its help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

# The panels of the help.
MODEL = "Model and target"
OUTPUT = "Output"
COMPUTE = "Compute"
LOGGING = "Logging"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How a field is asked for on the command line, and the one text about it.

    Attributes:
        panel: the part of the help that it stands in.
        help: what it is; ``{names}`` stands for the words that there are.
        flag: its long name, where that is not the field's.
        short: its one-letter name.
        positional: it is no flag but a word by its place.
        metavar: what the help shows for its value, where that is not its type or its choices.
        show_default: what the help shows for the default, where that is not the field's; an empty one is not shown.
        min: the smallest number that will do.
        max: the greatest.
        env: it can also be given as an environment variable, ``CAMCLI_`` and its long name.
        several: one string in the field, joined by commas; on the command line as many as are given.
        commas: words may be joined by commas.
        unset: the field's default has no word of its own on the command line.
        names: the words there are, for the help and for completion.
        after: the field that it stands behind in the help, where that is not the one before it.
        more: what else typer is told.
    """

    panel: str = ""
    help: str = ""
    flag: str = ""
    short: str = ""
    positional: bool = False
    metavar: str | None = None
    show_default: str = ""
    min: int | float | None = None
    max: int | float | None = None
    env: bool = True
    several: bool = False
    commas: bool = False
    unset: bool = False
    names: Callable[[], Sequence[str]] | None = None
    after: str = ""
    more: Mapping[str, Any] | None = None

    def text(self) -> str:
        """The help, with the words that there are."""
        return self.help.replace("{names}", ", ".join(self.names())) if self.names else self.help


def option(default: T, panel: str = "", **words: Any) -> T:
    """A dataclass's field with what :class:`Option` says of it."""
    return field(default=default, metadata={"option": Option(panel=panel, **words)})


def get_option(one: Field[Any]) -> Option | None:
    """What a field says of itself as an option; None for a field that is none."""
    return one.metadata.get("option")
