"""Extra features of images, read from a file and passed to a module with its images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from camcli.base.delimited import find_column, normalize_title, read_rows, read_text
from camcli.base.errors import PictureError, RequestError
from camcli.base.words import shorten
from camcli.images.manifest import PathIndex, missing_from, normalize
from camcli.images.manifest_rows import PICTURE_COLUMNS

# Features of several images along the first dimension: one tensor, or several by name.
Features = Tensor | Mapping[str, Tensor]

FORMAT_HINT = (
    "give a .csv or .tsv file (a header picture,age,height; then an image and its numbers a line) or an .npz file (an "
    "array 'picture' of names, and other arrays with as many rows)"
)


class FeatureFile:
    """A file of features, with a row for each image.

    CSV: the first column, or the one that the header calls ``picture``, names the image; all others are numbers. A
    first row with such a title is a header, any other is data. The numbers become one tensor, float32
    ``(n, columns)``. NPZ: an array ``picture`` of names and one other array ``(n, ...)``, which becomes a tensor, or
    several, which become a dict of tensors. Real numbers become float32, integers int64. An image is named by its
    path: from the current folder, from the file's folder, or from one of ``folders``.

    Args:
        file: path of the file.
        folders: folders that images are taken from.

    Attributes:
        unmatched: names in the file that match no image.

    Raises:
        RequestError: the file cannot be read or is of another type; an image is listed twice; a value is missing, is
            not a number, or not finite; or none of the names is an image.
    """

    def __init__(self, file: Path, folders: Sequence[Path] = ()) -> None:
        self.file = file
        readers: dict[str, Callable[[Path], tuple[list[tuple[str, str]], dict[str, np.ndarray]]]] = {
            ".csv": _read_csv,
            ".tsv": _read_csv,
            ".npz": _read_npz,
        }
        if file.suffix.lower() not in readers:
            raise RequestError(f"the file of features {str(file)!r} is not .csv, .tsv or .npz", FORMAT_HINT)
        try:
            listed, arrays = readers[file.suffix.lower()](file)
        except OSError as error:
            raise RequestError(
                f"the file of features {str(file)!r} cannot be read: {error.strerror or error}", FORMAT_HINT
            ) from error
        names = PathIndex(file, folders)
        self.unmatched = names.unmatched
        self._rows: dict[Path, int] = {}
        for row, (where, name) in enumerate(listed):
            place = names.find(name, where)
            if place in self._rows:
                raise RequestError(f"{file}, {where}: {name!r} is listed twice", "keep one of its lines")
            if place is not None:
                self._rows[place] = row
        if not self._rows:
            first = f", such as {listed[0][1]!r}" if listed else ""
            raise RequestError(
                f"none of the {len(listed)} names in {file} is an image that can be found{first}",
                "name images by their paths: from here, from the file's folder, or from a folder that is explained",
            )
        self._tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def get(self, paths: Sequence[Path]) -> Features:
        """Return the features of these images, ``(n, ...)``.

        Raises:
            PictureError: an image is not listed.
        """
        return self._take_rows([self._find_row(path) for path in paths])

    def sample(self, count: int, paths: Sequence[Path] = ()) -> Features:
        """Return features of ``count`` images to try a network with, of ``paths`` if any of them is listed.

        They are repeated where there are fewer images.
        """
        known = [self._rows[normalize(path)] for path in paths if normalize(path) in self._rows] or [
            *self._rows.values()
        ]
        return self._take_rows([known[number % len(known)] for number in range(count)])

    def check(self, paths: Iterator[Path]) -> None:
        """Check that every image is listed.

        Raises:
            RequestError: some are not.
        """
        names, missing, met = missing_from(self._rows, paths)
        if missing:
            raise RequestError(
                f"{self.file} has features of {met} of the {met + missing} images; not of {shorten(names, missing)}",
                "add a line for each, or leave those images out",
            )

    def _find_row(self, path: Path) -> int:
        try:
            return self._rows[normalize(path)]
        except KeyError:
            raise PictureError(f"{self.file} has no features of this image", "add a line for it") from None

    def _take_rows(self, rows: list[int]) -> Features:
        found = {name: array[rows] for name, array in self._tensors.items()}
        return found.get("", found)


def _read_csv(file: Path) -> tuple[list[tuple[str, str]], dict[str, np.ndarray]]:
    listed: list[tuple[str, str]] = []
    table: list[list[float]] = []
    titles: list[str] = []
    picture = 0
    try:
        for line, cells in read_rows(read_text(file, f"the file of features {str(file)!r}", FORMAT_HINT)):
            where = f"line {line}"
            named = find_column(list(map(normalize_title, cells)), PICTURE_COLUMNS)
            if not titles and not listed and named is not None:
                titles, picture = cells, named
                continue
            width = len(titles) or (len(table[0]) + 1 if table else len(cells))
            if len(cells) != width:
                raise RequestError(
                    f"{file}, {where}: {len(cells)} cells, and the lines above have {width}",
                    "give every image as many numbers",
                )
            name = cells.pop(picture)
            others = [one for at, one in enumerate(titles) if at != picture]
            listed.append((where, name))
            table.append([_parse_number(cell, file, where, others[at : at + 1]) for at, cell in enumerate(cells)])
    except ValueError as error:
        raise RequestError(f"{file}, {error}", FORMAT_HINT) from error
    if not table or not table[0]:
        raise RequestError(
            f"the file of features {str(file)!r} lists {'nothing' if not table else 'no number'}", FORMAT_HINT
        )
    return listed, {"": np.array(table, np.float32)}


def _parse_number(cell: str, file: Path, where: str, title: Sequence[str]) -> float:
    column = "".join(f" in column {one!r}" for one in title)
    try:
        value = float(cell)
    except ValueError:
        value = None
    with np.errstate(over="ignore"):
        finite = value is not None and bool(np.isfinite(np.float32(value)))
    if value is None or not finite:
        what = f"{cell!r}{column} is no finite number" if cell else f"a value{column} is missing"
        hint = "features are numbers; a header row begins with 'picture'"
        raise RequestError(f"{file}, {where}: {what}", hint)
    return value


def _read_npz(file: Path) -> tuple[list[tuple[str, str]], dict[str, np.ndarray]]:
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except OSError:
        raise
    except Exception as error:  # NumPy has many errors for a file that is no NPZ, or holds Python objects
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(f"the file of features {str(file)!r} cannot be read: {said}", FORMAT_HINT) from error
    names = arrays.pop("picture", None)
    if names is None or names.ndim != 1 or names.dtype.kind not in "US":
        what = "no array 'picture'" if names is None else f"an array 'picture' of {names.dtype}, {_format_shape(names)}"
        raise RequestError(f"{file} has {what}", "'picture' is a list of the images' names, one for each row")
    if not arrays:
        raise RequestError(f"{file} has no array beside 'picture'", FORMAT_HINT)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise RequestError(f"{file}: the array {name!r} contains {array.dtype}, not numbers", FORMAT_HINT)
        if not array.ndim or len(array) != len(names):
            raise RequestError(
                f"{file}: the array {name!r} is {_format_shape(array)}, and {len(names)} images are named",
                "give it one row for each image",
            )
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                arrays[name] = array.astype(np.float32)
            if not np.isfinite(arrays[name]).all():
                row = int(np.argwhere(~np.isfinite(arrays[name]))[0][0])
                raise RequestError(
                    f"{file}: the array {name!r} contains NaN or infinite values, the first for {str(names[row])!r}",
                    "features are finite numbers",
                )
        elif array.dtype.kind in "iu":
            if array.size and int(array.max()) > np.iinfo(np.int64).max:
                raise RequestError(f"{file}: the array {name!r} contains integers above 2^63", FORMAT_HINT)
            arrays[name] = array.astype(np.int64)
    words = [name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name) for name in names]
    listed = [(f"row {row}", name) for row, name in enumerate(words)]
    return listed, {"" if len(arrays) == 1 else name: array for name, array in arrays.items()}


def _format_shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape)) or "one value"


# ---- passing features to the module


class ExtraInputs:
    """Extra features that a hook passes to a module as its second argument.

    The module itself is called with images alone, perhaps with several variants of each, those of one image together.

    Args:
        module: a module called as ``module(images, features)``.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._features: Features | None = None
        self._rows: list[int] | None = None

    @property
    def is_active(self) -> bool:
        """True if features are being passed to the module."""
        return self._features is not None

    @contextmanager
    def providing(self, features: Features | None) -> Iterator[None]:
        """Pass the features of a batch to the module while the block runs."""
        if features is None:
            yield
            return
        before = self._features, self._rows
        self._features, self._rows = features, None
        handle = self._module.register_forward_pre_hook(self._append_features) if before[0] is None else None
        try:
            yield
        finally:
            self._features, self._rows = before
            if handle is not None:
                handle.remove()

    @contextmanager
    def restricted_to(self, rows: Sequence[int] | None) -> Iterator[None]:
        """Pass only the features of these rows of the batch while the block runs; None for all."""
        before, self._rows = self._rows, None if rows is None else list(rows)
        try:
            yield
        finally:
            self._rows = before

    def _append_features(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images: Tensor = inputs[0]
        assert self._features is not None
        if isinstance(self._features, Tensor):
            return images, self._repeat_features(self._features, images)
        return images, {name: self._repeat_features(one, images) for name, one in self._features.items()}

    def _repeat_features(self, features: Tensor, images: Tensor) -> Tensor:
        own = features if self._rows is None else features[self._rows]
        if len(images) % len(own):
            raise ValueError(f"features of {len(own)} images cannot be used with {len(images)} images")
        own = own.to(images.device, images.dtype if own.is_floating_point() else None)
        return own.repeat_interleave(len(images) // len(own), 0)


def count_images(features: Features) -> int:
    """Return the number of images that features belong to."""
    return len(features) if isinstance(features, Tensor) else min(map(len, features.values()), default=0)


def select_image(features: Features, row: int) -> Features:
    """Return the features of one image, as a batch of one."""
    some = slice(row, row + 1)
    return features[some] if isinstance(features, Tensor) else {name: one[some] for name, one in features.items()}


def take_first(features: Features, count: int) -> Features:
    """Return the features of the first ``count`` images."""
    return features[:count] if isinstance(features, Tensor) else {name: one[:count] for name, one in features.items()}
