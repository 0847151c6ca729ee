"""Options: fields of a job or of another dataclass, with their flags and help."""

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
    """Flag, help and other settings of a field that is a command-line option.

    Attributes:
        panel: panel of the help that lists it.
        help: help text; ``{names}`` stands for the allowed names.
        flag: long name, if not the field's.
        short: one-letter name.
        positional: it is a positional argument, not a flag.
        metavar: text for its value in the help, if not its type or its choices.
        show_default: text for the default in the help, if not the field's; an empty default is not shown.
        min: smallest number allowed.
        max: greatest number allowed.
        env: it can also be set by an environment variable, ``CAMCLI_`` and its long name.
        several: the field is one string joined by commas; on the command line the option can be repeated.
        commas: values may be joined by commas.
        unset: the field's default cannot be given on the command line.
        names: returns the allowed names, for the help and for completion.
        after: field that it follows in the help, if not the one before it.
        more: further arguments for typer.
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

    def format_help(self) -> str:
        """Return the help text with the allowed names filled in."""
        return self.help.replace("{names}", ", ".join(self.names())) if self.names else self.help


def option(default: T, panel: str = "", **words: Any) -> T:
    """Make a dataclass field that is an :class:`Option`."""
    return field(default=default, metadata={"option": Option(panel=panel, **words)})


def get_option(one: Field[Any]) -> Option | None:
    """Return a field's option; None for a field that is none."""
    return one.metadata.get("option")
