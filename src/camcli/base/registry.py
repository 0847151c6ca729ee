"""A table of alternatives: its rows are strings, so names are known before anything heavy is imported."""

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from camcli.base.errors import RequestError, did_you_mean


@dataclass(frozen=True, slots=True)
class Row:
    """One alternative. A registry whose alternatives say more has a row type of its own beside it.

    Attributes:
        kind: the file of the registry's folder that holds it, which is also its kind.
        name: what the user calls it.
        summary: one line for people.
        function: the function's name, where it is not ``name`` with ``-`` as ``_``.
        module: the full module path; set for rows that other packages bring.
    """

    kind: str
    name: str
    summary: str = ""
    function: str = field(default="", kw_only=True)
    module: str = field(default="", kw_only=True)

    @property
    def function_name(self) -> str:
        """The name of the row's function in its file."""
        return self.function or self.name.replace("-", "_")


R = TypeVar("R", bound=Row)


class Table(Generic[R]):
    """Rows found by name and loaded on use; other packages add rows by entry points.

    An entry point of group ``camcli.<folder>`` is named ``<kind>.<name>`` and points at the function.

    Args:
        row_type: what each row is.
        package: the group of entry points, and the folder's import path where ``folder`` names none, such as
            ``camcli.methods``.
        noun: what one row is called in messages.
        rows: our own rows.
        folder: the import path of the folder that holds their files, where that is not ``package``.
    """

    def __init__(self, row_type: type[R], package: str, noun: str, *rows: R, folder: str = "") -> None:
        self.row_type = row_type
        self.package = package
        self.folder = folder or package
        self.noun = noun
        self.own = rows

    @cached_property
    def rows(self) -> tuple[R, ...]:
        """Our own rows, then those of installed packages."""
        return self.own + tuple(self._brought())

    def _brought(self) -> Iterator[R]:
        taken = {row.name for row in self.own}
        for point in sorted(importlib.metadata.entry_points(group=self.package), key=lambda point: point.name):
            kind, _, name = point.name.partition(".")
            if not name or name in taken:
                raise RequestError(
                    f"the entry point {point.name!r} ({point.value}) cannot be a {self.noun}",
                    f"name it <kind>.<name> with a name that is not taken; taken: {', '.join(sorted(taken))}",
                )
            taken.add(name)
            distribution = point.dist.name if point.dist else point.module
            yield self.row_type(kind, name, f"from {distribution}", module=point.module, function=point.attr)

    def names(self) -> list[str]:
        """The names of all rows, in order."""
        return [row.name for row in self.rows]

    def find(self, name: str) -> R:
        """The row of this name.

        Raises:
            RequestError: there is none; the hint names the nearest and lists all.
        """
        for row in self.rows:
            if row.name == name:
                return row
        near = did_you_mean(name, self.names())
        raise RequestError(
            f"there is no {self.noun} {name!r}",
            "\n".join(filter(None, [near, f"there are: {', '.join(self.names())}"])),
        )

    def load(self, name: str) -> Callable[..., Any]:
        """The function of the row of this name; its file is imported now."""
        row = self.find(name)
        return self.beside(row, row.function_name)

    def beside(self, row: R, function: str) -> Callable[..., Any]:
        """A function in the file that holds a row's own."""
        found: Callable[..., Any] = getattr(importlib.import_module(self.home(row)), function)
        return found

    def home(self, row: R) -> str:
        """The import path of the file that holds a row's function."""
        return row.module or f"{self.folder}.{row.kind}"
