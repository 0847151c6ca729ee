"""Targets that somebody named: for all pictures, by the picture's folder, or in a file picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.base.errors import PictureError, RequestError
from camcli.base.paths import absolute
from camcli.images.manifest import Kind, Listing

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.engine.network import Network
    from camcli.targets import Target
    from camcli.targets.labels import Labels

CLASS_COLUMNS = (
    *("target", "targets", "class", "classes", "label", "labels", "category", "categories", "y", "class_name"),
    *("label_name", "category_name", "classname", "class_id", "label_id", "category_id", "class_label", "class_idx"),
)
TARGETS = Kind("target", "class", CLASS_COLUMNS, "tabby", one_hot=True)


def named_class(argument: str, network: Network) -> Target:
    """The class that the argument names, for every picture.

    Raises:
        RequestError: it names no class, or several.
    """
    index = network.labels.find(argument)
    return lambda path, scores: [index]


def of_folder(argument: str, network: Network) -> Target:
    """The class that the picture's folder is named after: an index, a name or a WordNet id.

    A picture whose folder names no class, or several, has a PictureError.

    Raises:
        RequestError: an argument was given; it takes none.
    """
    if argument:
        raise RequestError(f"the target 'folder' takes no argument, but {argument!r} was given")

    @cache
    def named(folder: str) -> int | PictureError:
        try:
            return network.labels.find(folder)
        except RequestError as error:
            return PictureError(f"its folder {folder!r} names no class: {error.message}", error.hint)

    def target(path: Path, scores: Tensor) -> list[int]:  # noqa: ARG001
        found = named(Path(absolute(path)).parent.name)
        if isinstance(found, PictureError):
            raise PictureError(found.message, found.hint)
        return [found]

    return target


class Listed(Listing[int]):
    """Targets that a file lists picture by picture.

    Args:
        file: the file.
        labels: the classes.
        folders: the folders that pictures are taken from.

    Raises:
        RequestError: as of :class:`camcli.images.manifest.Listing`; a word names no class, or several.
    """

    def __init__(self, file: Path, labels: Labels, folders: Sequence[Path] = ()) -> None:
        super().__init__(file, TARGETS, labels.find, folders)

    def __call__(self, path: Path, scores: Tensor) -> Sequence[int]:  # noqa: ARG002
        """The classes listed for a picture.

        Raises:
            PictureError: the file does not list it.
        """
        return list(self.wanted(path))
