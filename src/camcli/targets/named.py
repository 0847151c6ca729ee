"""Targets given by name: for all images, by the image's folder, or for each image in a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.base.errors import PictureError, RequestError
from camcli.base.paths import absolute
from camcli.images.manifest import Manifest
from camcli.images.manifest_rows import Column
from camcli.images.tables import ToldClass
from camcli.images.told import read_told_classes
from camcli.targets.labels import Labels, is_part_of_name

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.engine.network import Network
    from camcli.targets import TargetRule

CLASS_COLUMNS = (
    *("target", "targets", "class", "classes", "label", "labels", "category", "categories", "y", "class_name"),
    *("label_name", "category_name", "classname", "class_id", "label_id", "category_id", "class_label", "class_idx"),
)
TARGET_COLUMN = Column("target", "class", CLASS_COLUMNS, "tabby", one_hot=True)


def named_class(argument: str, network: Network) -> TargetRule:
    """Select the class that the argument names, for every image.

    Raises:
        RequestError: the argument names no class, or several.
    """
    index = network.labels.find(argument)
    return lambda path, scores: [index]


def of_folder(argument: str, network: Network) -> TargetRule:
    """Select the class that the image's folder is named after: an index, a whole name or synonym, or a WordNet id.

    The rule raises PictureError for an image whose folder names no class, or several. A part of a name is not enough: a
    folder ``one`` is hardly meant for the one-armed bandit.

    Raises:
        RequestError: an argument was given.
    """
    if argument:
        raise RequestError(f"the target 'folder' takes no argument, but {argument!r} was given")

    @cache
    def find_class(folder: str) -> int | PictureError:
        labels = network.labels
        try:
            index = labels.find(folder)
        except RequestError as error:
            return PictureError(f"its folder {folder!r} names no class: {error.message}", error.hint)
        if is_part_of_name(labels, folder):
            return PictureError(
                f"its folder {folder!r} names no class: it is only a part of the name of {labels.entry(index)!r}",
                "give the folder the whole name, or the index; or the images their classes in a table: --targets FILE",
            )
        return index

    def rule(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        found = find_class(Path(absolute(path)).parent.name)
        if isinstance(found, PictureError):
            raise PictureError(found.message, found.hint)
        return [found]

    return rule


def of_dataset(argument: str, network: Network) -> TargetRule:
    """Select the classes that the image's dataset tells: those of the argument's name, or the usual ones.

    The rule raises PictureError for an image that it tells none of, or none that the network has.
    """
    labels = network.labels
    is_unnamed = labels.names == Labels.numbered(len(labels), labels.noun).names

    @cache
    def find_class(told: ToldClass) -> int | PictureError:
        by_index = told.number is not None and (is_unnamed or not told.name)
        try:
            return labels.find(f"index:{told.number}" if by_index else told.name)
        except RequestError as error:
            said = told.name or told.number
            return PictureError(f"its dataset's class {said!r} is none of the model: {error.message}", error.hint)

    def rule(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        found = list(map(find_class, read_told_classes(path, argument, CLASS_COLUMNS)))
        for one in found:
            if isinstance(one, PictureError):
                raise PictureError(one.message, one.hint)
        return [one for one in found if isinstance(one, int)]

    return rule


class TargetManifest(Manifest[int]):
    """A file that lists the targets of each image.

    Args:
        file: path of the file.
        labels: names of the classes.
        folders: folders that images are taken from.

    Raises:
        RequestError: as in :class:`camcli.images.manifest.Manifest`; or a word names no class, or several.
    """

    def __init__(self, file: Path, labels: Labels, folders: Sequence[Path] = ()) -> None:
        super().__init__(file, TARGET_COLUMN, labels.find, folders)

    def __call__(self, path: Path, scores: Tensor) -> Sequence[int]:  # noqa: ARG002
        """Return the classes listed for an image.

        Raises:
            PictureError: the file does not list it.
        """
        return list(self.require(path))
