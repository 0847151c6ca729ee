"""Numbers of images, such as labels of a regression, from a column of a CSV file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from camcli.base.delimited import find_column, normalize_title, read_rows, read_text
from camcli.base.errors import PictureError, RequestError, did_you_mean
from camcli.base.words import shorten
from camcli.images.manifest import PathIndex, missing_from, normalize
from camcli.images.manifest_rows import PICTURE_COLUMNS

FORMAT_HINT = "write the header picture,age, then an image and its number per line"


class NumberColumn:
    """A column of a CSV file with a number for each image.

    A first row with a title for the images (``picture``, ``image``, ``file``, ...) names the columns; without one
    the image is the first cell of a row, its number the second. An image is named by its path: from the current
    folder, from the file's folder, or from one of ``folders``.

    Args:
        spec: the file; or the file, a colon and the column, which is needed where there are several.
        folders: folders that images are taken from.

    Attributes:
        file: path of the file.
        column: title of the column; ``values`` where there are no titles.
        unmatched: names in the file that match no image.

    Raises:
        RequestError: the file cannot be read; it has no such column, or several and none is named; a number is
            missing, malformed or not finite; an image is listed twice, or two folders have it.
    """

    def __init__(self, spec: str, folders: Sequence[Path] = ()) -> None:
        self.file, self.column = _split_spec(spec)
        names = PathIndex(self.file, folders)
        self.unmatched = names.unmatched
        self._values: dict[Path, float] = {}
        self._lines: dict[Path, int] = {}
        for line, picture, cell in self._read_rows():
            value = self._parse_number(line, picture, cell)
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
        """Return the number of an image.

        Raises:
            PictureError: the file does not list it.
        """
        try:
            return self._values[normalize(path)]
        except KeyError:
            raise PictureError(f"{self.file} has no value for this image", "add a line with its path") from None

    def check(self, paths: Iterator[Path]) -> None:
        """Check that every image of a run is listed.

        Raises:
            RequestError: some are not.
        """
        names, missing, met = missing_from(self._values, paths)
        if missing:
            raise RequestError(
                f"{self.file} has values for {met} of the {met + missing} images; not for {shorten(names, missing)}",
                "add a line with path and number for each, or leave those images out",
            )

    def find_unused(self, paths: Iterator[Path]) -> list[str]:
        """Return the names in the file that belong to none of the images of a run."""
        left = set(self._values) - {normalize(path) for path in paths}
        return [*self.unmatched, *sorted(map(str, left))]

    def _read_rows(self) -> Iterator[tuple[int, str, str]]:
        """Iterate over line number, image and number of each row, as written."""
        picture, value, width, count = 0, 1, 0, 0
        try:
            for line, cells in read_rows(read_text(self.file, f"the values file {str(self.file)!r}", FORMAT_HINT)):
                if not width:
                    width = len(cells)
                    named = find_column(list(map(normalize_title, cells)), PICTURE_COLUMNS)
                    if named is not None:
                        picture, value = named, self._find_column(cells, named)
                        self.column = cells[value]
                        continue
                    self._check_two_columns(width)
                if len(cells) != width:
                    raise RequestError(
                        f"{self.file}, line {line}: {len(cells)} cells, and the first row has {width}",
                        "give every image as many; a comma separates cells, so decimals need a point",
                    )
                count += 1
                yield line, cells[picture], cells[value]
        except ValueError as error:
            raise RequestError(f"{self.file}, {error}", FORMAT_HINT) from error
        if not count:
            raise RequestError(f"the values file {str(self.file)!r} lists nothing", FORMAT_HINT)
        self.column = self.column or "values"

    def _find_column(self, titles: list[str], picture: int) -> int:
        """Find the position of the column of numbers."""
        others = {at: title for at, title in enumerate(titles) if at != picture}
        there = ", ".join(filter(None, others.values())) or "none"
        meant = [at for at, title in others.items() if title == self.column] if self.column else list(others)
        if not meant:
            near = did_you_mean(self.column, others.values())
            missing = f"no column {self.column!r}" if self.column else "no column beside that of the images"
            raise RequestError(f"{self.file} has {missing}", "\n".join(filter(None, (near, f"there are: {there}"))))
        if len(meant) > 1:
            what = f"{len(meant)} columns {self.column!r}" if self.column else f"{len(meant)} columns of values"
            raise RequestError(f"{self.file} has {what}", f"name one: {self.file}:COLUMN; there are: {there}")
        return meant[0]

    def _check_two_columns(self, width: int) -> None:
        if self.column:
            raise RequestError(
                f"{self.file} has no header row, so there is no column {self.column!r}",
                f"add a header row: picture,{self.column}",
            )
        if width != 2:
            raise RequestError(
                f"{self.file} has {width} cells a row and no header row",
                f"{FORMAT_HINT}; or name columns there, and one of them: {self.file}:COLUMN",
            )

    def _parse_number(self, line: int, picture: str, cell: str) -> float:
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not picture or not math.isfinite(value):
            what = f"{cell!r} is not a finite number" if cell else "the number is missing"
            raise RequestError(
                f"{self.file}, line {line} ({picture!r}): {what if picture else 'the image is missing'}", FORMAT_HINT
            )
        return value


def _split_spec(spec: str) -> tuple[Path, str]:
    """Split a spec into file and column (or empty); an existing file with a colon in its name takes precedence."""
    name, colon, column = spec.rpartition(":")
    if not colon or not name or Path(spec).is_file() or not column:
        return Path(spec), ""
    return Path(name), column
