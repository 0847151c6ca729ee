"""A command's options, made of the fields of a job and of what else it asks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import typer

from camcli.base import allocator
from camcli.runs.job.option import COMPUTE, LOGGING, Option, option, option_of

T = TypeVar("T")
S = TypeVar("S", bound="Session")
Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every command that explains is asked beside its job."""

    keep_memory: bool = option(
        True,
        COMPUTE,
        help="Keep freed memory for the next batch (glibc): faster, for a little more memory",
        more={"hidden": True},
    )
    # Not --keep-memory/--no-keep-memory: Rich gives the second flag a column of its own, a fifth of the panel.
    no_keep_memory: bool = option(
        False,
        COMPUTE,
        help="Return freed memory to the system after each batch (glibc): slower, a little less memory",
        env=False,
        after="compile",
    )
    as_json: bool = option(
        False, LOGGING, help="Print a line of JSON for each map to standard output", flag="--json", env=False
    )
    quiet: bool = option(False, LOGGING, help="Print errors and failures only", short="-q", env=False)


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A field as a command asks for it."""

    name: str
    type: Any
    default: Any
    option: Option

    def reworded(self, words: Mapping[str, Any]) -> "_Parameter":
        """The same with other words: of :class:`Option`, and ``default`` and ``type`` of the command line."""
        own = {name: words[name] for name in ("type", "default") if name in words}
        return replace(
            self, **own, option=replace(self.option, **{name: words[name] for name in words.keys() - own.keys()})
        )

    def as_typer(self) -> inspect.Parameter:
        """The parameter that typer reads."""
        one = self.option
        told: dict[str, Any] = {"metavar": one.metavar, "min": one.min, "max": one.max, **(one.more or {})}
        told |= {"help": one.text(), "show_default": one.show_default or self.default not in ("", None, ...)}
        if one.names:
            told["autocompletion"] = complete_from(one.names)
        if one.positional:
            kind = typer.Argument(**told)
        else:
            long = one.flag or "--" + self.name.replace("_", "-")
            variable = "CAMCLI_" + long.partition("/")[0].strip("-").replace("-", "_").upper() if one.env else None
            flags = (long, one.short) if one.short else (long,)
            kind = typer.Option(*flags, envvar=variable, show_envvar=False, rich_help_panel=one.panel, **told)
        default = inspect.Parameter.empty if self.default is ... else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[self.type, kind]
        )


def takes(
    *owners: type, names: Sequence[str] = (), reworded: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options that the fields of these dataclasses are; they reach it as keywords.

    Args:
        owners: where the fields are; of two of one name the first counts.
        names: those that the command has, in the help's order; empty for all.
        reworded: by field what this command says otherwise of it: words of :class:`Option`, ``default`` and ``type``.
    """

    def give(command: Command) -> Command:
        known: dict[str, _Parameter] = {}
        for owner in owners:
            known = {**_parameters(owner), **known}
        asked = [known[name].reworded((reworded or {}).get(name, {})) for name in names or _in_order(known)]
        own = [one for one in inspect.signature(command).parameters.values() if one.kind != one.VAR_KEYWORD]
        command.__signature__ = inspect.Signature([*own, *(one.as_typer() for one in asked)])  # type: ignore[attr-defined]
        return command

    return give


def build(owner: type[T], words: Mapping[str, Any], **fixed: Any) -> T:
    """Make a job, or what else has options for fields, of the words of a command line.

    Args:
        owner: its type.
        words: by field, as typer gives them; fields that are not among them have their defaults.
        fixed: fields that no word says.
    """
    given = {name: _value(one, words[name]) for name, one in _fields(owner).items() if name in words}
    return owner(**{**given, **fixed})


def open_session(kind: type[S], words: Mapping[str, Any]) -> S:
    """Take from a command line what is no part of the job, and do what it says of this process."""
    session = build(kind, words)
    if session.keep_memory and not session.no_keep_memory:
        allocator.keep_memory()
    return session


def complete_from(names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Complete a word by one of these names."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def split_words(given: Sequence[str]) -> tuple[str, ...]:
    """Words, some of them perhaps joined by commas."""
    return tuple(word.strip() for words in given for word in words.split(",") if word.strip())


def _value(one: Field[Any], given: Any) -> Any:
    """The field's value for what typer gives."""
    said = option_of(one)
    if given in (None, [], ()):
        return one.default
    if isinstance(given, list) and said and (said.several or said.commas):
        words = split_words(given)
        return words if said.commas else ",".join(words)
    if isinstance(one.default, tuple):
        return tuple(given) if not isinstance(given, str) else (given,) if given else one.default
    return given


def _fields(owner: Any) -> dict[str, Field[Any]]:
    """The fields of a dataclass that are options, by name."""
    return {one.name: one for one in fields(owner) if option_of(one)}


@cache
def _parameters(owner: Any) -> dict[str, _Parameter]:
    """The fields of a dataclass as a command asks for them, if it says nothing else."""
    hints = get_type_hints(owner)
    return {name: _parameter(one, hints[name], one.metadata["option"]) for name, one in _fields(owner).items()}


def _parameter(one: Field[Any], kind: Any, said: Option) -> _Parameter:
    if get_origin(kind) is tuple or said.several:
        return _Parameter(one.name, list[str] | None, None, said)
    return (
        _Parameter(one.name, kind | None, None, said) if said.unset else _Parameter(one.name, kind, one.default, said)
    )


def _in_order(known: Mapping[str, _Parameter]) -> list[str]:
    """The names in the order of the help."""
    order = [name for name, one in known.items() if not one.option.after]
    for name, one in known.items():
        if one.option.after:
            order.insert(order.index(one.option.after) + 1, name)
    return order
