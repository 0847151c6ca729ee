"""A number for each picture, such as a regression's label, out of a column of a CSV file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from camcli.base.delimited import column, read_text, rows, title
from camcli.base.errors import PictureError, RequestError, did_you_mean
from camcli.base.words import several
from camcli.images.manifest import PICTURE_COLUMNS, Names, lacking, normal

FORM = "write picture,age above, and a picture and its number a line"


class Values:
    """Numbers that a column of a CSV file gives picture by picture.

    A first row that has a word for the pictures (``picture``, ``image``, ``file``, ...) names the columns; without one
    the picture is the first cell of a row, its number the second. A picture is named by its path: as it stands, from
    the file's folder, or from one of ``folders``.

    Args:
        asked: the file; or the file, a colon and the column, which is needed where there are several.
        folders: the folders that pictures are taken from.

    Attributes:
        file: the file.
        column: what the numbers are; ``values`` where no row of titles says it.
        surplus: what the file lists and nobody can find.

    Raises:
        RequestError: the file cannot be read; it has no such column, or several and none is named; a number is
            missing, is none, or is not finite; a picture is listed twice, or two folders have it.
    """

    def __init__(self, asked: str, folders: Sequence[Path] = ()) -> None:
        self.file, self.column = _parted(asked)
        names = Names(self.file, folders)
        self.surplus = names.surplus
        self._values: dict[Path, float] = {}
        self._lines: dict[Path, int] = {}
        for line, picture, cell in self._rows():
            value = self._number(line, picture, cell)
            place = names.find(picture, f"line {line}")
            if place is None:
                continue
            if place in self._values:
                raise RequestError(
                    f"{self.file}, line {line}: {picture!r} is listed twice, first in line {self._lines[place]}",
                    "keep one of the two",
                )
            self._values[place], self._lines[place] = value, line
        del self._lines

    def __call__(self, path: Path) -> float:
        """The number of a picture.

        Raises:
            PictureError: the file does not list it.
        """
        try:
            return self._values[normal(path)]
        except KeyError:
            raise PictureError(f"{self.file} has no value for this picture", "add a line with its path") from None

    def check(self, paths: Iterator[Path]) -> None:
        """See that every picture of a run is listed.

        Raises:
            RequestError: some are not.
        """
        names, missing, met = lacking(self._values, paths)
        if missing:
            raise RequestError(
                f"{self.file} has values for {met} of the {met + missing} pictures; not for {several(names, missing)}",
                "add a line with path and number for each, or leave those pictures out",
            )

    def unused(self, paths: Iterator[Path]) -> list[str]:
        """What the file lists and none of the pictures of a run is."""
        left = set(self._values) - {normal(path) for path in paths}
        return [*self.surplus, *sorted(map(str, left))]

    def _rows(self) -> Iterator[tuple[int, str, str]]:
        """Line number, picture and number of each row, as written."""
        picture, value, width, count = 0, 1, 0, 0
        try:
            for line, cells in rows(read_text(self.file, f"the values file {str(self.file)!r}", FORM)):
                if not width:
                    width = len(cells)
                    named = column(list(map(title, cells)), PICTURE_COLUMNS)
                    if named is not None:
                        picture, value = named, self._chosen(cells, named)
                        self.column = cells[value]
                        continue
                    self._check_plain(width)
                if len(cells) != width:
                    raise RequestError(
                        f"{self.file}, line {line}: {len(cells)} cells, and the first row has {width}",
                        "give every picture as many; a number has a decimal point, since a comma parts cells",
                    )
                count += 1
                yield line, cells[picture], cells[value]
        except ValueError as error:
            raise RequestError(f"{self.file}, {error}", FORM) from error
        if not count:
            raise RequestError(f"the values file {str(self.file)!r} lists nothing", FORM)
        self.column = self.column or "values"

    def _chosen(self, titles: list[str], picture: int) -> int:
        """Which column is meant."""
        others = {at: title for at, title in enumerate(titles) if at != picture}
        there = ", ".join(filter(None, others.values())) or "none"
        meant = [at for at, title in others.items() if title == self.column] if self.column else list(others)
        if not meant:
            near = did_you_mean(self.column, others.values())
            missing = f"no column {self.column!r}" if self.column else "no column beside that of the pictures"
            raise RequestError(f"{self.file} has {missing}", "\n".join(filter(None, (near, f"there are: {there}"))))
        if len(meant) > 1:
            what = f"{len(meant)} columns {self.column!r}" if self.column else f"{len(meant)} columns of values"
            raise RequestError(f"{self.file} has {what}", f"name one: {self.file}:COLUMN; there are: {there}")
        return meant[0]

    def _check_plain(self, width: int) -> None:
        if self.column:
            raise RequestError(
                f"{self.file} has no first row that names columns, so none is called {self.column!r}",
                f"write one with the word picture in it: picture,{self.column}",
            )
        if width != 2:
            raise RequestError(
                f"{self.file} has {width} cells a row and no first row that says what they are",
                f"{FORM}; or name columns there, and one of them: {self.file}:COLUMN",
            )

    def _number(self, line: int, picture: str, cell: str) -> float:
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not picture or not math.isfinite(value):
            what = f"{cell!r} is not a finite number" if cell else "the number is missing"
            raise RequestError(
                f"{self.file}, line {line} ({picture!r}): {what if picture else 'the picture is missing'}", FORM
            )
        return value


def _parted(asked: str) -> tuple[Path, str]:
    """The file and the column, perhaps empty; a file whose own name has a colon comes first."""
    name, colon, column = asked.rpartition(":")
    if not colon or not name or Path(asked).is_file() or not column:
        return Path(asked), ""
    return Path(name), column
