"""What files list picture by picture, and how they name pictures: by path, from several folders."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from camcli.base.delimited import column, read_text, rows, title
from camcli.base.errors import PictureError, RequestError
from camcli.base.paths import absolute
from camcli.base.words import MOST_NAMES, several

T = TypeVar("T")

# How the first row of a table may call the column of pictures; the first of these that is there is meant.
PICTURE_COLUMNS = (
    *("picture", "path", "filepath", "file_path", "image_path", "img_path", "picture_path"),
    *("file", "filename", "file_name", "fname", "image_file", "image", "image_name", "img", "img_name", "photo"),
    *("source", "image_id", "imageid", "img_id", "id"),
)
# What lies beside pictures under the same name and is none.
BESIDE = frozenset(
    {
        *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".caption", ".md"),
        *(".npy", ".npz", ".pt", ".pth", ".safetensors"),
    }
)


class Names:
    """Which pictures the names in a file stand for.

    A picture is named by its path: as it stands, from the file's folder, or from one of ``folders``; perhaps without
    its suffix.

    Args:
        file: the file.
        folders: the folders that pictures are taken from.

    Attributes:
        surplus: what was named and nobody can find.
    """

    def __init__(self, file: Path, folders: Sequence[Path] = ()) -> None:
        self.file = file
        self.surplus: list[str] = []
        self._bases = list(dict.fromkeys(base.absolute() for base in [Path(), file.parent, *folders]))
        self._stems: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str, where: str) -> Path | None:
        """The picture of this name, as :func:`normal` has it; None if there is none, which is kept in ``surplus``.

        Args:
            name: as the file has it.
            where: in the file, such as ``line 3``, for messages.

        Raises:
            RequestError: two folders have one.
        """
        # A name that is no path at all, such as one with a NUL in it, is nobody's.
        bases = self._bases if name and "\0" not in name else []
        places = {normal(base / name) for base in bases if _exists(base / name)}
        places = places or {normal(one) for base in bases for one in self._without_suffix(base / name)}
        if len(places) > 1:
            raise RequestError(
                f"{self.file}, {where}: {name!r} can be {len(places)} pictures: " + ", ".join(sorted(map(str, places))),
                "write its whole path",
            )
        if not places:
            self.surplus.append(name)
            return None
        return places.pop()

    def _without_suffix(self, path: Path) -> list[Path]:
        """The pictures that this is the path of but for their suffix; each folder is read once."""
        folder = path.parent
        if folder not in self._stems:
            stems = self._stems[folder] = defaultdict(list)
            try:
                for one in folder.iterdir():
                    if one.suffix and one.suffix.lower() not in BESIDE:
                        stems[one.stem].append(one)
            except (OSError, ValueError):  # no such folder, or none that may be read: nothing is in it
                pass
        return self._stems[folder].get(path.name, [])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, or in a folder that may not be read
        return False


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file can list of pictures.

    Attributes:
        noun: what one is called: ``target``.
        meaning: what is written for one: ``class``.
        columns: how the first row of a table may call its column; the first of these that is there is meant.
        example: one, for messages.
        one_hot: whether a table may have a column for each, in which 1 says that the picture has it and 0 that not.
    """

    noun: str
    meaning: str
    columns: tuple[str, ...]
    example: str
    one_hot: bool = False


# Files of these types list picture by picture.
JSON_LINES = (".jsonl", ".ndjson", ".json")


