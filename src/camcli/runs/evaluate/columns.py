"""Numbers of all images, metric by metric and map by map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
        first: the first image, in the order of names, that has such a map, and the map's place in it.
        numbers: by the image's name, means over its classes.
        undefined: number of maps for which the metric is undefined.
    """

    setting: str
    measured: str
    first: tuple[str, int]
    numbers: dict[str, Float64[np.ndarray, " t"]] = field(default_factory=dict)
    undefined: int = 0

    def to_array(self, names: Sequence[str]) -> Float64[np.ndarray, "n t"]:
        """Return the numbers of images; NaN where there are none."""
        width = max(map(len, self.numbers.values()), default=1)
        array = np.full((len(names), width), np.nan)
        for place, name in enumerate(names):
            if (numbers := self.numbers.get(name)) is not None:
                array[place, : len(numbers)] = numbers  # an earlier version recorded no curve
        return array


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of all images.

    Attributes:
        columns: by metric and map.
        names: names of the images, in order.
    """

    columns: Mapping[str, Mapping[MapKey, Column]]
    names: Sequence[str]

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.names)

    def iter_metrics(self) -> Iterator[tuple[str, dict[MapKey, Float64[np.ndarray, "n t"]]]]:
        """Iterate over the metrics, with the numbers of methods, of their blurred copies, then of controls."""
        for metric, columns in self.columns.items():
            keys = sorted(columns, key=lambda key: (ORDER[key[0]], columns[key].first))
            yield metric, {key: columns[key].to_array(self.names) for key in keys}


def collect(pictures: Iterable[Sequence[Evaluation]], several_layers: bool) -> Numbers:
    """Collect the numbers of each image, map and metric; the same whatever the order of the images.

    Args:
        pictures: the lines of each image.
        several_layers: True if maps are told apart by their layers too.
    """
    columns: dict[str, dict[MapKey, Column]] = defaultdict(dict)
    names = list[str]()
    for lines in pictures:
        names.append(lines[0].name)
        collected: dict[tuple[str, MapKey], list[tuple[float, ...]]] = defaultdict(list)
        for place, line in enumerate(lines):
            if not line.metric:
                continue
            key: MapKey = (line.kind, line.map, line.layer if several_layers else "")
            own = columns[line.metric].setdefault(key, Column(line.setting, line.measured, (line.name, place)))
            own.first = min(own.first, (line.name, place))
            if line.value is None:
                own.undefined += 1
            else:
                collected[line.metric, key].append((line.value, *line.curve))
        for (metric, key), numbers in collected.items():
            columns[metric][key].numbers[names[-1]] = np.mean(numbers, axis=0)
    return Numbers(columns, sorted(names))


def keep_defined(array: Float64[np.ndarray, "n *t"]) -> Float64[np.ndarray, "k *t"]:
    """Return the numbers of the images that have all of them."""
    return np.asarray(array[~np.isnan(array.reshape(len(array), -1)).any(1)])
