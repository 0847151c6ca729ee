"""Parameters and options of functions, read from their signatures and docstrings."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from camcli.base.errors import RequestError, did_you_mean

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword-only parameter of a function.

    Attributes:
        name: name of the parameter.
        value_type: int, float, bool or str.
        default: default value.
        choices: the allowed values of a Literal; empty for any.
        meaning: description from the docstring.
    """

    name: str
    value_type: type
    default: Any
    choices: tuple[Any, ...] = ()
    meaning: str = ""

    @property
    def allowed_values(self) -> str:
        """Description of the allowed values."""
        return ", ".join(map(format_value, self.choices)) if self.choices else TYPE_NAMES[self.value_type]

    @property
    def default_text(self) -> str:
        """Default value as written after ``name=``."""
        return format_value(self.default)

    def parse(self, text: str) -> Any:
        """Parse a value of this option.

        Raises:
            RequestError: the option cannot have this value.
        """
        if self.choices:
            found = {format_value(choice): choice for choice in self.choices}
            if text in found:
                return found[text]
            raise RequestError(f"{self.name} cannot be {text!r}", f"there are: {self.allowed_values}")
        try:
            value = BOOLEANS[text.lower()] if self.value_type is bool else self.value_type(text)
        except (KeyError, ValueError):
            raise RequestError(f"{self.name} cannot be {text!r}", f"it must be {self.allowed_values}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{self.name} cannot be {text!r}", f"it must be {self.allowed_values}, and finite")
        return value


def format_value(value: Any) -> str:
    """Format a value as written after ``name=``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def positional_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's positional parameters."""
    return tuple(one.name for one in inspect.signature(function).parameters.values() if one.kind != one.KEYWORD_ONLY)


def read_options(function: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of a function, its keyword-only parameters, by name.

    Raises:
        TypeError: an option has no default, or is neither int, float, bool, str nor a Literal.
    """
    descriptions = parse_arguments(inspect.getdoc(function) or "")
    parameters = inspect.signature(function).parameters.values()
    return {
        one.name: _make_option(function, one, descriptions.get(one.name, ""))
        for one in parameters
        if one.kind == one.KEYWORD_ONLY
    }


def _make_option(function: Callable[..., Any], parameter: inspect.Parameter, meaning: str) -> Option:
    kind = parameter.annotation
    if isinstance(kind, str):
        kind = eval(kind, vars(inspect.getmodule(inspect.unwrap(function))))  # as typing.get_type_hints does
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    plain = type(choices[0]) if choices else kind
    if plain not in TYPE_NAMES or parameter.default is parameter.empty:
        name = getattr(function, "__name__", function)
        raise TypeError(
            f"{name}: the option {parameter.name!r} must be int, float, bool, str or a Literal, with a default"
        )
    return Option(parameter.name, plain, parameter.default, choices, meaning)


def parse_arguments(docstring: str) -> dict[str, str]:
    """Return the descriptions in the ``Args`` of a dedented docstring, by name."""
    _, _, block = docstring.partition("\nArgs:\n")
    block = re.split(r"\n\S", block, maxsplit=1)[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", block, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def strip_arguments(docstring: str) -> str:
    """Return a dedented docstring without its ``Args``."""
    return docstring.partition("\nArgs:\n")[0].strip()


@cache
def _parse_functions(module: str) -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return by name the positional and the keyword-only parameters of a module's functions, without running it."""
    found = importlib.util.find_spec(module)
    if found is None or not found.origin or not found.origin.endswith(".py"):
        return {}
    functions = [
        one
        for one in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body
        if isinstance(one, ast.FunctionDef)
    ]
    return {
        one.name: (
            tuple(each.arg for each in [*one.args.posonlyargs, *one.args.args]),
            tuple(each.arg for each in one.args.kwonlyargs),
        )
        for one in functions
    }


def read_positional_names(module: str, function: str) -> tuple[str, ...] | None:
    """Return a function's positional parameters without importing its module; None if its source is unavailable."""
    return _parse_functions(module).get(function, (None,))[0]


def read_option_names(module: str, function: str) -> tuple[str, ...] | None:
    """Return a function's options without importing its module; None if its source is unavailable."""
    return _parse_functions(module).get(function, (None, None))[1]


def parse_options(
    words: Sequence[str], options_by_method: Mapping[str, Mapping[str, Option]]
) -> dict[str, dict[str, Any]]:
    """Parse the values of options.

    Args:
        words: each ``name=value``, or ``method.name=value`` for one of several methods.
        options_by_method: options by name, for each method.

    Returns:
        Values by name for each method; a name without a method applies to every method that has it.

    Raises:
        RequestError: there is no such option, or it cannot have this value.
    """
    values: dict[str, dict[str, Any]] = {method: {} for method in options_by_method}
    for owners, name, text in find_owners(words, options_by_method):
        for one in owners:
            try:
                values[one][name] = options_by_method[one][name].parse(text)
            except RequestError as error:
                raise RequestError(f"{one}: {error.message}", error.hint) from None
    return values


def find_owners(
    words: Sequence[str], names_by_method: Mapping[str, Collection[str]]
) -> list[tuple[list[str], str, str]]:
    """Return for each word the methods that have its option, the option's name, and its value as it is written.

    Args:
        words: each ``name=value``, or ``method.name=value`` for one of several methods.
        names_by_method: names of options, for each method.

    Raises:
        RequestError: there is no such option.
    """
    found = []
    for word in words:
        left, equals, text = word.partition("=")
        if not equals or not left.strip():
            raise RequestError(
                f"the option {word!r} is not name=value", "write -o samples=8; the folder for outputs is --out"
            )
        method, dot, name = left.strip().rpartition(".")
        if dot and method not in names_by_method:
            hint = did_you_mean(method, names_by_method) or f"methods of this run: {', '.join(names_by_method)}"
            raise RequestError(f"the option {word!r} is for the method {method!r}, which this run does not use", hint)
        owners = [one for one in ([method] if dot else names_by_method) if name in names_by_method[one]]
        if not owners:
            raise _unknown_option_error(name, method, names_by_method)
        found.append((owners, name, text.strip()))
    return found


def _unknown_option_error(name: str, method: str, available: Mapping[str, Collection[str]]) -> RequestError:
    methods = [method] if method else list(available)
    names = sorted({option for one in methods for option in available[one]})
    hint = [did_you_mean(name, names), f"there are: {', '.join(names)}" if names else "there are none"]
    return RequestError(f"{' and '.join(methods)} has no option {name!r}", "\n".join(filter(None, hint)))
