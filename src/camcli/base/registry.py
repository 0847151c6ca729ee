"""A table of alternatives: its rows are strings, so names are known before anything heavy is imported."""

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from camcli.base.errors import RequestError, did_you_mean


@dataclass(frozen=True, slots=True)
class Row:
    """One alternative.

    Attributes:
        kind: the file of the table's folder that holds it, which is also its kind.
        name: what the user calls it.
        summary: one line for people.
        paper: where it comes from.
        parts: the rows it is made of, if it is a combination and has no function of its own.
        suffix: for outputs, how its files end.
        pixels: for outputs, whether they show the picture's own pixels.
        several: for targets, whether it can give a picture more than one class.
        against: for scores, whether classes are compared with rivals.
        cosine: for scores, whether it is of cosines in place of the scores, which only some networks have.
        caveat: what a person who chooses it must know.
        cost: for methods, in words for people: "1 forward, 1 backward to the layer".
        fuse: for methods, the function in the same file that joins the maps of several layers as the paper says.
        fit: for methods that can be fitted on several pictures together (``-o over=set``), the function in the same
            file that does it: from cells of the layer's output ``(m, c)`` to what the method is handed as ``fitted``.
        function: the function's name, where it is not ``name`` with ``-`` as ``_``.
        module: the full module path; set for rows that other packages bring.
    """

    kind: str
    name: str
    summary: str = ""
    paper: str = ""
    parts: tuple[str, ...] = ()
    suffix: str = ""
    pixels: bool = True
    several: bool = False
    against: bool = False
    cosine: bool = False
    caveat: str = ""
    cost: str = ""
    fuse: str = ""
    fit: str = ""
    function: str = ""
    module: str = ""


class Table:
    """Rows found by name and loaded on use; other packages add rows by entry points.

    An entry point of group ``camcli.<folder>`` is named ``<kind>.<name>`` and points at the function.

    Args:
        package: the group of entry points, and the folder's import path where ``folder`` names none, such as
            ``camcli.methods``.
        noun: what one row is called in messages.
        rows: our own rows.
        folder: the import path of the folder that holds their files, where that is not ``package``.
    """

    def __init__(self, package: str, noun: str, *rows: Row, folder: str = "") -> None:
        self.package = package
        self.folder = folder or package
        self.noun = noun
        self.own = rows

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Our own rows, then those of installed packages."""
        return self.own + tuple(self._brought())

    def _brought(self) -> Iterator[Row]:
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
            # Whether it gives several classes nobody says here; then each map's name says which class it is of.
            yield Row(kind, name, f"from {distribution}", several=True, module=point.module, function=point.attr)

    def names(self) -> list[str]:
        """The names of all rows, in order."""
        return [row.name for row in self.rows]

    def find(self, name: str) -> Row:
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
        return self.beside(row, row.function or row.name.replace("-", "_"))

    def beside(self, row: Row, function: str) -> Callable[..., Any]:
        """A function in the file that holds a row's own."""
        found: Callable[..., Any] = getattr(importlib.import_module(self.home(row)), function)
        return found

    def home(self, row: Row) -> str:
        """The import path of the file that holds a row's function."""
        return row.module or f"{self.folder}.{row.kind}"
