"""Statistics and order of channels, and ``channels.csv``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from camcli.images.numbers import NumberColumn
from camcli.images.source import PictureSource
from camcli.metrics.statistics import Statistics, TopK, chance_correlation
from camcli.runs.channels import Sort


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """Statistics of one channel over all images.

    The pooled activation of an image is the mean over the cells of the layer's grid that show any of it; cells of
    padding alone are left out, as ``--crop none`` has them. Without padding it is what global average pooling gives.

    Attributes:
        channel: its number in the layer, from 0 on.
        mean, max, std: of the pooled activation over the images; ``std`` divides by their number.
        active: the share of images whose pooled activation is above zero: of a rectified layer, those in which any
            cell is.
        pictures: number of images that all of these are over, the correlation too.
        correlation: Pearson's r of the pooled activation with the values; None without values, or where it is
            undefined because one of the two is constant.
        strongest: the images of the greatest pooled activation, with it, the greatest first; of equal ones those that
            come first. An image in which it is zero is left out.
        untrained: the weights are random, and the statistics mean nothing.
    """

    channel: int
    mean: float
    max: float
    std: float
    active: float
    pictures: int
    correlation: float | None
    strongest: tuple[tuple[PictureSource, float], ...]
    untrained: bool = False

    def as_line(self) -> bytes:
        """Return the statistics as one JSON line, ended by a newline."""
        line = {name: getattr(self, name) for name in self.__dataclass_fields__}
        line["strongest"] = [
            {"source": source.location, "page": source.page, "value": value} for source, value in self.strongest
        ]
        return json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def compute_channel_stats(
    channel: int, statistics: Statistics, top_pictures: TopK[PictureSource], untrained: bool
) -> ChannelStats:
    """Return the statistics of one channel, with its strongest images."""
    r = float(statistics.correlation[channel])
    return ChannelStats(
        channel,
        float(statistics.mean[channel]),
        float(statistics.max[channel]),
        float(statistics.std[channel]),
        float(statistics.active[channel]),
        statistics.count,
        None if math.isnan(r) else r,
        tuple(top_pictures.top_of(channel)),
        untrained,
    )


def order_channels(statistics: Statistics, sort: Sort) -> list[int]:
    """Return the channels in order: greatest statistic (or |r|) first, of equal ones the lower number first."""
    keys = getattr(statistics, sort)
    strength = np.nan_to_num(np.abs(keys), nan=-np.inf) if sort == "correlation" else keys
    order: list[int] = np.argsort(-strength, kind="stable").tolist()
    return order


def note_correlation(statistics: Statistics, values: NumberColumn | None) -> Iterator[str]:
    """Yield a note on what the correlations mean, if there are values."""
    if values is None:
        return
    undefined = int(np.isnan(statistics.correlation).sum())
    channels = len(statistics.correlation)
    if undefined == channels:
        yield (
            f"no correlation with {values.column!r} is defined: over {format_picture_count(statistics.count)} it, or "
            "every channel, is constant"
        )
        return
    luck = chance_correlation(channels - undefined, statistics.count)
    reached = f"reaches |r| of about {luck:.2f}" if luck is not None else "correlates with anything"
    yield (
        f"by chance alone, the best of {channels - undefined} channels over {format_picture_count(statistics.count)} "
        f"{reached}: verify findings on other images"
    )


def encode_table(stats_of: Callable[[int], ChannelStats], channels: int, pictures: int) -> bytes:
    """Encode ``channels.csv``: every channel; undefined values are empty.

    Args:
        stats_of: returns a channel's statistics by its number.
        channels: number of channels.
        pictures: number of images named for each.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = range(1, pictures + 1)
    names = [name for rank in ranks for name in (f"picture_{rank}", f"value_{rank}")]
    writer.writerow(["channel", "mean", "max", "std", "active", "pictures", "correlation", *names])
    for channel in range(channels):
        one = stats_of(channel)
        strongest = [cell for source, value in one.strongest for cell in (source.display_name, repr(value))]
        numbers = map(repr, (one.mean, one.max, one.std, one.active, one.pictures))
        r = "" if one.correlation is None else repr(one.correlation)
        writer.writerow([channel, *numbers, r, *strongest, *[""] * (len(names) - len(strongest))])
    return text.getvalue().encode("utf-8", "backslashreplace")


def format_picture_count(count: int) -> str:
    """Format a number of images, with the noun."""
    return f"{count} image{'' if count == 1 else 's'}"
