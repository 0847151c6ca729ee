"""``camcli channels``: what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from camcli.base.errors import RequestError
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option

Sort = Literal["mean", "max", "std", "active", "correlation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What is asked of ``camcli channels``: the channels of one layer, ranked over pictures.

    Attributes:
        job: model, layer, pictures, and how they are done; its target names channels, ``channel:12,99``.
        top: how many are shown; 0 for 16, or for all that ``channels`` names.
        sort: None for ``correlation`` where there are values, else ``mean``.
    """

    job: Job
    channels: tuple[int, ...] = option(
        (),
        MODEL,
        help="Show only these, by their numbers: 12,99; repeat for more. The CSV file has all.",
        flag="--channel",
        metavar="NUMBERS",
        env=False,
    )
    top: int = option(
        0,
        OUTPUT,
        help="How many channels are shown.",
        metavar="N",
        min=1,
        unset=True,
        show_default="16, or all that --channel names",
        env=False,
    )
    pictures: int = option(
        6,
        OUTPUT,
        help="How many pictures of each channel: those of its greatest pooled activation.",
        metavar="N",
        min=1,
        env=False,
    )
    sort: Sort | None = option(
        None,
        OUTPUT,
        help="What comes first: the greatest mean, maximum, standard deviation or active share (of pictures whose "
        "pooled activation is above zero), or the correlation furthest from zero.",
        show_default="mean; with --values correlation",
        env=False,
    )
    values: str = option(
        "",
        MODEL,
        help="CSV with a number for each picture, such as a label: each channel's correlation with it. COLUMN where "
        "it has several.",
        metavar="FILE[:COLUMN]",
        env=False,
    )

    def __post_init__(self) -> None:
        """Raises RequestError for what cannot be asked."""
        if self.sort is not None and self.sort not in get_args(Sort):
            raise RequestError(f"sort cannot be {self.sort!r}", f"there are: {', '.join(get_args(Sort))}")
        if self.sort == "correlation" and not self.values:
            raise RequestError(
                "channels are to be sorted by their correlation, and nothing says with what",
                "give each picture a number: --values FILE.csv:COLUMN",
            )
        if self.top < 0 or self.pictures < 1:
            raise RequestError(
                f"{self.top} channels with {self.pictures} pictures each cannot be shown",
                "give numbers from 1 on",
            )

    @property
    def shown(self) -> int:
        """How many channels are shown at most."""
        return self.top or len(self.channels) or 16
