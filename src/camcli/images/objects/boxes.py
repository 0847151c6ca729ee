"""Boxes of objects in images, from a file or folder of annotations."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from camcli.base.errors import RequestError
from camcli.base.words import MAX_NAMES, shorten
from camcli.images.corners import box_to_input
from camcli.images.manifest import PathIndex, normalize
from camcli.images.objects import BOX_FORMATS, coco, table, voc, yolo
from camcli.images.objects.entry import Box, Entry
from camcli.images.source import PictureSource
from camcli.images.view import View


class Boxes:
    """Boxes of objects: a CSV file, COCO's JSON, or a folder of Pascal VOC's XML or of YOLO's text files.

    Images are named as for :class:`PathIndex`. In a CSV file each label must be a class. Files of other formats are of
    data sets, whose classes may be others than the model's: boxes of a class that is none of the model's by its whole
    name are left out, with a note.

    Args:
        file: path of the file or folder.
        find_class: from a label in a CSV file to its class.
        find_whole_name: from a label to the class that has it as name or synonym; None if none has.
        folders: folders that images are taken from.

    Attributes:
        digest: changes with the boxes and the names of their classes.
        notes: notes for the user.

    Raises:
        RequestError: the file cannot be read; it has a line without a box, an unknown label, or names an image that two
            folders have.
    """

    def __init__(
        self,
        file: Path,
        find_class: Callable[[str], int],
        find_whole_name: Callable[[str], int | None],
        folders: Sequence[Path] = (),
    ) -> None:
        self.file = file
        self._boxes: dict[Path, list[Box]] = defaultdict(list)
        self.notes: list[str] = []
        names = PathIndex(file, folders if not file.is_dir() else (file, *folders))
        self._unmatched = names.unmatched
        places: dict[str, Path | None] = {}
        left_out = Counter[str]()
        read_entries, is_table = _choose_format(file)
        digest = hashlib.sha256()
        for entry in read_entries(file):
            digest.update(repr((entry.picture, entry.label, entry.box)).encode("utf-8", "surrogatepass"))
            if is_table:
                index = _find_class(file, entry, find_class)
            elif (index := find_whole_name(entry.label)) is None:
                left_out[entry.label] += 1
                continue
            if entry.picture not in places:
                places[entry.picture] = names.find(entry.picture, entry.where)
            place = places[entry.picture]
            if place is not None:
                self._boxes[place].append(entry.of_class(index))
        self._note_left_out(left_out)
        self.digest = digest.hexdigest()

    def count_listed(self, sources: Iterable[PictureSource]) -> int:
        """Return how many of these images have boxes."""
        return sum(normalize(one.path) in self._boxes for one in sources)

    def describe_unmatched(self) -> str:
        """Describe the names in the file that match no image."""
        return shorten(self._unmatched, len(self._unmatched))

    def describe_images(self) -> str:
        """Describe which images have boxes."""
        return shorten([str(path) for path in islice(self._boxes, MAX_NAMES)], len(self._boxes))

    def find_region(self, source: PictureSource, index: int, view: View) -> Bool[np.ndarray, "h w"]:
        """Return the pixels of the model's input whose centres lie in any box of a class in an image.

        Raises:
            PictureError: the boxes are of an image of another size.
        """
        x, y = view.pixel_centres()
        region = np.zeros(view.input, bool)
        for box in self._boxes.get(normalize(source.path), ()):
            if box.index in (None, index):
                region |= box.contains(x, y, view.picture)
        return region

    def find_boxes(self, source: PictureSource, index: int, view: View) -> Float64[np.ndarray, "k 4"]:
        """Return what the model's input shows of the boxes of a class, as x0, y0, x1, y1 in its pixels.

        Raises:
            PictureError: as by :meth:`find_region`.
        """
        corners = [box for of, box in self.list_boxes(source, view) if of in (None, index)]
        boxes = np.clip(np.array(corners).reshape(-1, 4), 0, np.array([*view.input[::-1]] * 2))
        return np.asarray(boxes[(boxes[:, :2] < boxes[:, 2:]).all(1)])

    def list_boxes(
        self, source: PictureSource, view: View
    ) -> list[tuple[int | None, tuple[float, float, float, float]]]:
        """Return every box of an image, in the order of the file: its class, and its edges in pixels of the input.

        Raises:
            PictureError: as by :meth:`find_region`.
        """
        return [
            (box.index, box_to_input(view, box.place(view.picture)))
            for box in self._boxes.get(normalize(source.path), ())
        ]

    def _note_left_out(self, left_out: Counter[str]) -> None:
        if not left_out:
            return
        of = shorten([name for name, _ in left_out.most_common()], len(left_out))
        if not self._boxes:
            raise RequestError(
                f"{self.file} has boxes of no class of the model: {of}",
                "name the objects as the model names its classes: camcli show lists these, --labels FILE names them",
            )
        self.notes.append(f"{self.file}: {left_out.total()} boxes are of no class of the model, and left out: {of}")


def _choose_format(file: Path) -> tuple[Callable[[Path], Iterator[Entry]], bool]:
    """Return the reader of a file or folder, and whether it is a table."""
    if not file.is_dir():
        return (coco.read_entries, False) if file.suffix.lower() == ".json" else (table.read_entries, True)
    if any(file.rglob("*.xml")):
        return voc.read_entries, False
    if any(file.rglob("*.txt")):
        return yolo.read_entries, False
    raise RequestError(
        f"the folder {str(file)!r} has neither .xml nor .txt files", f"boxes are read from {BOX_FORMATS}"
    )


def _find_class(file: Path, entry: Entry, find_class: Callable[[str], int]) -> int | None:
    try:
        return find_class(entry.label) if entry.label else None
    except RequestError as error:
        raise RequestError(f"{file}, {entry.where} ({entry.picture!r}): {error.message}", error.hint) from error
