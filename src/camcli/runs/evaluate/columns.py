"""Numbers of all images, metric by metric and map by map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from camcli.runs.evaluate import Evaluation, Kind

# Kind, name and layer of a map.
MapKey = tuple[Kind, str, str]
# Order of the kinds.
ORDER: Mapping[Kind, int] = {"method": 0, "blurred": 1, "control": 2}


@dataclass(slots=True)
class Column:
    """Numbers of one metric of one kind of map, image by image: its value, then its curve.

    Attributes:
        setting, measured: as in :class:`camcli.runs.evaluate.Evaluation`.
        numbers: by the image's place, means over its classes.
        undefined: number of maps for which the metric is undefined.
    """

    setting: str
    measured: str
    numbers: dict[int, Float64[np.ndarray, " t"]]
    undefined: int = 0

    def to_array(self, count: int) -> Float64[np.ndarray, "n t"]:
        """Return the numbers of so many images; NaN where there are none."""
        width = max(map(len, self.numbers.values()), default=1)
        array = np.full((count, width), np.nan)
        for place, numbers in self.numbers.items():
            array[place, : len(numbers)] = numbers  # an earlier version recorded no curve
        return array


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of all images.

    Attributes:
        columns: by metric and map.
        count: number of images.
    """

    columns: Mapping[str, Mapping[MapKey, Column]]
    count: int

    def iter_metrics(self) -> Iterator[tuple[str, dict[MapKey, Float64[np.ndarray, "n t"]]]]:
        """Iterate over the metrics, with the numbers of methods, of their blurred copies, then of controls."""
        for metric, columns in self.columns.items():
            yield metric, {key: columns[key].to_array(self.count) for key in sorted(columns, key=lambda k: ORDER[k[0]])}


def collect(pictures: Iterable[Sequence[Evaluation]], several_layers: bool) -> Numbers:
    """Collect the numbers of each image, map and metric.

    Args:
        pictures: the lines of each image.
        several_layers: True if maps are told apart by their layers too.
    """
    columns: dict[str, dict[MapKey, Column]] = defaultdict(dict)
    count = 0
    for count, lines in enumerate(pictures, start=1):
        collected: dict[tuple[str, MapKey], list[tuple[float, ...]]] = defaultdict(list)
        for line in lines:
            if not line.metric:
                continue
            key: MapKey = (line.kind, line.map, line.layer if several_layers else "")
            own = columns[line.metric].setdefault(key, Column(line.setting, line.measured, {}))
            if line.value is None:
                own.undefined += 1
            else:
                collected[line.metric, key].append((line.value, *line.curve))
        for (metric, key), numbers in collected.items():
            columns[metric][key].numbers[count - 1] = np.mean(numbers, axis=0)
    return Numbers(columns, count)


def keep_defined(array: Float64[np.ndarray, "n *t"]) -> Float64[np.ndarray, "k *t"]:
    """Return the numbers of the images that have all of them."""
    return np.asarray(array[~np.isnan(array.reshape(len(array), -1)).any(1)])
