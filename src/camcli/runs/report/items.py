"""What the page knows of an image: plain values for its JSON."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from camcli.base.paths import absolute
from camcli.runs.record.folder import is_plain_path
from camcli.runs.record.outcome import Outcome
from camcli.runs.report.entries import Entry, LabelRule
from camcli.runs.report.thumbnails import Look

# Digits of an image's id in addresses: two of 100,000 images share one with a chance of 1 in 56,000.
ID_DIGITS = 12
# Maps of an image that have a column of thumbnails; further ones are shown with the image alone.
MAX_COLUMNS = 12
# Digits of numbers, which are for people.
DIGITS = 6

Item = dict[str, Any]


class Variant(NamedTuple):
    """Kind of a map among an image's: its method and layer, and the place of its target."""

    method: str
    layer: str
    rank: int


class Variants:
    """Numbers of the kinds of maps that images have, in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[Variant, int] = {}
        # Kinds of the last complete image of so many lines, which tell the places of targets where some failed.
        self._complete: dict[int, Sequence[Variant | None]] = {}

    def number(self, entry: Entry) -> dict[int, Outcome]:
        """Return the maps of an image by number; its first line as number -1 if it has none."""
        variants = self._find_variants(entry.outcomes)
        found = {
            self._numbers.setdefault(variant, len(self._numbers)): one
            for variant, one in zip(variants, entry.outcomes, strict=True)
            if variant
        }
        return found or {-1: entry.outcomes[0]}

    def _find_variants(self, outcomes: Sequence[Outcome]) -> Sequence[Variant | None]:
        """Return the kind of each line's map; None where it failed, which does not tell its kind or target."""
        ranks: dict[Any, int] = {}
        found: list[Variant | None] = []
        for one in outcomes:
            rank = ranks.setdefault((one.index, one.number, one.channel), len(ranks)) if one.method else 0
            found.append(Variant(one.method, one.layer or "", rank) if one.method else None)
        if None not in found:
            self._complete[len(found)] = found
        # Lines are class by class, in an order that is the same in every image of so many lines.
        usual = self._complete.get(len(found), found)
        fits = all(one is None or (other and one[:2] == other[:2]) for one, other in zip(found, usual, strict=True))
        return [one and other for one, other in zip(found, usual, strict=True)] if fits else found

    @property
    def are_ranked(self) -> bool:
        """True if an image has maps of several targets."""
        return any(one.rank for one in self._numbers)

    def name_all(self) -> list[str]:
        """Return short names of the kinds, of what they differ in: method and layer; empty if only targets differ."""
        words = [(one.method, one.layer or "input") for one in self._numbers]
        several = [len(set(values)) > 1 for values in zip(*words, strict=True)]
        return [" · ".join(word for word, differs in zip(one, several, strict=True) if differs) for one in words]


def make_item(
    entry: Entry, maps: Mapping[int, Outcome], look: Look, values: Sequence[float | None], rule: LabelRule | None
) -> Item:
    """Make what the page knows of an image; what is not known is left out.

    Args:
        entry: the image.
        maps: its maps by the number of their kind.
        look: what its pixels tell.
        values: its numbers in the tables handed over.
        rule: how its targets tell its label; None if they are none.
    """
    first = entry.outcomes[0]
    shown = [_make_map(number, one, look.size) for number, one in maps.items() if number >= 0]
    item: Item = {
        "id": hashlib.sha256(os.fsencode(first.name)).hexdigest()[:ID_DIGITS],
        "name": first.name,
        "source": first.shown,
        "size": look.size,
        "missing": look.missing,
        "error": entry.error,
        "reason": group_reason(entry.error),
        "later": entry.later_error,
        "notes": sorted({note for one in entry.outcomes for note in one.notes}),
        "values": [round_number(one) for one in values] if any(one is not None for one in values) else None,
        "maps": shown,
    }
    if rule and (truth := rule.find_truth(entry)):
        item |= {"labels": truth.labels, "predicted": truth.predicted, "right": truth.right}
    peaks = [one["peak"] for one in shown if one.get("peak") and one["target"] == shown[0]["target"]]
    if look.size and len(peaks) > 1:
        item["apart"] = round_number(max(math.dist(p, q) for p in peaks for q in peaks) / math.hypot(*look.size))
    return {key: value for key, value in item.items() if value is not None and value not in ("", [], ())}


def _make_map(number: int, one: Outcome, size: tuple[int, int] | None) -> Item:
    made = {
        "variant": number,
        "target": f"{one.about} #{one.number}" if one.number else one.about,
        "method": one.method,
        "layer": one.layer,
        "score": round_number(one.score),
        "probability": round_number(one.probability),
        "peak": one.peak,
        "edge": None if size is None or one.peak is None else round_number(find_edge_distance(one.peak, size)),
        "low": round_number(one.low),
        "high": round_number(one.high),
        "error": one.error,
        # A record that somebody changed must not make the page load from elsewhere.
        "files": {name: write_url(file, one.name) for name, file in one.files.items() if is_plain_path(file)},
    }
    return {key: value for key, value in made.items() if value is not None}


def find_edge_distance(peak: Sequence[float], size: Sequence[int]) -> float:
    """Return how far a place is from the nearest edge of an image, as a share of the image's shorter side."""
    (x, y), (width, height) = peak, size
    return max(0.0, min(x, y, width - x, height - y) / min(width, height))


def write_url(file: str, name: str = "") -> str:
    """Return the address of a file from the output folder; ``*`` stands for the image's name at its beginning."""
    if name and file.startswith(name):
        return "*" + quote_path(file[len(name) :])
    return quote_path(file)


def quote_path(path: str) -> str:
    """Return a path as an address, in which bytes that are no UTF-8 are kept."""
    return quote(os.fsencode(path.replace(os.sep, "/")), safe="/")


def find_relative_url(path: Path, out: Path) -> str:
    """Return the address of a file from the output folder."""
    try:
        return quote_path(os.path.relpath(absolute(path), absolute(out)))
    except ValueError:  # on another drive of Windows
        return Path(absolute(path)).as_uri()


def round_number(number: float | None) -> float | None:
    """Round a number for people; None if it is not finite, which JSON does not know."""
    return None if number is None or not math.isfinite(number) else float(f"{number:.{DIGITS}g}")


def group_reason(error: str) -> str:
    """Return the reason of a failure without what differs from image to image: numbers and quoted names."""
    first = error.splitlines()[0] if error else ""
    return re.sub(r"\d+", "N", re.sub(r"'[^']*'", "'...'", first))
