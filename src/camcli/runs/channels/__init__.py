"""Job of ``camcli channels``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from camcli.base.errors import RequestError
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option

Sort = Literal["mean", "max", "std", "active", "correlation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelJob:
    """Job of ``camcli channels``: rank the channels of one layer over images.

    Attributes:
        job: model, layer, images, and how they are processed; its target names channels, ``channel:12,99``.
        top: number of channels shown; 0 for 16, or for all that ``channels`` names.
        sort: statistic to sort by; None for ``correlation`` if there are values, else ``mean``.
    """

    job: Job
    channels: tuple[int, ...] = option(
        (),
        MODEL,
        help="Show only these channels, such as 12,99; repeat for more. The CSV file has all",
        flag="--channel",
        metavar="NUMBERS",
        env=False,
    )
    top: int = option(
        0,
        OUTPUT,
        help="Number of channels to show",
        metavar="N",
        min=1,
        unset=True,
        show_default="16, or all of --channel",
        env=False,
    )
    pictures: int = option(
        6,
        OUTPUT,
        help="Images per channel: those with the highest pooled activation",
        metavar="N",
        min=1,
        env=False,
    )
    sort: Sort | None = option(
        None,
        OUTPUT,
        help="Sort by mean, max, std, active (share of images with a pooled activation above zero) or correlation (by "
        "absolute value)",
        metavar="STAT",
        show_default="mean; with --values correlation",
        env=False,
    )
    values: str = option(
        "",
        MODEL,
        help="CSV with a number for each image, such as a label, to correlate each channel with; COL if it has several "
        "columns",
        metavar="FILE[:COL]",
        env=False,
    )

    def __post_init__(self) -> None:
        """Raise RequestError for invalid options."""
        if self.sort is not None and self.sort not in get_args(Sort):
            raise RequestError(f"sort cannot be {self.sort!r}", f"there are: {', '.join(get_args(Sort))}")
        if self.sort == "correlation" and not self.values:
            raise RequestError(
                "sorting channels by correlation needs values to correlate with",
                "give each image a number: --values FILE.csv:COLUMN",
            )
        if self.top < 0 or self.pictures < 1:
            raise RequestError(
                f"{self.top} channels with {self.pictures} images each cannot be shown",
                "give numbers from 1 on",
            )

    @property
    def max_shown(self) -> int:
        """Maximum number of channels shown."""
        return self.top or len(self.channels) or 16
