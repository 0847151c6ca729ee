"""``channels.png``: a row for each channel shown, with its strongest pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camcli.images import page_of
from camcli.images.numbers import Values
from camcli.images.source import Source
from camcli.images.view import View
from camcli.outputs import encode
from camcli.outputs.sheet import Row, Tile, sheet
from camcli.outputs.style import Style
from camcli.runs.channels.table import Ranked

# A picture, small, and where it lies in the model's input.
Small = tuple[np.ndarray, View]


def draw_sheet(
    ranked: Sequence[Ranked],
    seen: dict[Source, Small],
    maps: dict[tuple[int, Source], np.ndarray],
    layer: str,
    heading: Sequence[str],
    values: Values | None,
    notes: Sequence[str],
    style: Style,
    pictures: int,
) -> bytes:
    """A PNG of channels with their strongest pictures.

    Args:
        ranked: the channels.
        seen: their pictures, small; those that could not be read again are missing.
        maps: of each channel its activation in each of its pictures.
        layer: whose channels they are.
        heading: what was done.
        values: the numbers that channels are compared with, if there are some.
        notes: what a reader must know.
        style: of the maps.
        pictures: how many stand in a row.
    """
    rows = [
        Row(
            f"channel {one.channel}",
            _lines(one, values),
            [
                Tile(_caption(source, value), *seen[source], maps[one.channel, source])
                if source in seen
                else Tile(_caption(source, value))
                for source, value in one.strongest
            ],
            () if one.strongest else ("zero in every picture",),
        )
        for one in ranked
    ]
    return encode.png(sheet(f"Channels of {layer}", heading, rows, _footing(notes), style, pictures))


def _lines(one: Ranked, values: Values | None) -> list[str]:
    lines = [
        f"mean {one.mean:.3g}, std {one.std:.3g}",
        f"max {one.max:.3g}, active in {_share(one.active, one.pictures)}",
    ]
    if values:
        r = "undefined" if one.correlation is None else f"{one.correlation:+.2f}"
        lines.append(f"r {r} with {values.column}")
    return lines


def _footing(notes: Sequence[str]) -> list[str]:
    return [
        "In each row the pictures of the channel's greatest pooled activation (the mean over the cells that show "
        "the picture), which stands below with the picture's name. Over each the channel's activation, cell by "
        "cell, on one scale a row, which the bar gives. Pictures are shown as far as the model saw them.",
        *(f"Note: {note}" for note in notes),
    ]


def _caption(source: Source, value: float) -> str:
    return f"{value:.3g}  {page_of(source.path.name, source.page)}"


def _share(active: float, pictures: int) -> str:
    return f"{round(active * pictures)} of {pictures}" if pictures < 1000 else f"{active:.1%}"
