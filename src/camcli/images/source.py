"""Sources of images, and decoded images."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import UInt8

from camcli.images import describe_page
from camcli.images.address import show_path
from camcli.images.file_info import NO_INFO, FileInfo

if TYPE_CHECKING:
    from camcli.images.view import View

# `sys.stdin.buffer` is declared as the first but is the second.
ByteStream = BinaryIO | io.BufferedIOBase


@dataclass(frozen=True, slots=True)
class PictureSource:
    """An image to process, or the reason why an input cannot be processed.

    Attributes:
        file: path as given, or as found below a given folder, as text: of a million images few are ever opened.
        name: name under the output folder: relative, ``/`` between parts.
        error: reason why nothing can be read here, to be reported in place of the image.
        page: number of the page, from 1, where several are requested; 0 for the first.
        root: folder that the name is relative to; empty if unknown.
        columns: values of the table that lists it, as a JSON object; empty if none are carried along.
    """

    file: str
    name: str
    error: str = ""
    page: int = 0
    root: str = ""
    columns: str = ""

    @property
    def path(self) -> Path:
        """Path of its file."""
        return Path(self.file)

    @property
    def location(self) -> str:
        """Path, or the address that it stands for, as text."""
        return show_path(self.path)

    @property
    def display_name(self) -> str:
        """Path, and page if there are several, for messages."""
        return describe_page(self.location, self.page)


# Stands for no image: yielded while names from a pipe are awaited.
PAUSE = PictureSource("", "")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image.

    Attributes:
        source: the source that it was decoded from.
        pixels: upright RGB pixels; fewer than in the file where it was decoded at reduced size.
        view: the part that the model saw, in pixels of the file.
        info: what its file says about how the pixels are shown.
    """

    source: PictureSource
    pixels: UInt8[np.ndarray, "h w 3"]
    view: "View"
    info: FileInfo = NO_INFO
