"""Thumbnails of a block of images, on sheets of one file each, and what else the pixels tell."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from camcli.base.errors import PictureError, RequestError
from camcli.images import Bands
from camcli.images.address import to_url
from camcli.images.decode import decode_reduced
from camcli.images.decoded import DecodedPicture
from camcli.images.formats import NIFTI_SUFFIXES, suffix_of
from camcli.runs.record.folder import resolve_inside
from camcli.runs.record.kept import find_source
from camcli.runs.record.outcome import Outcome
from camcli.runs.report import CELL, SHOWN, SIDE

# WebP's quality, and its effort from 0 to 6: 2 takes half the time of 4, for files that are 4 % larger.
QUALITY, EFFORT = 78, 2
# Between thumbnails, where it is never shown.
GROUND = (128, 128, 128)
PICTURE = "picture"
# What browsers show as it is in its file; of other images a copy is made, whose longer side is at most so many pixels.
BROWSER_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".avif"})
COPIED_SIZE = 2048


@dataclass(slots=True)
class Look:
    """Facts that the pixels of an image and its maps tell.

    Attributes:
        size: width and height of the upright image; None if neither it nor a map can be read.
        path: file that a browser can show; None if there is none.
        missing: why the image is not shown; empty if it is.
        sheets: sheets that it has a thumbnail on: ``picture``, and numbers of maps.
    """

    size: tuple[int, int] | None = None
    path: Path | None = None
    missing: str = ""
    sheets: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Thumbnails:
    """Thumbnails of a block of images.

    Attributes:
        looks: what was seen of each image.
        sheets: WebP files by what they show: ``picture``, or the number of a map.
        copies: WebP files of larger images, by the image's place in the block and what they show: ``picture``, or the
            number of a map and its format, joined by ``-``.
    """

    looks: list[Look] = field(default_factory=list)
    sheets: dict[str, bytes] = field(default_factory=dict)
    copies: dict[tuple[int, str], bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Thumbnailer:
    """Maker of thumbnails, in several threads.

    Attributes:
        out: the output folder.
        background, value_range, bands: how images are decoded; see :func:`camcli.images.decode.decode`.
        copied_size: longer side of copies of all images and maps; 0 for copies of images that browsers cannot show.
    """

    out: Path
    background: str
    value_range: str
    bands: Bands | None
    copied_size: int = 0

    def make(self, block: Sequence[Mapping[int, Outcome]]) -> Thumbnails:
        """Make the thumbnails of a block of images, of which one is decoded at a time.

        Args:
            block: the outcomes of each image by the number of the map; -1 for one without a map.
        """
        made = Thumbnails()
        sheets: dict[str, Image.Image] = {}
        for at, outcomes in enumerate(block):
            look = Look()
            made.looks.append(look)
            self._add_picture(next(iter(outcomes.values())), at, look, sheets, made)
            for number, outcome in outcomes.items():
                if number >= 0:
                    self._add_map(outcome, number, at, look, sheets, made)
        made.sheets = {name: encode(sheet) for name, sheet in sheets.items()}
        return made

    def _add_picture(
        self, outcome: Outcome, at: int, look: Look, sheets: dict[str, Image.Image], made: Thumbnails
    ) -> None:
        try:
            path = find_source(outcome, self.out).path
            if suffix_of(path.name) in NIFTI_SUFFIXES:
                raise PictureError("is a volume, whose slices its maps show")
            can_show = not (outcome.page or self.value_range or self.bands or to_url(path)) and path.is_file()
            can_show = can_show and path.suffix.lower() in BROWSER_SUFFIXES
            copied_size = self.copied_size or (0 if can_show else COPIED_SIZE)
            decoded = self._decode(path, copied_size, outcome.page, self.bands)
        except (PictureError, RequestError) as error:
            look.missing = error.message
            return
        look.size, look.path = decoded.size, path if can_show else None
        put(sheets, PICTURE, at, decoded)
        look.sheets.append(PICTURE)
        if copied_size:
            made.copies[at, PICTURE] = encode(fit(decoded, copied_size))

    def _add_map(
        self, outcome: Outcome, number: int, at: int, look: Look, sheets: dict[str, Image.Image], made: Thumbnails
    ) -> None:
        names = [name for name in SHOWN if name in outcome.files]
        for name in names if self.copied_size else names[:1]:
            path = resolve_inside(self.out, outcome.files[name])
            try:
                if path is None or not path.is_file():
                    continue
                decoded = self._decode(path, self.copied_size)
            except (PictureError, RequestError):
                continue
            if name != "panel":
                look.size = look.size or decoded.size
            if name == names[0]:
                put(sheets, str(number), at, decoded)
                look.sheets.append(str(number))
            if self.copied_size:
                made.copies[at, f"{number}-{name}"] = encode(fit(decoded, self.copied_size))

    def _decode(self, path: Path, copied_size: int, page: int = 0, bands: Bands | None = None) -> DecodedPicture:
        side = max(CELL, copied_size)
        return decode_reduced(path, lambda w, h: max(w, h) / side, self.background, self.value_range, page, bands)


def put(sheets: dict[str, Image.Image], name: str, at: int, decoded: DecodedPicture) -> None:
    """Put a thumbnail at its place on a sheet, which is made if there is none of this name."""
    if name not in sheets:
        sheets[name] = Image.new("RGB", (SIDE * CELL, SIDE * CELL), GROUND)
    sheets[name].paste(fit(decoded, CELL), (at % SIDE * CELL, at // SIDE * CELL))


def fit_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size of an image reduced to fit a square, as the page computes it; one that fits stays as it is."""
    scale = min(1.0, side / max(width, height))
    return max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5))


def fit(decoded: DecodedPicture, side: int) -> Image.Image:
    """Reduce an image to fit a square."""
    size = fit_size(*decoded.size, side)
    return decoded.image.resize(size, Image.Resampling.BILINEAR, box=decoded.box, reducing_gap=2.0)


def encode(image: Image.Image) -> bytes:
    """Encode an image as WebP."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=EFFORT)
    return file.getvalue()
