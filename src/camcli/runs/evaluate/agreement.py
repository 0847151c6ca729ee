"""How far metrics agree on which maps are better."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float64

from camcli.runs.evaluate.summary import TableRow

# Kinds of maps that two metrics must both have a number of.
MIN_MAPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of two metrics on the order of maps, methods and controls together.

    A control that either of the two favours by construction is left out.

    Attributes:
        metric, other: names of the metrics.
        tau: Kendall's rank correlation of the means, each turned so that higher is better: 1 for the same order, -1 for
            the reverse, 0 for none.
        maps: number of kinds of maps that both have a number of.
    """

    metric: str
    other: str
    tau: float
    maps: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def compare_metrics(rows: Iterable[TableRow]) -> list[Agreement]:
    """Return the agreement of each two metrics of which one direction is better; none where it is undefined."""
    means: dict[str, dict[tuple[str, str, str], float]] = defaultdict(dict)
    for row in rows:
        if row.better and row.mean is not None and not row.favoured:
            means[row.metric][row.kind, row.map, row.layer] = row.mean if row.better == "higher" else -row.mean
    found = []
    for metric, other in combinations(means, 2):
        both = [key for key in means[metric] if key in means[other]]
        one, two = (np.array([means[name][key] for key in both]) for name in (metric, other))
        tau = compute_kendall(one, two) if len(both) >= MIN_MAPS else np.nan
        if not np.isnan(tau):
            found.append(Agreement(metric=metric, other=other, tau=round(tau, 6), maps=len(both)))
    return found


def compute_kendall(one: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " n"]) -> float:
    """Compute Kendall's tau-b, which corrects for ties (Kendall 1945); NaN if one of the two is constant."""
    upper = np.triu_indices(len(one), 1)
    signs, other_signs = (np.sign(np.subtract.outer(values, values))[upper] for values in (one, other))
    scale = np.sqrt((signs**2).sum() * (other_signs**2).sum())
    return float((signs * other_signs).sum() / scale) if scale else float("nan")
