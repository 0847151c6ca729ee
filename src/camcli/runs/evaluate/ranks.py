"""Ranks of the methods among each other, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from camcli.metrics import METRICS
from camcli.metrics.bootstrap import bootstrap_mean
from camcli.runs.evaluate.columns import MapKey, Numbers, keep_defined


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Rank of a method among all methods by one metric, 1 being the best; those that tie share the mean of theirs.

    Attributes:
        metric: name of the metric.
        map, layer: name of the method, and its layer if there are several.
        rank: mean over the images for which each method has a number.
        low, high: its 95% bootstrap interval over these; None for fewer than two.
        best: share of the images in which the method is best; several that tie share an image.
        images: number of these images.
    """

    metric: str
    map: str
    layer: str
    rank: float
    low: float | None
    high: float | None
    best: float
    images: int

    @property
    def words(self) -> str:
        """The rank in words: ``gradcam 1.2 (1.0 to 1.5, best in 80%)``."""
        interval = "" if self.low is None else f"{self.low:.1f} to {self.high:.1f}, "
        where = f" at {self.layer}" if self.layer else ""
        return f"{self.map}{where} {self.rank:.1f} ({interval}best in {self.best:.0%})"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def rank_methods(numbers: Numbers, seed: int = 0) -> list[Rank]:
    """Return the ranks by each metric of which one direction is better, best first; none of fewer than two methods.

    Metrics that are no mean over images, such as MaxBoxAccV2, say nothing of a single image and are left out.

    Args:
        numbers: those of each image.
        seed: of the bootstrap.
    """
    ranks = list[Rank]()
    for metric, arrays in numbers.iter_metrics():
        row = METRICS.find(metric)
        values = {key: array[:, 0] for key, array in arrays.items() if key[0] == "method"}
        if len(values) > 1 and row.better and not row.pooled:
            sign = 1 if row.better == "higher" else -1
            ranks += sorted(_rank(metric, values, sign, seed), key=lambda one: one.rank)
    return ranks


def describe_ranks(ranks: Sequence[Rank]) -> Iterator[str]:
    """Yield a line for each metric."""
    for metric in dict.fromkeys(one.metric for one in ranks):
        yield f"{metric}: " + ", ".join(one.words for one in ranks if one.metric == metric)


def _rank(metric: str, values: Mapping[MapKey, Float64[np.ndarray, " n"]], sign: int, seed: int) -> Iterator[Rank]:
    table = sign * keep_defined(np.stack([*values.values()], 1))
    if not len(table):
        return
    better = (table[:, None] > table[:, :, None]).sum(2)
    equal = (table[:, None] == table[:, :, None]).sum(2)
    places = 1 + better + (equal - 1) / 2
    shares = np.where(better == 0, 1 / equal, 0)
    for (_, name, layer), own, best in zip(values, places.T, shares.T, strict=True):
        low, high = bootstrap_mean(own, seed) or (None, None)
        yield Rank(
            metric=metric,
            map=name,
            layer=layer,
            rank=float(own.mean()),
            low=low,
            high=high,
            best=float(best.mean()),
            images=len(own),
        )
