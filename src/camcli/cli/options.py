"""A command's options, made of the fields of a job and of what else it asks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import typer

from camcli.base import allocator
from camcli.runs.job.option import COMPUTE, LOGGING, Option, get_option, option

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

    def reword(self, words: Mapping[str, Any]) -> "_Parameter":
        """The same with other words: of :class:`Option`, and ``default`` and ``type`` of the command line."""
        own = {name: words[name] for name in ("type", "default") if name in words}
        return replace(
            self, **own, option=replace(self.option, **{name: words[name] for name in words.keys() - own.keys()})
        )

    def as_typer(self) -> inspect.Parameter:
        """The parameter that typer reads."""
        one = self.option
        words: dict[str, Any] = {"metavar": one.metavar, "min": one.min, "max": one.max, **(one.more or {})}
        words |= {"help": one.text(), "show_default": one.show_default or self.default not in ("", None, ...)}
        if one.names:
            words["autocompletion"] = complete_from(one.names)
        if one.positional:
            kind = typer.Argument(**words)
        else:
            long = one.flag or "--" + self.name.replace("_", "-")
            variable = "CAMCLI_" + long.strip("-").replace("-", "_").upper() if one.env else None
            flags = (long, one.short) if one.short else (long,)
            kind = typer.Option(*flags, envvar=variable, show_envvar=False, rich_help_panel=one.panel, **words)
        default = inspect.Parameter.empty if self.default is ... else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[self.type, kind]
        )


def add_options(
    *owners: type, names: Sequence[str] = (), reworded: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options that the fields of these dataclasses are; they reach it as keywords.

    Args:
        owners: where the fields are; of two of one name the first counts.
        names: those that the command has, in the help's order; empty for all.
        reworded: by field what this command says otherwise of it: words of :class:`Option`, ``default`` and ``type``.
    """

    def add(command: Command) -> Command:
        known: dict[str, _Parameter] = {}
        for owner in owners:
            known = {**_find_parameters(owner), **known}
        parameters = [known[name].reword((reworded or {}).get(name, {})) for name in names or _order_for_help(known)]
        own = [one for one in inspect.signature(command).parameters.values() if one.kind != one.VAR_KEYWORD]
        command.__signature__ = inspect.Signature([*own, *(one.as_typer() for one in parameters)])  # type: ignore[attr-defined]
        return command

    return add


def build(owner: type[T], words: Mapping[str, Any], **fixed: Any) -> T:
    """Make a job, or what else has options for fields, of the words of a command line.

    Args:
        owner: its type.
        words: by field, as typer gives them; fields that are not among them have their defaults.
        fixed: fields that no word says.
    """
    given = {name: _convert(one, words[name]) for name, one in _find_fields(owner).items() if name in words}
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


def _convert(one: Field[Any], given: Any) -> Any:
    """The field's value for what typer gives."""
    how = get_option(one)
    if given in (None, [], ()):
        return one.default
    if isinstance(given, list) and how and (how.several or how.commas):
        words = split_words(given)
        return words if how.commas else ",".join(words)
    if isinstance(one.default, tuple):
        return tuple(given) if not isinstance(given, str) else (given,) if given else one.default
    return given


def _find_fields(owner: Any) -> dict[str, Field[Any]]:
    """The fields of a dataclass that are options, by name."""
    return {one.name: one for one in fields(owner) if get_option(one)}


@cache
def _find_parameters(owner: Any) -> dict[str, _Parameter]:
    """The fields of a dataclass as a command asks for them, if it says nothing else."""
    hints = get_type_hints(owner)
    return {
        name: _make_parameter(one, hints[name], one.metadata["option"]) for name, one in _find_fields(owner).items()
    }


def _make_parameter(one: Field[Any], kind: Any, how: Option) -> _Parameter:
    if get_origin(kind) is tuple or how.several:
        return _Parameter(one.name, list[str] | None, None, how)
    if how.unset:
        return _Parameter(one.name, kind | None, None, how)
    return _Parameter(one.name, kind, one.default, how)


def _order_for_help(known: Mapping[str, _Parameter]) -> list[str]:
    """The names in the order of the help."""
    order = [name for name, one in known.items() if not one.option.after]
    for name, one in known.items():
        if one.option.after:
            order.insert(order.index(one.option.after) + 1, name)
    return order
