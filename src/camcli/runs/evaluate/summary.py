"""Table of all images: the mean of each metric over each kind of map, and whether methods beat the controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from camcli.metrics import CONTROLS, METRICS, Better
from camcli.metrics.bootstrap import bootstrap_mean
from camcli.runs.evaluate import Evaluation, Kind

# Kind, name and layer of a map.
MapKey = tuple[Kind, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One metric of one kind of map, over all images.

    Attributes:
        metric, setting, measured, map, kind, layer: as in :class:`camcli.runs.evaluate.Evaluation`.
        better: whether higher or lower is better; empty if the number only describes the map.
        mean: mean over the images, each the mean over its classes; None if it is undefined in all.
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

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "not_above": ", ".join(self.not_above)}


@dataclass(slots=True)
class _Column:
    """Numbers of one metric of one kind of map, image by image; NaN where there is none."""

    setting: str
    measured: str
    values: dict[int, float]
    undefined: int = 0


def summarize(pictures: Iterable[Sequence[Evaluation]], several_layers: bool, seed: int = 0) -> list[TableRow]:
    """Return the table of all images, metric by metric, for each the methods, their blurred copies, then controls.

    Memory: a number for each image, map and metric.

    Args:
        pictures: the lines of each image.
        several_layers: True if maps are told apart by their layers too.
        seed: of the bootstrap.
    """
    columns: dict[str, dict[MapKey, _Column]] = defaultdict(dict)
    count = 0
    for count, lines in enumerate(pictures, start=1):
        collected: dict[tuple[str, MapKey], list[float]] = defaultdict(list)
        for line in lines:
            if not line.metric:
                continue
            key: MapKey = (line.kind, line.map, line.layer if several_layers else "")
            own = columns[line.metric].setdefault(key, _Column(line.setting, line.measured, {}))
            if line.value is None:
                own.undefined += 1
            else:
                collected[line.metric, key].append(line.value)
        for (metric, key), numbers in collected.items():
            columns[metric][key].values[count - 1] = float(np.mean(numbers))
    return [row for metric in columns for row in _make_rows(metric, columns[metric], count, seed)]


def list_warnings(rows: Iterable[TableRow]) -> list[str]:
    """Return a line for each method and metric where it does not beat all its controls."""
    return [f"{row.metric}: {row.title} does not beat {', '.join(row.not_above)}" for row in rows if row.not_above]


def _make_rows(metric: str, columns: Mapping[MapKey, _Column], count: int, seed: int) -> Iterator[TableRow]:
    better = METRICS.find(metric).better
    arrays = {key: _to_array(column.values, count) for key, column in columns.items()}
    order = ("method", "blurred", "control")
    for key in sorted(columns, key=lambda key: order.index(key[0])):
        kind, name, layer = key
        column, values = columns[key], arrays[key][~np.isnan(arrays[key])]
        interval = bootstrap_mean(values, seed)
        yield TableRow(
            metric=metric,
            setting=column.setting,
            measured=column.measured,
            map=name,
            kind=kind,
            layer=layer,
            better=better,
            mean=float(values.mean()) if len(values) else None,
            low=interval[0] if interval else None,
            high=interval[1] if interval else None,
            images=len(values),
            undefined=column.undefined,
            not_above=tuple(_find_not_beaten(key, arrays, better, seed)) if kind == "method" and better else (),
        )


def _find_not_beaten(key: MapKey, arrays: Mapping[MapKey, np.ndarray], better: Better, seed: int) -> Iterator[str]:
    """Yield the controls that a method does not beat, where that can be told."""
    _, name, layer = key
    rivals: dict[MapKey, str] = {("blurred", name, layer): "its blurred copy"}
    rivals |= {("control", one, ""): one for one in CONTROLS.names()}
    for rival, title in rivals.items():
        if rival in arrays:
            differences = (arrays[key] - arrays[rival]) * (1 if better == "higher" else -1)
            interval = bootstrap_mean(differences[~np.isnan(differences)], seed)
            if interval and interval[0] <= 0:
                yield title


def _to_array(values: Mapping[int, float], count: int) -> np.ndarray:
    array = np.full(count, np.nan)
    array[[*values]] = [*values.values()]
    return array