class Listing(Generic[T]):
    """What a file lists picture by picture.

    The file is a table with a picture and a word a row (a first row ``picture,target`` may stand above; further columns
    are further words, unless the first row names one), or JSONL with ``{"picture": ..., "target": ...}`` a line, which
    is a word or a list of them. Several rows of one picture are several words. Of a kind that may be one-hot the first
    row may also name a picture's column and one for each word. A picture is named as :class:`Names` has it.

    Args:
        file: the file.
        kind: what it lists.
        meant: from a word to what it stands for.
        folders: the folders that pictures are taken from.

    Attributes:
        surplus: what the file lists and nobody can find.

    Raises:
        RequestError: the file cannot be read; a row is malformed, has a word that stands for nothing, or a picture that
            two folders have.
    """

    def __init__(self, file: Path, kind: Kind, meant: Callable[[str], T], folders: Sequence[Path] = ()) -> None:
        self.file, self.kind = file, kind
        self._found: dict[Path, list[T]] = {}
        names = Names(file, folders)
        self.surplus = names.surplus
        find = cache(meant)

        def means(word: str) -> bool:
            try:
                find(word)
            except RequestError:
                return False
            return True

        for turn, (line, picture, words) in enumerate(_rows(file, kind, means)):
            try:
                found = [find(word) for word in words]
            except RequestError as error:
                raise RequestError(f"{file}, line {line} ({picture!r}): {error.message}", error.hint) from None
            place = names.find(picture, f"line {line}")
            if place is not None:
                self._found.setdefault(place, []).extend(found)
            elif not turn and any(title(one) in PICTURE_COLUMNS for one in (picture, *words)):
                raise RequestError(
                    f"{file}, line {line}: {','.join((picture, *words))!r} is a row of titles, and none of them is "
                    f"that of the {kind.noun}",
                    f"call it {kind.noun}; there are: {', '.join(kind.columns)}",
                )

    def of(self, path: Path) -> tuple[T, ...]:
        """What is listed for a picture, in order, each once; nothing if the file does not list it."""
        return tuple(dict.fromkeys(self._found.get(normal(path), ())))

    def pictures(self) -> list[Path]:
        """Those that are listed and there, as :func:`normal` has them."""
        return list(self._found)

    def wanted(self, path: Path) -> tuple[T, ...]:
        """What is listed for a picture.

        Raises:
            PictureError: nothing is.
        """
        found = self.of(path)
        if not found:
            raise PictureError(
                f"{self.file} lists no {self.kind.noun} for this picture",
                f"add a line with its path and {self.kind.meaning}",
            )
        return found

    def unused(self, paths: Iterator[Path]) -> list[str]:
        """What the file lists and none of the pictures of the run is."""
        left = set(self._found) - {normal(path) for path in paths}
        return [*self.surplus, *sorted(map(str, left))]

    def check(self, paths: Iterator[Path]) -> None:
        """See that every picture is listed.

        Raises:
            RequestError: some are not.
        """
        names, missing, met = lacking(self._found, paths)
        if missing:
            raise RequestError(
                f"{self.file} lists {self.kind.noun}s of {met} of the {met + missing} pictures; not of "
                f"{several(names, missing)}",
                f"add a line with path and {self.kind.meaning} for each, or leave those pictures out",
            )


def normal(path: Path) -> Path:
    """The path by which a picture is known, however it was named."""
    return Path(absolute(path))


def lacking(known: Iterable[Path], paths: Iterator[Path]) -> tuple[list[str], int, int]:
    """Of the pictures of a run: the first names that are not among those known, how many are not, and how many are.

    Args:
        known: paths as :func:`normal` has them.
        paths: of the pictures.
    """
    there = frozenset(known)
    names: list[str] = []
    missing = met = 0
    for path in paths:
        if normal(path) in there:
            met += 1
            continue
        missing += 1
        if len(names) < MOST_NAMES:
            names.append(str(path))
    return names, missing, met


# Line number, picture and words.
_Row = tuple[int, str, list[str]]
# How a table may write that a picture has a word, and that it has not.
YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})


def _rows(file: Path, kind: Kind, means: Callable[[str], bool]) -> Iterator[_Row]:
    """Each row; ``means`` says whether a word stands for something."""
    what = f"the {kind.noun}s file {str(file)!r}"
    text = read_text(file, what)
    empty = True
    try:
        table = _json_rows(text, kind) if file.suffix.lower() in JSON_LINES else _Table(text, file, kind).rows(means)
        for line, picture, words in table:
            empty = False
            if not picture or not all(words):
                raise RequestError(
                    f"{file}, line {line}: a picture and its {kind.noun} are needed, but one is missing: "
                    f"{_line(text, line)!r}",
                    f'write picture,{kind.noun} or {{"picture": "a.jpg", "{kind.noun}": "{kind.example}"}}',
                )
            yield line, picture, words
    except ValueError as error:
        raise RequestError(f"{what} cannot be read: {error}") from error
    if empty:
        raise RequestError(f"{what} lists nothing")


def _line(text: str, number: int) -> str:
    """A line of a text, counted from 1, for a message."""
    return text.split("\n")[number - 1].strip()[:200]


