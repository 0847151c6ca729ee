"""Pairs of images of two runs, and of an image's maps."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camcli.runs.record.finished import RecordedImage, RecordedMap
from camcli.runs.record.outcome import Outcome

Pair = tuple[RecordedMap | None, RecordedMap | None]
# What tells the maps of an image apart but for their class.
Slot = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the new run's methods and layers in the base, where it calls them otherwise."""

    methods: Mapping[str, str]
    layers: Mapping[str, str]

    @classmethod
    def from_facts(cls, base: Mapping[str, Any], new: Mapping[str, Any]) -> Names:
        """Make it from both runs' ``run.json``."""
        return cls(
            pair_names(*([one["name"] for one in facts.get("methods") or ()] for facts in (base, new))),
            pair_names(*(facts.get("layers") or () for facts in (base, new))),
        )

    def find_slot(self, outcome: Outcome, is_new: bool) -> Slot:
        """Return what tells a map apart among those of its image and class."""
        method, layer = outcome.method or "", outcome.layer or ""
        if is_new:
            method = self.methods.get(method, method)
            layer = "+".join(self.layers.get(one, one) for one in layer.split("+"))
        # A channel that is shown for its own sake is what is explained, as a class is.
        return method, layer, outcome.number, None if outcome.weight is None else outcome.channel


def pair_names(base: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Return the base's name of each new one: the same; and of the others in order, if both have as many.

    So the last layers of two architectures are compared, and two methods.
    """
    rest, others = [one for one in new if one not in base], [one for one in base if one not in new]
    return dict(zip(rest, others, strict=True)) if len(rest) == len(others) else {}


def pair_images(
    base: Iterator[RecordedImage], new: Iterator[RecordedImage]
) -> Iterator[tuple[RecordedImage, RecordedImage]]:
    """Yield the maps of each image in both runs, which are sorted by the bytes of the image's name; none is empty."""
    one, other = next(base, None), next(new, None)
    while one is not None or other is not None:
        first, second = (None if some is None else os.fsencode(some[0].outcome.name) for some in (one, other))
        takes_base = first is not None and (second is None or first <= second)
        takes_new = second is not None and (first is None or second <= first)
        yield (one or ()) if takes_base else (), (other or ()) if takes_new else ()
        one = next(base, None) if takes_base else one
        other = next(new, None) if takes_new else other


def pair_maps(base: RecordedImage, new: RecordedImage, names: Names) -> list[Pair]:
    """Return the pairs of an image's maps: of the same method, layer and class; the others in order.

    So a map of the predicted class is compared with that of another class that is predicted now. In place of a map that
    a run does not have is the image's failure, if it failed there.
    """
    slots: dict[Slot, tuple[list[RecordedMap], list[RecordedMap]]] = defaultdict(lambda: ([], []))
    failures: list[RecordedMap | None] = [None, None]
    for at, image in enumerate((base, new)):
        for one in image:
            if one.has_map:
                slots[names.find_slot(one.outcome, bool(at))][at].append(one)
            else:
                failures[at] = failures[at] or one
    pairs = [pair for olds, news in slots.values() for pair in _pair_classes(olds, news)]
    return [(old or failures[0], new or failures[1]) for old, new in pairs or [(None, None)]]


def _pair_classes(olds: Sequence[RecordedMap], news: Sequence[RecordedMap]) -> Iterator[Pair]:
    left, rest = [*olds], list[RecordedMap]()
    for new in news:
        found = _find_same_class(left, new.outcome)
        if found is None:
            rest.append(new)
        else:
            left.remove(found)
            yield found, new
    for number in range(max(len(left), len(rest))):
        yield left[number] if number < len(left) else None, rest[number] if number < len(rest) else None


def _find_same_class(maps: Sequence[RecordedMap], outcome: Outcome) -> RecordedMap | None:
    """Return the map of the same class: by its label and, of those that share one, by its number."""
    same = [one for one in maps if one.outcome.label == outcome.label]
    return next((one for one in same if one.outcome.index == outcome.index), same[0] if same else None)
