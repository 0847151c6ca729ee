"""Job of ``camcli mosaics``."""

from __future__ import annotations

from dataclasses import dataclass

from camcli.base.errors import RequestError
from camcli.runs.job.job import Job
from camcli.runs.job.option import MODEL, OUTPUT, option


@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicJob:
    """Job of ``camcli mosaics``: compose images of different classes into mosaics for the grid pointing game.

    Attributes:
        job: model, images and targets, as for ``camcli explain``.
    """

    job: Job
    side: int = option(
        2, OUTPUT, help="Images along each side of a mosaic", flag="--grid", metavar="N", min=2, max=8, env=False
    )
    count: int = option(500, OUTPUT, help="Maximum number of mosaics", metavar="N", min=1, env=False)
    confidence: float = option(
        0.5,
        MODEL,
        help="Use an image if its class is predicted with at least this probability",
        metavar="P",
        min=0.0,
        max=1.0,
        env=False,
    )

    def __post_init__(self) -> None:
        """Raise RequestError for invalid options."""
        if not self.job.out:
            raise RequestError("mosaics are written to a folder, and none is named", "name a new one: --out mosaics")
