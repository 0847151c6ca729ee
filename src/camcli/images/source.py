"""A picture to be done, and a decoded one."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import UInt8

from camcli.images import page_of

if TYPE_CHECKING:
    from camcli.images.view import View

# `sys.stdin.buffer` is declared as the first and is the second.
Bytes = BinaryIO | io.BufferedIOBase


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to be done, or the reason why something that was asked for cannot be.

    Attributes:
        path: as given, or as found below what was given.
        name: its name under the output folder: relative, ``/`` between parts.
        error: why nothing can be read here; it rides along to be reported in its place.
        page: which of the file's pages, from 1 on, where several are asked for; 0 for the first.
    """

    path: Path
    name: str
    error: str = ""
    page: int = 0

    @property
    def shown(self) -> str:
        """It in words for people: its path, and its page if that matters."""
        return page_of(str(self.path), self.page)


# No picture, but the word that no name comes for a while.
PAUSE = Source(Path(), "")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        source: where it came from.
        pixels: upright, red green blue; fewer than the file has, where it was decoded at reduced size.
        view: which part of it the model saw, in pixels of the file.
    """

    source: Source
    pixels: UInt8[np.ndarray, "h w 3"]
    view: "View"
