"""Table of all images: the mean of each metric over each kind of map, and whether methods beat the controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from camcli.metrics import CONTROLS, Better
from camcli.metrics.bootstrap import bootstrap_curve, bootstrap_mean
from camcli.runs.evaluate import Kind
from camcli.runs.evaluate.columns import Column, MapKey, Numbers, keep_defined
from camcli.runs.evaluate.differences import Comparison, Difference

BLURRED_COPY = "its blurred copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One metric of one kind of map, over all images.

    Attributes:
        metric, setting, measured, map, kind, layer: as in :class:`camcli.runs.evaluate.Evaluation`.
        better: whether higher or lower is better; empty if the number only describes the map.
        mean: mean over the images, each the mean over its classes, or the metric's own number of several images; None
            if it is undefined in all.
        low, high: its 95% bootstrap interval over the images; None for fewer than two.
        images: number of images that it is the mean of.
        undefined: number of maps for which it is undefined.
        not_above: for a method, the controls that it does not beat: the interval of the differences, image by image,
            reaches zero or beyond.
        above, below: for a method, the controls than which it is better, or worse: zero is outside of the interval, and
            there are images enough (:data:`camcli.runs.evaluate.differences.MIN_IMAGES`).
        favoured: for a control, why the metric favours it by construction, so that it proves nothing there; empty if
            it does not.
    """

    metric: str
    setting: str
    measured: str
    map: str
    kind: Kind
    layer: str
    better: Better
    mean: float | None
    low: float | None
    high: float | None
    images: int
    undefined: int
    not_above: tuple[str, ...] = ()
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    favoured: str = ""

    @property
    def title(self) -> str:
        """Name of the map in words: ``gradcam, blurred``, ``control random``."""
        where = f" at {self.layer}" if self.layer else ""
        prefix, suffix = ("control " * (self.kind == "control"), ", blurred" * (self.kind == "blurred"))
        return f"{prefix}{self.map}{where}{suffix}"

    @property
    def key(self) -> MapKey:
        """Kind, name and layer of the map."""
        return self.kind, self.map, self.layer

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: ", ".join(one) if isinstance(one, tuple) else one for name, one in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanCurve:
    """Mean over the images of one metric's curves of one kind of map.

    Attributes:
        metric, map, kind, layer: as in :class:`camcli.runs.evaluate.Evaluation`.
        curve: the curve.
        low, high: 95% bootstrap interval of each point, over the images; empty for fewer than two.
    """

    metric: str
    map: str
    kind: Kind
    layer: str
    curve: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def key(self) -> MapKey:
        """Kind, name and layer of the map."""
        return self.kind, self.map, self.layer

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def summarize(numbers: Numbers, seed: int = 0) -> tuple[list[TableRow], list[MeanCurve]]:
    """Return the table of all images, metric by metric, for each the methods, their blurred copies, then controls.

    Args:
        numbers: those of each image.
        seed: of the bootstrap.

    Returns:
        The table, and the mean curve of each kind of map of metrics that have some, in the same order.
    """
    rows, curves = list[TableRow](), list[MeanCurve]()
    for metric, arrays in numbers.iter_metrics():
        rows += _make_rows(metric, numbers.columns[metric], arrays, seed)
        curves += _make_curves(metric, arrays, seed)
    return rows, curves


def list_warnings(rows: Sequence[TableRow]) -> list[str]:
    """Return a line for each method that is not better than each of its controls by each metric: where it is not."""
    warnings = list[str]()
    for key in dict.fromkeys(row.key for row in rows if row.not_above):
        own = [row for row in rows if row.key == key and row.better]
        parts = [
            f"{what} {_list_by_control(found, len(own))}"
            for what, found in (
                ("worse than", {row.metric: row.below for row in own}),
                (
                    "not surely better than",
                    {row.metric: [one for one in row.not_above if one not in row.below] for row in own},
                ),
            )
            if any(found.values())
        ]
        warnings.append(f"{own[0].title} is {'; '.join(parts)}")
    return warnings


def _list_by_control(found: Mapping[str, Sequence[str]], count: int) -> str:
    """Return the controls in words, each with its metrics of so many: ``centre (road-most), edges (all 6 metrics)``."""
    metrics = defaultdict[str, list[str]](list)
    for metric, controls in found.items():
        for control in controls:
            metrics[control].append(metric)
    order = [BLURRED_COPY, *CONTROLS.names()]
    return ", ".join(
        f"{control} ({f'all {count} metrics' if len(metrics[control]) == count > 1 else ', '.join(metrics[control])})"
        for control in sorted(metrics, key=order.index)
    )


def _make_rows(
    metric: str, columns: Mapping[MapKey, Column], arrays: Mapping[MapKey, Float64[np.ndarray, "n t"]], seed: int
) -> Iterator[TableRow]:
    compared = Comparison(metric, arrays, seed)
    row, statistic = compared.row, compared.statistic
    for key, array in compared.arrays.items():
        kind, name, layer = key
        values = keep_defined(array)
        interval = bootstrap_mean(values, seed, statistic=statistic)
        rivals = _compare_with_controls(key, compared) if kind == "method" else {}
        yield TableRow(
            metric=metric,
            setting=columns[key].setting,
            measured=columns[key].measured,
            map=name,
            kind=kind,
            layer=layer,
            better=row.better,
            mean=float(statistic(values.mean(0)[None])[0]) if len(values) else None,
            low=interval[0] if interval else None,
            high=interval[1] if interval else None,
            images=len(values),
            undefined=columns[key].undefined,
            not_above=tuple(title for title, one in rivals.items() if one.low <= 0),
            above=tuple(title for title, one in rivals.items() if one.is_better),
            below=tuple(title for title, one in rivals.items() if one.is_worse),
            favoured=row.favours.get(name, "") if kind == "control" else "",
        )


def _compare_with_controls(key: MapKey, compared: Comparison) -> dict[str, Difference]:
    """Return by how much a method is better than each control that proves anything, where that can be told."""
    _, name, layer = key
    rivals: dict[str, MapKey] = {BLURRED_COPY: ("blurred", name, layer)}
    rivals |= {one: ("control", one, "") for one in CONTROLS.names() if one not in compared.row.favours}
    found = {title: compared.subtract(key, rival) for title, rival in rivals.items()}
    return {title: one for title, one in found.items() if one}


def _make_curves(metric: str, arrays: Mapping[MapKey, Float64[np.ndarray, "n t"]], seed: int) -> Iterator[MeanCurve]:
    for (kind, name, layer), array in arrays.items():
        values = keep_defined(array)[:, 1:]
        if values.size:
            lines = [values.mean(0), *(bootstrap_curve(values, seed) or ())]
            curve, low, high = [tuple(float(f"{one:.6g}") for one in line) for line in lines] + [()] * (3 - len(lines))
            yield MeanCurve(metric=metric, map=name, kind=kind, layer=layer, curve=curve, low=low, high=high)
