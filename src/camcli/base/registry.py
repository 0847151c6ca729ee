"""Registries of alternatives by name, whose functions are imported only on use."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Generic, TypeVar

from camcli.base.errors import RequestError, did_you_mean


@dataclass(frozen=True, slots=True)
class Row:
    """One alternative of a registry. Registries with further fields have a row type of their own.

    Attributes:
        kind: kind of the alternative, and the name of the file that holds its function.
        name: name that the user writes.
        summary: description of one line.
        function: name of the function, if it is not ``name`` with ``_`` for ``-``.
        module: full module path of a row from another package; empty for built-in rows.
    """

    kind: str
    name: str
    summary: str = ""
    function: str = field(default="", kw_only=True)
    module: str = field(default="", kw_only=True)

    @property
    def function_name(self) -> str:
        """Name of the row's function in its file."""
        return self.function or self.name.replace("-", "_")


R = TypeVar("R", bound=Row)


class Registry(Generic[R]):
    """Rows that are found by name and loaded on use; other packages add rows by entry points.

    An entry point of group ``camcli.<folder>`` is named ``<kind>.<name>`` and points at the function.

    Args:
        row_type: type of the rows.
        package: group of entry points, such as ``camcli.methods``, and default of ``folder``.
        noun: name of a row in messages.
        rows: built-in rows.
        folder: import path of the folder that holds their files; empty for ``package``.
    """

    def __init__(self, row_type: type[R], package: str, noun: str, *rows: R, folder: str = "") -> None:
        self.row_type = row_type
        self.package = package
        self.folder = folder or package
        self.noun = noun
        self.builtin_rows = rows

    @cached_property
    def rows(self) -> tuple[R, ...]:
        """Built-in rows, then those of installed packages."""
        return self.builtin_rows + tuple(self.read_entry_points())

    def read_entry_points(self) -> Iterator[R]:
        """Read the rows that installed packages bring.

        Raises:
            RequestError: an entry point has no kind or no name, or a name that is taken.
        """
        taken = {row.name for row in self.builtin_rows}
        for point in sorted(find_entry_points().select(group=self.package), key=lambda point: point.name):
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
        """Return the names of all rows, in order."""
        return [row.name for row in self.rows]

    def find(self, name: str) -> R:
        """Return the row of this name.

        Raises:
            RequestError: there is no such row; the hint names the nearest and lists all.
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
        """Import and return the function of the row of this name."""
        row = self.find(name)
        return self.load_function(row, row.function_name)

    def load_function(self, row: R, function: str) -> Callable[..., Any]:
        """Import and return another function from the file of a row."""
        found: Callable[..., Any] = getattr(importlib.import_module(self.module_path(row)), function)
        return found

    def module_path(self, row: R) -> str:
        """Return the import path of the file that holds a row's function."""
        return row.module or f"{self.folder}.{row.kind}"


@cache
def find_entry_points() -> Any:
    """Return the entry points of all installed packages, whose hundreds of files are read once; see ``select``."""
    import importlib.metadata  # a tenth of a second, which completion does not have

    return importlib.metadata.entry_points()
