"""``camcli channels``: what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from camcli.base.errors import RequestError

if TYPE_CHECKING:
    from camcli.runs.job.job import Job

Sort = Literal["mean", "max", "std", "active", "correlation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What is asked of ``camcli channels``: the channels of one layer, ranked over pictures.

    Attributes:
        job: model, layer, pictures, and how they are done; its target names channels, ``channel:12,99``.
        channels: those that are shown; empty for the first of all.
        top: how many are shown; 0 for 16, or for all that ``channels`` names.
        pictures: how many pictures of each.
        sort: by which of their statistics; None for ``correlation`` where there are values, else ``mean``.
        values: a CSV file with a number for each picture, perhaps with ``:COLUMN`` behind; empty for none.
    """

    job: Job
    channels: tuple[int, ...] = ()
    top: int = 0
    pictures: int = 6
    sort: Sort | None = None
    values: str = ""

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
