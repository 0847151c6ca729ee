"""Deprecated names of arguments and attributes, which work for one release with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of the function that calls this one that a name has changed."""
    warnings.warn(
        f"{old} is deprecated and will be removed in the next release; use {new}",
        DeprecationWarning,
        stacklevel=3,
    )


def accept_old_arguments(names: Mapping[str, str]) -> Callable[[F], F]:
    """Let a function take keyword arguments by old names too.

    Args:
        names: new names by their old ones. An old one counts where both are given, as ``dataclasses.replace`` does.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old, new in names.items():
                if old in kwargs:
                    owner = function.__qualname__.removesuffix(".__init__").removesuffix(".__new__")
                    warn_renamed(f"{owner}({old}=...)", f"{new}=")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return cast("F", call)

    return decorate


def with_old_names(
    arguments: Mapping[str, str] | None = None, attributes: Mapping[str, str] | None = None
) -> Callable[[C], C]:
    """Give a class's constructor its old keyword arguments, and its instances their old attributes and methods.

    Args:
        arguments: new names of keyword arguments by their old ones.
        attributes: new names of attributes and methods by their old ones.
    """

    def decorate(cls: C) -> C:
        if arguments:
            constructor = "__new__" if issubclass(cls, tuple) else "__init__"
            setattr(cls, constructor, accept_old_arguments(arguments)(getattr(cls, constructor)))
        for old, new in (attributes or {}).items():
            setattr(cls, old, _make_property(cls.__name__, old, new))
        return cls

    return decorate


def _make_property(owner: str, old: str, new: str) -> property:
    def get(self: Any) -> Any:
        warn_renamed(f"{owner}.{old}", f"{owner}.{new}")
        return getattr(self, new)

    def put(self: Any, value: Any) -> None:
        warn_renamed(f"{owner}.{old}", f"{owner}.{new}")
        setattr(self, new, value)

    return property(get, put, doc=f"Deprecated: use ``{new}``.")
