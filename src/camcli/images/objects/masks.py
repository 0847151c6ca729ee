"""Masks of objects in images, from a folder of PNG files of the images' names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from camcli.base.errors import PictureError, RequestError
from camcli.base.words import first_line, shorten
from camcli.images.decode import check_pixels, decode
from camcli.images.opening import open_image
from camcli.images.region import Region
from camcli.images.source import PictureSource
from camcli.images.view import View

SUFFIX = ".png"


class Masks:
    """Masks of objects: a PNG for each image, of its name and size, in which what is not zero is the object.

    Of an image that was found below a given folder, the mask lies below the folder of masks in the same place. A
    palette counts by its numbers, and transparency not at all.

    Args:
        folder: path of the folder.
        folders: folders that images are taken from: a mask may be named by an image's path in one of them.

    Attributes:
        digest: changes with the files' names, sizes and times.
        notes: notes for the user.

    Raises:
        RequestError: there is no such folder, or no PNG file in it.
    """

    def __init__(self, folder: Path, folders: Sequence[Path] = ()) -> None:
        self.folder = folder
        self._bases = [base.absolute() for base in folders]
        self.notes: list[str] = []
        if not folder.is_dir():
            raise RequestError(
                f"there is no folder {str(folder)!r}", "masks are PNG files in a folder, one for each image"
            )
        self._files = {
            str(file.relative_to(folder).with_suffix("")): file for file in sorted(folder.rglob(f"*{SUFFIX}"))
        }
        if not self._files:
            raise RequestError(f"the folder {str(folder)!r} has no {SUFFIX} files", "write a mask for each image")
        states = [(name, (state := file.stat()).st_size, state.st_mtime_ns) for name, file in self._files.items()]
        self.digest = hashlib.sha256(repr(states).encode("utf-8", "surrogatepass")).hexdigest()

    def count_listed(self, sources: Iterable[PictureSource]) -> int:
        """Return how many of these images have a mask."""
        return sum(self._find(one) is not None for one in sources)

    def find_region(self, source: PictureSource, index: int, view: View) -> Bool[np.ndarray, "h w"]:  # noqa: ARG002
        """Return the pixels of the model's input whose centres lie in the object; none without a mask.

        Raises:
            PictureError: the mask cannot be read, or has another size than the image.
        """
        file = self._find(source)
        if file is None:
            return np.zeros(view.input, bool)
        return Region(mask=_read_mask(file)).contains(*view.pixel_centres(), view.picture)

    def find_boxes(self, source: PictureSource, index: int, view: View) -> Float64[np.ndarray, "k 4"]:
        """Return a box around each connected part of the object in the model's input, as x0, y0, x1, y1 in its pixels.

        Raises:
            PictureError: as by :meth:`find_region`.
        """
        region = self.find_region(source, index, view).astype(np.uint8)
        left, top, width, height = cv2.connectedComponentsWithStats(region, connectivity=8)[2][1:, :4].T
        return np.stack([left, top, left + width, top + height], 1).astype(np.float64)

    def describe_unmatched(self) -> str:
        """Describe the masks that are of no image."""
        return shorten([f"{name}{SUFFIX}" for name in self._files], len(self._files))

    def _find(self, source: PictureSource) -> Path | None:
        path = source.path.absolute()
        inside = [path.relative_to(base).as_posix() for base in self._bases if path.is_relative_to(base)]
        names = map(PurePosixPath, (source.name, *inside))
        return next((self._files[key] for name in names for key in _list_keys(name) if key in self._files), None)


def _list_keys(name: PurePosixPath) -> tuple[str, str]:
    """Return what a mask of an image is named, without its own suffix: ``a.jpg`` of ``a.jpg.png``, or ``a``."""
    return str(name), str(name.with_suffix(""))


def read_region(file: Path) -> Region:
    """Read a mask that is the same for every image of its size: an image that is black outside of the region.

    Raises:
        PictureError: it cannot be read, or is black everywhere.
    """
    mask = np.asarray(decode(file, "#000000")).max(axis=2) > 0
    if not mask.any():
        raise PictureError("it is black everywhere", "leave black only what is outside of the region")
    return Region(mask=mask)


def _read_mask(file: Path) -> Bool[np.ndarray, "h w"]:
    try:
        with file.open("rb") as opened, open_image(opened, ["PNG"]) as image:
            check_pixels(*image.size)
            values = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA") else image)
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise PictureError(f"its mask {file} cannot be read as PNG: {first_line(error)}") from error
    return np.asarray((values != 0).any(2) if values.ndim == 3 else values != 0)
