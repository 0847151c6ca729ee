"""Command-line options, made from the fields of a job and of other dataclasses."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import typer

from camcli.base import allocator
from camcli.base.errors import RequestError
from camcli.runs.job.option import COMPUTE, LOGGING, Option, get_option, option

T = TypeVar("T")
S = TypeVar("S", bound="CommonOptions")
Command = TypeVar("Command", bound=Callable[..., None])
# Options on layers and methods of the commands that make maps, in the order of their help.
METHOD_OPTIONS = (
    *("layers", "layout", "call", "method", "options", "fuse", "scales", "augment", "placement", "eigen_smooth"),
    "backward",
)
# What is different in a command whose result is a table.
QUIET_TABLES = {"help": "Print errors, failures and tables only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """Options of every command that explains, besides those of its job."""

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
    dry_run: bool = option(
        False,
        LOGGING,
        help="Write nothing: show what would be done, and how long it would take by a batch that is tried",
        env=False,
    )
    as_json: bool = option(
        False,
        LOGGING,
        help="Print a line of JSON for each map of this run to standard output",
        flag="--json",
        env=False,
    )
    debug: bool = option(
        False, LOGGING, help="Print tracebacks of errors and failed images, and the time of each stage", env=False
    )
    quiet: bool = option(False, LOGGING, help="Print errors and failures only", short="-q", env=False)


@dataclass(frozen=True, slots=True)
class _Parameter:
    """Parameter of a command, made from a dataclass field."""

    name: str
    type: Any
    default: Any
    option: Option

    def override(self, words: Mapping[str, Any]) -> "_Parameter":
        """Return the parameter with other fields of :class:`Option`, and another ``default`` and ``type``."""
        own = {name: words[name] for name in ("type", "default") if name in words}
        return replace(
            self, **own, option=replace(self.option, **{name: words[name] for name in words.keys() - own.keys()})
        )

    def as_typer(self) -> inspect.Parameter:
        """Return the parameter for the signature that typer reads."""
        one = self.option
        words: dict[str, Any] = {"metavar": one.metavar, "min": one.min, "max": one.max, **(one.more or {})}
        words |= {"help": one.format_help(), "show_default": one.show_default or self.default not in ("", None, ...)}
        if one.names:
            words["autocompletion"] = complete_from(one.names)
        if one.positional:
            kind = typer.Argument(**words)
        else:
            long = one.find_flag(self.name)
            variable = "CAMCLI_" + long.strip("-").replace("-", "_").upper() if one.env else None
            flags = (long, one.short) if one.short else (long,)
            kind = typer.Option(*flags, envvar=variable, show_envvar=False, rich_help_panel=one.panel, **words)
        default = inspect.Parameter.empty if self.default is ... else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[self.type, kind]
        )


def add_options(
    *owners: type, names: Sequence[str] = (), overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options defined by the fields of dataclasses, passed to it as keyword arguments.

    Args:
        owners: dataclasses with the fields; of two fields with one name the first counts.
        names: fields that the command has, in the order of its help; empty for all.
        overrides: by field, what is different in this command: fields of :class:`Option`, ``default`` and ``type``.
    """

    def add(command: Command) -> Command:
        known: dict[str, _Parameter] = {}
        for owner in owners:
            known = {**_find_parameters(owner), **known}
        parameters = [known[name].override((overrides or {}).get(name, {})) for name in names or _order_for_help(known)]
        own = [one for one in inspect.signature(command).parameters.values() if one.kind != one.VAR_KEYWORD]
        command.__signature__ = inspect.Signature([*own, *(one.as_typer() for one in parameters)])  # type: ignore[attr-defined]
        return command

    return add


def build(owner: type[T], words: Mapping[str, Any], **fixed: Any) -> T:
    """Make a job, or another dataclass of options, from the arguments of a command line.

    Args:
        owner: its type.
        words: arguments by field, as typer gives them; missing fields have their defaults.
        fixed: values of fields that do not come from the command line.
    """
    given = {name: _convert(one, words[name]) for name, one in _find_fields(owner).items() if name in words}
    return owner(**{**given, **fixed})


def apply_common_options(kind: type[S], words: Mapping[str, Any]) -> S:
    """Make the options that are not part of the job, and apply those that concern this process."""
    session = build(kind, words)
    if session.keep_memory and not session.no_keep_memory:
        allocator.keep_memory()
    return session


def complete_from(names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes a word to the names that begin with it."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def find_comma_fields(*owners: type) -> frozenset[str]:
    """Return the names of options of these dataclasses whose values may be joined by commas."""
    found = ((name, get_option(one)) for owner in owners for name, one in _find_fields(owner).items())
    return frozenset(name for name, one in found if one and (one.several or one.commas))


def split_words(given: Sequence[str]) -> tuple[str, ...]:
    """Split words at commas; empty parts are dropped."""
    return tuple(word.strip() for words in given for word in words.split(",") if word.strip())


def _convert(one: Field[Any], given: Any) -> Any:
    """Return the field's value for the argument given by typer."""
    spec = get_option(one)
    if given in (None, [], ()):
        return one.default
    if isinstance(given, list) and spec and (spec.several or spec.commas):
        words = split_words(given)
        if not words and spec.commas and not one.default:
            # Else the default would be done, such as all tests.
            raise RequestError(f"{spec.find_flag(one.name)} names nothing", "leave it out, or give it a name")
        return words if spec.commas else ",".join(words)
    if isinstance(one.default, tuple):
        return tuple(given) if not isinstance(given, str) else (given,) if given else one.default
    return given


def _find_fields(owner: Any) -> dict[str, Field[Any]]:
    """Return the fields of a dataclass that are options, by name."""
    return {one.name: one for one in fields(owner) if get_option(one)}


@cache
def _find_parameters(owner: Any) -> dict[str, _Parameter]:
    """Return the fields of a dataclass as parameters of a command, without overrides."""
    hints = get_type_hints(owner)
    return {
        name: _make_parameter(one, hints[name], one.metadata["option"]) for name, one in _find_fields(owner).items()
    }


def _make_parameter(one: Field[Any], kind: Any, spec: Option) -> _Parameter:
    if get_origin(kind) is tuple or spec.several:
        return _Parameter(one.name, list[str] | None, None, spec)
    if spec.unset:
        return _Parameter(one.name, kind | None, None, spec)
    return _Parameter(one.name, kind, one.default, spec)


def _order_for_help(known: Mapping[str, _Parameter]) -> list[str]:
    """Return the names in the order of the help."""
    order = [name for name, one in known.items() if not one.option.after]
    for name, one in known.items():
        if one.option.after:
            order.insert(order.index(one.option.after) + 1, name)
    return order
