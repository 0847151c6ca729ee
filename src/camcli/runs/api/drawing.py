"""Explanations that know their image, and draw and save themselves."""

from __future__ import annotations

import base64
import html
import importlib
import io
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from camcli.base.errors import PictureError, RequestError, did_you_mean
from camcli.engine.explanation import Explanation
from camcli.images import Bands
from camcli.images.decode import decode
from camcli.images.file_info import NO_INFO, FileInfo
from camcli.images.source import Picture, PictureSource
from camcli.outputs import COLORMAPS, OUTPUTS, Normalize
from camcli.outputs.box import THRESHOLD, HeatBox, find_box
from camcli.outputs.overlay import draw_overlay
from camcli.outputs.style import Style
from camcli.runs.job.check import check_panel_size

if TYPE_CHECKING:
    from camcli.runs.worker.item import Item
    from camcli.runs.worker.worker import Worker

# Greatest side of the images that a notebook shows: of one explanation, and of each in a list.
SHOWN_SIDE, LISTED_SIDE = 768, 320
PLAIN_FORMATS = {".png": "overlay-png", ".jpg": "overlay", ".jpeg": "overlay", ".npy": "array"}


@dataclass(frozen=True, slots=True, repr=False, eq=False, kw_only=True)
class ImageExplanation(Explanation):
    """An :class:`camcli.Explanation` of an image that is at hand, which it draws on.

    The pixels of a file are read again when they are needed, so that a long stream holds none.

    Attributes:
        pixels: of an image in memory, upright, RGB; None for a file.
        reading: how a file is read: the background of transparent pixels, the values of black and white, the page, and
            the bands.
        style: the colours and scale that it is drawn in.
        info: what the image's file says about how its pixels are shown.
    """

    pixels: np.ndarray | None
    reading: tuple[str, str, int, Bands | None]
    style: Style
    info: FileInfo

    @property
    def image(self) -> Image.Image:
        """The image that is explained, upright, RGB.

        Raises:
            PictureError: its file cannot be read any more, or has another size now.
        """
        return self._to_image(self._read_picture().pixels)

    def overlay(
        self, *, colormap: str = "", alpha: int | float | None = None, normalize: Normalize | None = None
    ) -> Image.Image:
        """Draw the heatmap over the image, at the image's own size.

        Args:
            colormap: one of ``camcli.outputs.COLORMAPS``; by default the one given to ``explain``, or inferno.
            alpha: opacity of the heatmap at its maximum, from 0 to 1.
            normalize: colour scale, as ``--normalize``: ``image``, ``range`` or ``none``.
        """
        return self._to_image(draw_overlay(self._read_picture(), self, self._choose_style(colormap, alpha, normalize)))

    def heatmap(self, *, colormap: str = "", normalize: Normalize | None = None) -> Image.Image:
        """Draw the heatmap alone, at the image's own size; grey where the model did not see."""
        return self._draw("heatmap", self._choose_style(colormap, None, normalize))

    def panel(
        self,
        *,
        colormap: str = "",
        alpha: int | float | None = None,
        normalize: Normalize | None = None,
        panel_size: int | None = None,
    ) -> Image.Image:
        """Draw image, heatmap and overlay side by side, with class and score.

        Args:
            colormap: as in :meth:`overlay`.
            alpha: as in :meth:`overlay`.
            normalize: as in :meth:`overlay`.
            panel_size: longer side of each image, in pixels; 0 for as 448 high, or 896 wide, allows.
        """
        return self._draw("panel", self._choose_style(colormap, alpha, normalize, panel_size))

    def heat_box(self, threshold: int | float = THRESHOLD, *, normalize: Normalize | None = None) -> HeatBox:
        """Return the box around the map's strongest region: x, y, width and height in pixels of the upright image.

        It is the smallest box around the largest connected region above a share of the map's maximum (Zhou et al. 2016,
        arXiv:1512.04150, section 3.2); see :func:`camcli.outputs.box.find_box`. ``save("x.box.jpg")`` draws it.

        Args:
            threshold: the share, from 0 to below 1.
            normalize: ``range`` to count from the map's minimum instead of zero.

        Raises:
            PictureError: the map has no box: it is nowhere above zero, or above the threshold everywhere.
        """
        if not 0 <= threshold < 1:
            raise RequestError(f"threshold cannot be {threshold}", "it is a share of the maximum, from 0 to below 1")
        assert self.view is not None
        return find_box(self.view, self, self._choose_style(normalize=normalize), float(threshold))

    def plot(self, ax: Any = None, **style: Any) -> Any:
        """Show the overlay in axes of matplotlib, new ones by default, with class and probability as their title.

        Args:
            ax: the axes.
            style: as in :meth:`overlay`.

        Raises:
            RequestError: matplotlib is not installed.
        """
        try:
            plt = importlib.import_module("matplotlib.pyplot")
        except ImportError as error:
            raise RequestError(
                "plot() needs matplotlib, which is not installed",
                "pip install matplotlib; or take overlay(), which is a Pillow image",
            ) from error
        axes = plt.subplots()[1] if ax is None else ax
        axes.imshow(np.asarray(self.overlay(**style)))
        axes.set_axis_off()
        axes.set_title(self.title)
        return axes

    def save(self, path: str | os.PathLike[str], format: str = "", **style: Any) -> Path:  # noqa: A002
        """Write a file, and return its path.

        Args:
            path: the file; ``.jpg`` and ``.png`` are overlays, ``.npy`` is the raw map, and ``.heatmap.png`` and
                ``.panel.png`` what they are called.
            format: an output format, as ``--save`` takes them, whatever the suffix.
            style: as in :meth:`overlay`, and ``panel_size`` as in :meth:`panel`.

        Raises:
            RequestError: there is no such format, or the suffix stands for none.
            OSError: the file cannot be written.
        """
        path = Path(path)
        content = self._encode(format or _find_format(path.name), self._choose_style(**style))
        path.write_bytes(content)
        return path

    @property
    def title(self) -> str:
        """Class and probability, for people."""
        sure = "" if self.probability is None else f" {self.probability:.2f}"
        return f"{self.label}{sure}" if self.index is None else f"{self.index} {self.label}{sure}"

    def _repr_png_(self) -> bytes:
        return _to_bytes(self.overlay(), SHOWN_SIDE, "PNG")

    def _to_html(self) -> str:
        """Return a figure with a small overlay, for lists in notebooks."""
        data = base64.b64encode(_to_bytes(self.overlay(), LISTED_SIDE, "JPEG")).decode()
        where = f"{self.method} at {self.layer}" if self.layer else self.method
        return (
            '<figure style="display:inline-block;margin:4px;vertical-align:top;max-width:320px">'
            f'<img alt="{html.escape(self.title)}" src="data:image/jpeg;base64,{data}"><figcaption>'
            f"{html.escape(self.title)}<br><small>{html.escape(self.source)}, {html.escape(where)}</small>"
            "</figcaption></figure>"
        )

    def _choose_style(
        self,
        colormap: str = "",
        alpha: int | float | None = None,
        normalize: Normalize | None = None,
        panel_size: int | None = None,
    ) -> Style:
        if colormap:
            check_colormap(colormap)
        if alpha is not None and not 0 <= alpha <= 1:
            raise RequestError(f"alpha cannot be {alpha}", "it is an opacity, from 0 to 1")
        if normalize is not None:
            check_normalize(normalize)
        check_panel_size(panel_size or 0)
        given = {"colormap": colormap or None, "alpha": None if alpha is None else float(alpha), "normalize": normalize}
        given["panel_size"] = panel_size
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self.style, **changes)

    def _to_image(self, pixels: np.ndarray) -> Image.Image:
        image = Image.fromarray(pixels)
        if self.info.icc_profile:  # Pillow writes it into files
            image.info["icc_profile"] = self.info.icc_profile
        return image

    def _draw(self, format: str, style: Style) -> Image.Image:  # noqa: A002
        return Image.open(io.BytesIO(self._encode(format, style))).convert("RGB")

    def _encode(self, format: str, style: Style) -> bytes:  # noqa: A002
        encoded: bytes = OUTPUTS.load(format)(self._read_picture(), self, style)
        return encoded

    def _read_picture(self) -> Picture:
        source = PictureSource(self.source, self.source, page=self.page)
        pixels, view = self.pixels, self.view
        assert view is not None
        if pixels is None:
            try:
                pixels = np.asarray(decode(source.path, *self.reading))
            except PictureError as error:
                raise PictureError(f"{source.display_name}: {error.message}", error.hint) from error
        if pixels.shape[:2] != view.picture:
            raise PictureError(f"{source.display_name} has another size than when it was explained", "explain it again")
        return Picture(source, pixels, view, self.info)


