"""Deprecated names of arguments and attributes, which work for one release with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def warn_renamed(old: str, new: str, depth: int = 1) -> None:
    """Warn that a name has changed; ``depth`` is the number of calls between this one and the user's code."""
    warnings.warn(
        f"{old} is deprecated and will be removed in the next release; use {new}",
        DeprecationWarning,
        stacklevel=depth + 2,
    )


def with_old_names(
    arguments: Mapping[str, str] | None = None, attributes: Mapping[str, str] | None = None
) -> Callable[[C], C]:
    """Make a class decorator that keeps old keyword arguments of the constructor and old attributes working.

    Args:
        arguments: new names of keyword arguments by their old ones. The old one wins where both are given, as
            ``dataclasses.replace`` does.
        attributes: new names of attributes by their old ones.
    """

    def decorate(cls: C) -> C:
        construct = cls.__init__  # type: ignore[misc]

        @wraps(construct)
        def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
            for old, new in (arguments or {}).items():
                if old in kwargs:
                    warn_renamed(f"{cls.__name__}({old}=...)", f"{new}=")
                    kwargs[new] = kwargs.pop(old)
            construct(self, *args, **kwargs)

        if arguments:
            cls.__init__ = initialize  # type: ignore[misc]
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
