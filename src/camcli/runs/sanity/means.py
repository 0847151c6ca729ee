"""Means of the maps of noisy copies of an image (sMPRT: Hedström et al. 2024, arXiv:2405.02383)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float32, Float64

from camcli.engine.explanation import Explanation
from camcli.engine.maps.result import Result

Map = Float32[np.ndarray, "*d h w"]
# Method, layer and class of a map.
MapKey = tuple[str, str, int]


class MeanMaps:
    """Means of the maps of copies of an image, in the memory of one copy's."""

    def __init__(self) -> None:
        self._totals: dict[MapKey, Float64[np.ndarray, "*d h w"]] = {}
        self._counts = Counter[MapKey]()
        self._copies = 0

    def add(self, maps: Mapping[MapKey, Map]) -> None:
        """Add the maps of a copy."""
        self._copies += 1
        for key, map in maps.items():
            self._totals[key] = self._totals.get(key, 0) + map.astype(np.float64)
            self._counts[key] += 1

    def compute(self) -> dict[MapKey, Map]:
        """Return the means of those that every copy has."""
        whole = (key for key, count in self._counts.items() if count == self._copies)
        return {key: (self._totals[key] / self._copies).astype(np.float32) for key in whole}


def name_maps(results: Iterable[Result]) -> dict[MapKey, Explanation]:
    """Return the maps that explain a class, by method, layer and class."""
    maps = (one for one in results if isinstance(one, Explanation))
    return {(one.method, one.layer, one.index): one for one in maps if one.index is not None}
