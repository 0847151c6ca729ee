"""``channels.png``: a row for each channel shown, with its strongest images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camcli.images import describe_page
from camcli.images.numbers import NumberColumn
from camcli.images.source import PictureSource
from camcli.images.view import View
from camcli.outputs import encode
from camcli.outputs.sheet import SheetRow, SheetTile, compose_sheet
from camcli.outputs.style import Style
from camcli.runs.channels.table import ChannelStats

# A small copy of an image, and where it lies in the model's input.
Thumbnail = tuple[np.ndarray, View]


def draw_sheet(
    ranked: Sequence[ChannelStats],
    thumbnails: dict[PictureSource, Thumbnail],
    maps: dict[tuple[int, PictureSource], np.ndarray],
    layer: str,
    heading: Sequence[str],
    values: NumberColumn | None,
    notes: Sequence[str],
    style: Style,
    pictures: int,
) -> bytes:
    """Draw channels with their strongest images, as a PNG.

    Args:
        ranked: the channels.
        thumbnails: their images, small; those that could not be read again are missing.
        maps: activation of each channel in each of its images.
        layer: path of the layer.
        heading: lines that describe the run.
        values: numbers that channels are correlated with, if given.
        notes: notes for the reader.
        style: of the maps.
        pictures: number of images in a row.
    """
    rows = [
        SheetRow(
            f"channel {one.channel}",
            _describe_channel(one, values),
            [
                SheetTile(_make_caption(source, value), *thumbnails[source], maps[one.channel, source])
                if source in thumbnails
                else SheetTile(_make_caption(source, value))
                for source, value in one.strongest
            ],
            () if one.strongest else ("zero in every image",),
        )
        for one in ranked
    ]
    return encode.png(compose_sheet(f"Channels of {layer}", heading, rows, _make_footer(notes), style, pictures))


def _describe_channel(one: ChannelStats, values: NumberColumn | None) -> list[str]:
    lines = [
        f"mean {one.mean:.3g}, std {one.std:.3g}",
        f"max {one.max:.3g}, active in {_format_share(one.active, one.pictures)}",
    ]
    if values:
        r = "undefined" if one.correlation is None else f"{one.correlation:+.2f}"
        lines.append(f"r {r} with {values.column}")
    return lines


def _make_footer(notes: Sequence[str]) -> list[str]:
    return [
        "Each row shows the images with the channel's highest pooled activation (the mean over the cells that show "
        "the image), given below each image with its name. The overlay is the channel's activation, cell by cell, on "
        "one scale per row, shown by the bar. Images are cropped to what the model saw.",
        *(f"Note: {note}" for note in notes),
    ]


def _make_caption(source: PictureSource, value: float) -> str:
    return f"{value:.3g}  {describe_page(source.path.name, source.page)}"


def _format_share(active: float, pictures: int) -> str:
    return f"{round(active * pictures)} of {pictures}" if pictures < 1000 else f"{active:.1%}"
