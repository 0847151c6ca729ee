"""Options: fields of a job or of another dataclass, with their flags and help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import wraps
from typing import Any, TypeVar

from camcli.base.errors import RequestError

T = TypeVar("T")
C = TypeVar("C", bound=type)

# The panels of the help.
MODEL = "Model and target"
OUTPUT = "Output"
COMPUTE = "Compute"
LOGGING = "Logging"
CLUSTER = "Cluster"


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

    def find_flag(self, name: str) -> str:
        """Return the flag of the field of this name."""
        return self.flag or "--" + name.replace("_", "-")

    def format_help(self) -> str:
        """Return the help text with the allowed names filled in."""
        return self.help.replace("{names}", ", ".join(self.names())) if self.names else self.help


def option(default: T, panel: str = "", **words: Any) -> T:
    """Make a dataclass field that is an :class:`Option`."""
    return field(default=default, metadata={"option": Option(panel=panel, **words)})


def get_option(one: Field[Any]) -> Option | None:
    """Return a field's option; None for a field that is none."""
    return one.metadata.get("option")


def name_by_field(owner: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by their fields, where they may be named like their flags: ``layer``, ``batch-size``.

    Raises:
        RequestError: one is given twice.
    """
    named: dict[str, Any] = {}
    for given, value in options.items():
        plain = given.replace("-", "_")
        name = _find_flags(owner).get(plain, plain)
        if name in named:
            raise RequestError(f"{name} is given twice: {given} is the same option", "leave one out")
        named[name] = value
    return named


def accept_flag_names(owner: C) -> C:
    """Let the constructor of a dataclass of options take them by the names of their flags too."""
    construct: Any = owner.__init__  # type: ignore[misc]

    @wraps(construct)
    def init(self: Any, **given: Any) -> None:
        construct(self, **name_by_field(owner, given))

    owner.__init__ = init  # type: ignore[misc]
    return owner


def _find_flags(owner: Any) -> dict[str, str]:
    """Return the fields whose flags are called otherwise, by the names of these."""
    flags = {one.name: spec.flag for one in fields(owner) if (spec := get_option(one)) and spec.flag}
    return {flag.strip("-").replace("-", "_"): name for name, flag in flags.items()}