def attach_image(explanation: Explanation, item: Item, worker: Worker) -> ImageExplanation:
    """Return an explanation with its image, and the style that the job asks for."""
    job = worker.job
    own = {one.name: getattr(explanation, one.name) for one in fields(Explanation)}
    own |= {"source": item.source.location, "page": item.source.page}
    own["view"] = item.picture.view.placed(explanation.placement) if item.picture else None
    return ImageExplanation(
        **own,
        pixels=item.picture.pixels if item.picture and item.decoded else None,
        reading=(job.background, job.range, item.source.page, worker.bands),
        info=item.picture.info if item.picture else NO_INFO,
        style=Style(
            job.colormap,
            float(job.alpha),
            job.normalize,
            noun=worker.network.labels.noun,
            panel_size=job.panel_size,
            untrained=worker.network.untrained,
        ),
    )


def check_colormap(colormap: str) -> None:
    """Check that there is a colour map of this name.

    Raises:
        RequestError: there is none.
    """
    if colormap not in COLORMAPS:
        hint = did_you_mean(colormap, COLORMAPS) or f"there are: {', '.join(COLORMAPS)}"
        raise RequestError(f"there is no colormap {colormap!r}", hint)


def check_normalize(normalize: str) -> None:
    """Check that a colour scale needs no other maps.

    Raises:
        RequestError: it is that of a whole run, or there is none of this name.
    """
    if normalize not in ("image", "range", "none"):
        known = normalize == "run"
        raise RequestError(
            f"normalize cannot be {normalize!r}"
            + (" here: the greatest value of all images is known at the end only" if known else ""),
            "there are: image, range, none" + ("; camcli.Run writes files with one scale" if known else ""),
        )


def _find_format(name: str) -> str:
    """Return the output format of a file, by its suffix."""
    rows = sorted(OUTPUTS.rows, key=lambda row: -len(row.suffix))
    suffixes = {**{row.suffix: row.name for row in rows if row.suffix}, **PLAIN_FORMATS}
    found = next((row for suffix, row in suffixes.items() if name.lower().endswith(suffix)), None)
    if found is None:
        raise RequestError(f"{name!r} does not say what to write", f"end it in one of: {', '.join(suffixes)}")
    return found


def _to_bytes(image: Image.Image, side: int, format: str) -> bytes:  # noqa: A002
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()
