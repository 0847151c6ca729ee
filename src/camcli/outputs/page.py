"""A page of images and text, as pixels, SVG or PDF."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from camcli.images.file_info import NO_INFO, FileInfo
from camcli.outputs import encode
from camcli.outputs.font import Colour, Number, write_text

SVG_ANCHORS = {"l": "start", "m": "middle", "r": "end"}
# From the anchor to the line that letters stand on, in units of the font's size.
SVG_DROP = {"a": 0.93, "m": 0.35}
# Units of a page that are an inch in print.
DPI = 144


@dataclass(slots=True)
class Page:
    """White page on which images, patches of colour and lines of text are placed.

    Attributes:
        width, height: size in units of the page.
        scale: pixels for a unit.
    """

    width: int
    height: int
    scale: float = 1.0
    _images: list[tuple[Number, Number, UInt8[np.ndarray, "h w 3"], FileInfo]] = field(default_factory=list)
    _patches: list[tuple[tuple[Number, Number, Number, Number], Colour]] = field(default_factory=list)
    _texts: list[tuple[tuple[Number, Number], str, Colour, int, str]] = field(default_factory=list)

    def place_image(self, x: Number, y: Number, pixels: UInt8[np.ndarray, "h w 3"], info: FileInfo = NO_INFO) -> None:
        """Place an image, which has ``scale`` pixels for a unit, by its upper left corner.

        Args:
            x, y: the corner.
            pixels: the image.
            info: its colour profile, if it has one of its own in an SVG.
        """
        self._images.append((x, y, pixels, info))

    def fill(self, box: tuple[Number, Number, Number, Number], colour: Colour) -> None:
        """Fill a rectangle x0, y0, x1, y1, both ends included."""
        self._patches.append((box, colour))

    def write(self, place: tuple[Number, Number], text: str, colour: Colour, size: int, anchor: str = "la") -> None:
        """Write a line of text; see :func:`camcli.outputs.font.write_text`."""
        self._texts.append((place, text, colour, size, anchor))

    def to_pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """Return the page as pixels."""
        return np.array(self._draw())

    @property
    def dpi(self) -> float:
        """Pixels for an inch in print."""
        return DPI * self.scale

    def to_png(self) -> bytes:
        """Return the page as a PNG file, with its resolution."""
        return encode.png(self.to_pixels(), FileInfo(dpi=(self.dpi, self.dpi)))

    def to_pdf(self) -> bytes:
        """Return the page as a PDF file, of pixels throughout."""
        file = io.BytesIO()
        # Without its time, which would make each run's file another.
        words = {"title": None, "creationDate": None, "modDate": None}
        self._draw().save(file, "PDF", resolution=self.dpi, quality=95, subsampling=0, **words)
        return file.getvalue()

    def to_svg(self) -> bytes:
        """Return the page as an SVG file: the texts are text, the images PNG."""
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{round(self.width * self.scale)}" '
            f'height="{round(self.height * self.scale)}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="DejaVu Sans, Verdana, sans-serif">',
            f'<rect width="{self.width}" height="{self.height}" fill="white"/>',
        ]
        for x, y, pixels, info in self._images:
            height, width = (side / self.scale for side in pixels.shape[:2])
            data = base64.b64encode(encode.png(pixels, info)).decode()
            lines.append(
                f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
                f'href="data:image/png;base64,{data}"/>'
            )
        for (x0, y0, x1, y1), colour in self._patches:
            sides = f'width="{x1 - x0 + 1:g}" height="{y1 - y0 + 1:g}"'
            lines.append(f'<rect x="{x0:g}" y="{y0:g}" {sides} fill="{_format_colour(colour)}"/>')
        for (x, y), text, colour, size, anchor in self._texts:
            lines.append(
                f'<text x="{x:g}" y="{y + SVG_DROP[anchor[1]] * size:g}" font-size="{size:g}" '
                f'text-anchor="{SVG_ANCHORS[anchor[0]]}" fill="{_format_colour(colour)}">{escape(text)}</text>'
            )
        return "\n".join([*lines, "</svg>", ""]).encode("utf-8", "replace")

    def _draw(self) -> Image.Image:
        by = self.scale
        sheet = Image.new("RGB", (round(self.width * by), round(self.height * by)), "white")
        draw = ImageDraw.Draw(sheet)
        for x, y, pixels, _ in self._images:
            sheet.paste(Image.fromarray(pixels), (round(x * by), round(y * by)))
        for (x0, y0, x1, y1), colour in self._patches:
            # To the end of the last unit, which is included.
            draw.rectangle((x0 * by, y0 * by, (x1 + 1) * by - 1, (y1 + 1) * by - 1), colour)
        for (x, y), text, colour, size, anchor in self._texts:
            write_text(draw, (x * by, y * by), text, colour, round(size * by), anchor)
        return sheet


def _format_colour(colour: Colour) -> str:
    return colour if isinstance(colour, str) else f"rgb({colour[0]},{colour[1]},{colour[2]})"
