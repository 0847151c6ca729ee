"""Table of all images: the mean of each metric over each kind of map, and whether methods beat the controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from camcli.metrics import CONTROLS, METRICS, Better
from camcli.metrics.bootstrap import bootstrap_curve, bootstrap_mean
from camcli.runs.evaluate import Kind
from camcli.runs.evaluate.columns import Column, MapKey, Numbers, keep_defined

Statistic = Callable[[Float64[np.ndarray, "m t"]], Float64[np.ndarray, " m"]]


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
        return {**asdict(self), "not_above": ", ".join(self.not_above)}


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


def list_warnings(rows: Iterable[TableRow]) -> list[str]:
    """Return a line for each method and metric where it does not beat all its controls."""
    return [f"{row.metric}: {row.title} does not beat {', '.join(row.not_above)}" for row in rows if row.not_above]


def _make_rows(
    metric: str, columns: Mapping[MapKey, Column], arrays: Mapping[MapKey, Float64[np.ndarray, "n t"]], seed: int
) -> Iterator[TableRow]:
    row = METRICS.find(metric)
    # From the mean numbers of several images to the number of these.
    statistic: Statistic = lambda means: means[:, 0]  # noqa: E731
    if row.pooled:
        pooled = METRICS.load_function(row, row.pooled)
        statistic = lambda means: pooled(means[:, 1:])  # noqa: E731
    else:
        arrays = {key: array[:, :1] for key, array in arrays.items()}
    for key, array in arrays.items():
        kind, name, layer = key
        values = keep_defined(array)
        interval = bootstrap_mean(values, seed, statistic=statistic)
        compared = kind == "method" and row.better
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
            not_above=tuple(_find_not_beaten(key, arrays, row.better, statistic, seed)) if compared else (),
        )


def _find_not_beaten(
    key: MapKey,
    arrays: Mapping[MapKey, Float64[np.ndarray, "n t"]],
    better: Better,
    statistic: Statistic,
    seed: int,
) -> Iterator[str]:
    """Yield the controls that a method does not beat, where that can be told."""
    _, name, layer = key
    sign = 1 if better == "higher" else -1

    def subtract(means: Float64[np.ndarray, "m 2 t"]) -> Float64[np.ndarray, " m"]:
        return np.asarray(sign * (statistic(means[:, 0]) - statistic(means[:, 1])))

    rivals: dict[MapKey, str] = {("blurred", name, layer): "its blurred copy"}
    rivals |= {("control", one, ""): one for one in CONTROLS.names()}
    for rival, title in rivals.items():
        # A map that is undefined in all images has no curve.
        if rival in arrays and arrays[rival].shape == arrays[key].shape:
            pairs = keep_defined(np.stack([arrays[key], arrays[rival]], 1))
            interval = bootstrap_mean(pairs, seed, statistic=subtract)
            if interval and interval[0] <= 0:
                yield title


def _make_curves(metric: str, arrays: Mapping[MapKey, Float64[np.ndarray, "n t"]], seed: int) -> Iterator[MeanCurve]:
    for (kind, name, layer), array in arrays.items():
        values = keep_defined(array)[:, 1:]
        if values.size:
            lines = [values.mean(0), *(bootstrap_curve(values, seed) or ())]
            curve, low, high = [tuple(float(f"{one:.6g}") for one in line) for line in lines] + [()] * (3 - len(lines))
            yield MeanCurve(metric=metric, map=name, kind=kind, layer=layer, curve=curve, low=low, high=high)
