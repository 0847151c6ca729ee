"""Attributes of an explainer that are stored elsewhere: in its setup, or in its findings."""

from __future__ import annotations

from operator import attrgetter
from typing import Generic, TypeVar, cast, overload

T = TypeVar("T")


class Delegated(Generic[T]):
    """An attribute that is stored at a place below its owner, by default in ``setup``."""

    def __init__(self, place: str = "setup") -> None:
        self._path = place

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Delegated[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> T | Delegated[T]:
        return self if instance is None else cast("T", getattr(attrgetter(self._path)(instance), self._name))

    def __set__(self, instance: object, value: T) -> None:
        setattr(attrgetter(self._path)(instance), self._name, value)