class _Table:
    """What is listed in a text table."""

    def __init__(self, text: str, file: Path, kind: Kind) -> None:
        self.text, self.file, self.kind = text, file, kind

    def rows(self, means: Callable[[str], bool]) -> Iterator[_Row]:
        """Its rows: by the titles in the first, by a column for each word, or picture and words in turn."""
        table = rows(self.text)
        first = next(table, None)
        if first is None:
            return
        titles = list(map(title, first[1]))
        picture = column(titles, PICTURE_COLUMNS)
        meant = column(titles, self.kind.columns)
        if picture is not None and meant is not None and picture != meant:
            yield from self._titled(table, titles, picture, self._same(titles, meant))
            return
        rest = list(table)
        hot = self._one_hot(first[1], picture, rest, means) if picture is not None and self.kind.one_hot else []
        if picture is not None and hot:
            for line, cells in rest:
                yield line, cells[picture], [first[1][at] for at in hot if cells[at].lower() in YES]
            return
        plain = [(line, cells[0], [cell for cell in cells[1:] if cell] or [""]) for line, cells in (first, *rest)]
        if self.kind.one_hot:
            _check_plain(plain, self.text, self.file)
        yield from plain

    def _same(self, titles: Sequence[str], meant: int) -> list[int]:
        """The columns of the title that is meant, each a further word; raises RequestError if others can be meant."""
        others = [one for one in titles if one in self.kind.columns and one != titles[meant]]
        if others and titles[meant] not in (self.kind.noun, f"{self.kind.noun}s"):
            raise RequestError(
                f"{self.file}, line 1: the columns {titles[meant]!r} and {others[0]!r} can both be the "
                f"{self.kind.noun}: {_line(self.text, 1)!r}",
                f"call the one that is meant {self.kind.noun}",
            )
        return [at for at, one in enumerate(titles) if one == titles[meant]]

    def _titled(
        self, table: Iterable[tuple[int, list[str]]], titles: Sequence[str], picture: int, columns: Sequence[int]
    ) -> Iterator[_Row]:
        for line, cells in table:
            if len(cells) > len(titles):
                raise RequestError(
                    f"{self.file}, line {line}: {len(cells)} cells under {len(titles)} titles: "
                    f"{_line(self.text, line)!r}",
                    "put what has the delimiter in it in quotes",
                )
            words = [cells[at] for at in columns if at < len(cells) and cells[at]]
            yield line, cells[picture] if picture < len(cells) else "", words or [""]

    def _one_hot(
        self,
        titles: Sequence[str],
        picture: int,
        table: Sequence[tuple[int, list[str]]],
        means: Callable[[str], bool],
    ) -> list[int]:
        """The columns that are each of one word, with 0 and 1 in them; none where that is not what the table is.

        Raises:
            RequestError: it is not clear of a column.
        """
        hot: list[int] = []
        for at, name in enumerate(titles):
            if at == picture or not table:
                continue
            odd = next((line for line, cells in table if "".join(cells[at : at + 1]).lower() not in YES | NO), 0)
            if not odd and not means(name):
                raise RequestError(
                    f"{self.file}, line 1: the column {name!r} has 0 and 1 in it, and names no {self.kind.meaning}: "
                    f"{_line(self.text, 1)!r}",
                    f"call it by a {self.kind.meaning}'s name or number, or leave it out; a column that says which "
                    f"{self.kind.meaning} it is, is called {self.kind.noun}",
                )
            if odd and means(name):
                raise RequestError(
                    f"{self.file}, line {odd}: under {name!r}, which names a {self.kind.meaning}, is neither 0 nor 1: "
                    f"{_line(self.text, odd)!r}",
                    f"write 0 or 1; or picture,{self.kind.noun} above, and the {self.kind.meaning} in a column",
                )
            if not odd:
                hot.append(at)
        return hot


def _check_plain(table: Sequence[_Row], text: str, file: Path) -> None:
    """See that rows without titles, of several words each, cannot be one-hot.

    Raises:
        RequestError: they can.
    """
    if all(len(words) > 1 and set(words) <= YES | NO for _, _, words in table):
        line = table[0][0] if table else 1
        raise RequestError(
            f"{file}, line {line}: 0 and 1 can be classes, or say of each class whether the picture has it: "
            f"{_line(text, line)!r}",
            "write a first row: picture,ant,bee,... with the classes' names, or picture,target,target",
        )


def _json_rows(text: str, kind: Kind) -> Iterator[_Row]:
    # Not splitlines(): JSON may hold other line ends, such as U+2028, as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        picture = next((row[key] for key in PICTURE_COLUMNS if key in row), "")
        given: Any = next((row[key] for key in kind.columns if key in row), [])
        words = given if isinstance(given, list) else [given]
        if not isinstance(picture, str) or not all(type(word) in (str, int) for word in words):
            raise ValueError(
                f"line {number}: a picture is a path, its {kind.noun} a {kind.meaning} or a list of several"
            )
        if kind.one_hot and len(words) > len(set(words)) and set(words) <= {0, 1}:
            raise ValueError(
                f"line {number}: {words} says of each {kind.meaning} whether the picture has it; write the "
                f"{kind.meaning}es that it has: {line.strip()[:200]!r}"
            )
        yield number, picture, [str(word) for word in words] or [""]
