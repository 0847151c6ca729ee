"""What a reviewer should look at first, found while the images pass by."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from camcli.base.words import count_of
from camcli.runs.report.items import Item

# Images shown with a finding, and findings of a kind: pairs of classes, reasons, notes.
SHOWN_IMAGES, SHOWN_GROUPS = 5, 4
# A group is not counted beyond so many different ones, as texts that hold numbers could be.
MAX_GROUPS = 1000
# Maps whose strongest place is nearer to an edge than this share of the shorter side: within the outermost cells of a
# grid of 7 x 7, whose centres are a fourteenth from the edge.
EDGE = 0.08
# Maps of an image whose strongest places are further apart than these shares of its diagonal disagree, and much.
APART, FAR_APART = 0.01, 0.25
# An image whose class has at most this probability is uncertain: all other classes together may have more.
UNCERTAIN = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding, which is a filter or an order of the images.

    Attributes:
        title: what it is.
        count: number of images; None for an order.
        text: what it says.
        address: filter and order, as the page's address has them behind ``#``.
        images: numbers of the first images.
        kind: ``bad`` for failures and wrong predictions, else ``look``.
    """

    title: str
    count: int | None
    text: str
    address: str
    images: list[int]
    kind: str = "look"


class _Group:
    """Images that have something in common: their number and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[int] = []

    def add(self, number: int) -> None:
        self.count += 1
        if len(self.first) < SHOWN_IMAGES:
            self.first.append(number)


class _Lowest:
    """Images with the lowest values."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self.count = 0

    def add(self, value: float, number: int) -> None:
        self.count += 1
        push = heapq.heappush if len(self._heap) < SHOWN_IMAGES else heapq.heappushpop
        push(self._heap, (-value, -number))

    @property
    def images(self) -> list[int]:
        return [-number for _, number in sorted(self._heap, reverse=True)]

    @property
    def least(self) -> float:
        return -max(self._heap)[0]


class Findings:
    """Collection of findings over all images, in memory that does not grow with them.

    Attributes:
        count, failed: numbers of all images, and of those without a map or not all of them.
        labelled, right: numbers of images with a label, and of those where the model predicts it.
    """

    def __init__(self) -> None:
        self.count = self.failed = self.labelled = self.right = 0
        self._certain, self._apart = _Lowest(), _Lowest()
        self._edge, self._wrong = _Group(), _Group()
        self._far = 0
        self._reasons: dict[str, _Group] = {}
        self._pairs: dict[tuple[str, str], _Group] = {}
        self._notes: dict[str, _Group] = {}
        self._sure_of_label = False

    def add(self, item: Item) -> None:
        """Add the next image."""
        number = self.count
        self.count += 1
        if "error" in item:
            self.failed += 1
            _count(self._reasons, item["reason"], number)
        for note in item.get("notes", ()):
            _count(self._notes, note, number)
        self._add_labels(item, number)
        maps = item.get("maps", ())
        if maps and maps[0].get("probability", 1.0) <= UNCERTAIN:
            self._certain.add(maps[0]["probability"], number)
        if item.get("apart", 0.0) >= APART:
            self._apart.add(-item["apart"], number)
            self._far += item["apart"] > FAR_APART
        if any(one.get("edge", 1.0) < EDGE for one in maps):
            self._edge.add(number)

    def _add_labels(self, item: Item, number: int) -> None:
        if "right" not in item:
            return
        self.labelled += 1
        self.right += item["right"]
        if not item["right"]:
            self._wrong.add(number)
            for label in item["labels"]:
                _count(self._pairs, (label, item["predicted"]), number)

    def list_all(self) -> list[Finding]:
        """Return the findings, those that need attention most first."""
        found = [*self._list_failures(), *self._list_wrong()]
        found += self._list_orders()
        if self._edge.count:
            text = f"A map is strongest within {_percent(EDGE)} of an edge: background, a border, a caption?"
            address = _address(**{"max:edge": f"{100 * EDGE:g}", "sort": "edge"})
            found.append(Finding("At the border", self._edge.count, text, address, self._edge.first))
        for note, group in _list_largest(self._notes):
            found.append(Finding("With a note", group.count, note, _address(note=note), group.first))
        return found

    def _list_orders(self) -> Iterator[Finding]:
        certain, apart = self._certain, self._apart
        if certain.count:
            what = "label" if self.labelled else "class explained"
            text = f"The {what} has a probability of {UNCERTAIN} or less; the lowest is {certain.least:.2g}."
            address = _address(**{"max:probability": UNCERTAIN, "sort": "probability"})
            yield Finding("Least certain", certain.count, text, address, certain.images)
        if apart.count:
            text = "Disagreement of maps is how far apart they are strongest: "
            text += f"up to {_percent(-apart.least)} of the diagonal"
            text += f", in {count_of(self._far, 'image')} more than {_percent(FAR_APART)}." if self._far else "."
            address = _address(**{"min:apart": f"{100 * APART:g}", "sort": "apart", "desc": 1})
            yield Finding("Maps that disagree most", apart.count, text, address, apart.images)

    def _list_failures(self) -> list[Finding]:
        return [
            Finding("Failed", group.count, reason, _address(reason=reason), group.first, "bad")
            for reason, group in _list_largest(self._reasons)
        ]

    def _list_wrong(self) -> list[Finding]:
        if not self._wrong.count:
            return []
        share = self.right / self.labelled
        text = f"of {self.labelled} labelled images are predicted as another class: {share:.1%} right."
        found = [
            Finding("Predicted wrongly", self._wrong.count, text, _address(result="wrong"), self._wrong.first, "bad")
        ]
        pairs = _list_largest(self._pairs) if self._wrong.count > 1 else []
        for (label, predicted), group in pairs:
            text = f"{label} is taken for {predicted}."
            address = _address(label=label, predicted=predicted)
            found.append(Finding("Confused", group.count, text, address, group.first, "bad"))
        return found


def _count(groups: dict[Any, _Group], key: Any, number: int) -> None:
    if key in groups or len(groups) < MAX_GROUPS:
        groups.setdefault(key, _Group()).add(number)


def _list_largest(groups: Mapping[Any, _Group]) -> list[tuple[Any, _Group]]:
    """Return the largest groups, of equal ones those met first."""
    counts = Counter({key: group.count for key, group in groups.items()})
    return [(key, groups[key]) for key, _ in islice(counts.most_common(), SHOWN_GROUPS)]


def _percent(share: float) -> str:
    """Write a share with two digits, as the page does."""
    return f"{float(f'{100 * share:.2g}'):g}\N{NO-BREAK SPACE}%"


def _address(**filters: Any) -> str:
    return urlencode({name: str(value) for name, value in filters.items()}, errors="replace")
