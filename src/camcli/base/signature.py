"""What a function's signature and docstring say: what it is handed, and which options it has."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from camcli.base.errors import RequestError, did_you_mean

WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword-only parameter of a function.

    Attributes:
        name: the parameter's.
        kind: int, float, bool or str.
        default: its value where nobody gives one.
        choices: the values there are, if they are counted.
        meaning: what the docstring says of it.
    """

    name: str
    kind: type
    default: Any
    choices: tuple[Any, ...] = ()
    meaning: str = ""

    @property
    def values(self) -> str:
        """What may be given, in words for people."""
        return ", ".join(map(written, self.choices)) if self.choices else KINDS[self.kind]

    @property
    def written(self) -> str:
        """The default, as one writes it behind ``name=``."""
        return written(self.default)

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            RequestError: it is none of this option's.
        """
        if self.choices:
            found = {written(choice): choice for choice in self.choices}
            if text in found:
                return found[text]
            raise RequestError(f"{self.name} cannot be {text!r}", f"there are: {self.values}")
        try:
            value = WORDS[text.lower()] if self.kind is bool else self.kind(text)
        except (KeyError, ValueError):
            raise RequestError(f"{self.name} cannot be {text!r}", f"it is {self.values}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{self.name} cannot be {text!r}", f"it is {self.values}, and finite")
        return value


def written(value: Any) -> str:
    """A value as one writes it behind ``name=``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def evidence(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's positional parameters."""
    return tuple(one.name for one in inspect.signature(function).parameters.values() if one.kind != one.KEYWORD_ONLY)


def options(function: Callable[..., Any]) -> dict[str, Option]:
    """The options of a function, by name: its keyword-only parameters.

    Raises:
        TypeError: one has no default, or is neither int, float, bool, str nor a Literal.
    """
    meanings = arguments(inspect.getdoc(function) or "")
    parameters = inspect.signature(function).parameters.values()
    return {
        one.name: _option(function, one, meanings.get(one.name, ""))
        for one in parameters
        if one.kind == one.KEYWORD_ONLY
    }


def _option(function: Callable[..., Any], parameter: inspect.Parameter, meaning: str) -> Option:
    kind = parameter.annotation
    if isinstance(kind, str):
        kind = eval(kind, vars(inspect.getmodule(inspect.unwrap(function))))  # as typing.get_type_hints does
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    plain = type(choices[0]) if choices else kind
    if plain not in KINDS or parameter.default is parameter.empty:
        name = getattr(function, "__name__", function)
        raise TypeError(
            f"{name}: the option {parameter.name!r} must be int, float, bool, str or a Literal, with a default"
        )
    return Option(parameter.name, plain, parameter.default, choices, meaning)


def arguments(docstring: str) -> dict[str, str]:
    """What the ``Args`` of a clean docstring say, by name."""
    _, _, block = docstring.partition("\nArgs:\n")
    block = re.split(r"\n\S", block, maxsplit=1)[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", block, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def description(docstring: str) -> str:
    """A clean docstring without its ``Args``."""
    return docstring.partition("\nArgs:\n")[0].strip()


@cache
def _positional(module: str) -> Mapping[str, tuple[str, ...]]:
    """By each function of a module the names of its positional parameters, read from the source: nothing is run."""
    found = importlib.util.find_spec(module)
    if found is None or not found.origin or not found.origin.endswith(".py"):
        return {}
    functions = [
        one
        for one in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body
        if isinstance(one, ast.FunctionDef)
    ]
    return {one.name: tuple(each.arg for each in [*one.args.posonlyargs, *one.args.args]) for one in functions}


def evidence_in(module: str, function: str) -> tuple[str, ...] | None:
    """Like :func:`evidence`, without importing the function's module; None if its source cannot be had."""
    return _positional(module).get(function)


def given(words: Sequence[str], available: Mapping[str, Mapping[str, Option]]) -> dict[str, dict[str, Any]]:
    """The values of options that a person gave.

    Args:
        words: each ``name=value``, or ``method.name=value`` for one of several methods.
        available: by method its options.

    Returns:
        By method, values by name; a name without a method counts for every method that has it.

    Raises:
        RequestError: there is no such option, or it cannot have this value.
    """
    values: dict[str, dict[str, Any]] = {method: {} for method in available}
    for word in words:
        left, equals, text = word.partition("=")
        if not equals or not left.strip():
            raise RequestError(
                f"the option {word!r} is not name=value", "write -o samples=8; the folder for outputs is --out"
            )
        method, dot, name = left.strip().rpartition(".")
        if dot and method not in available:
            hint = did_you_mean(method, available) or f"asked for: {', '.join(available)}"
            raise RequestError(f"the option {word!r} is for the method {method!r}, which is not asked for", hint)
        having = [one for one in ([method] if dot else available) if name in available[one]]
        if not having:
            raise _no_option(name, method, available)
        for one in having:
            try:
                values[one][name] = available[one][name].read(text.strip())
            except RequestError as error:
                raise RequestError(f"{one}: {error.message}", error.hint) from None
    return values


def _no_option(name: str, method: str, available: Mapping[str, Mapping[str, Option]]) -> RequestError:
    methods = [method] if method else list(available)
    names = sorted({option for one in methods for option in available[one]})
    hint = [did_you_mean(name, names), f"there are: {', '.join(names)}" if names else "there are none"]
    return RequestError(f"{' and '.join(methods)} has no option {name!r}", "\n".join(filter(None, hint)))
