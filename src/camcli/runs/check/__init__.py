"""Rules on finished runs: what can be measured of a map and of a change, and what a rule asks of it.

A rule is a table in a TOML file, ``[[check]]`` for one run and ``[[diff]]`` for the change between two. It names a
measure and a limit, and may say for what share of the maps, of which class, it must hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from camcli.base.signature import read_option_names, read_positional_names
from camcli.metrics import METRICS

RuleKind = Literal["check", "diff"]

# Width of the border, as a share of the shorter side of what the model sees of the image.
BORDER_WIDTH = 0.1


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that a rule can limit.

    Attributes:
        name: its name in rules.
        about: what it is, in one line.
        truth: True if it is true or false, and the limit is ``is``; else it is a number, with ``min`` and ``max``.
        settings: further keys that its rules may have.
        needs_boxes: it compares maps with the boxes of objects.
        change: it may have either sign, and its size is limited.
    """

    name: str
    about: str
    truth: bool = False
    settings: tuple[str, ...] = ()
    needs_boxes: bool = False
    change: bool = False


_REGION = ("region", "mask")
_OF_MAPS = (
    Measure("energy-in-region", "share of the map's positive values in a part of the image", settings=_REGION),
    Measure(
        "energy-in-border", "share of the map's positive values at the border of what is seen", settings=("width",)
    ),
    Measure("peak-in-region", "the map's peak lies in a part of the image", truth=True, settings=_REGION),
    Measure("constant", "the map has one value everywhere", truth=True),
    Measure("predicted", "the model predicts the class that is explained", truth=True),
    Measure("probability", "probability of the class that is explained"),
    Measure("score", "the number that is explained"),
    Measure("failed", "the map could not be made", truth=True),
)
_OF_CHANGES = (
    Measure("pearson", "Pearson's r of the two maps"),
    Measure("ssim", "SSIM, the structural similarity, of the two maps"),
    Measure("overlap", "overlap of the top 20% of the two maps: intersection over union"),
    Measure("moved", "how far the peak moved, as a share of the image's diagonal"),
    Measure("moved-pixels", "how far the peak moved, in pixels of the image"),
    Measure("changed", "the model predicts another class", truth=True),
    Measure("score-change", "change of the score, up or down", change=True),
    Measure("probability-change", "change of the probability, up or down", change=True),
    Measure("missing", "a map of the first run is not in the second, or failed there", truth=True),
)


def find_measures(kind: RuleKind) -> dict[str, Measure]:
    """Return the measures that rules of a kind may name: for one run also all metrics that need no network."""
    if kind == "diff":
        return {one.name: one for one in _OF_CHANGES}
    metrics = {}
    for row in METRICS.rows:
        given = read_positional_names(METRICS.module_path(row), row.function_name) or ()
        if given and {*given} <= {"maps", "region"}:
            names = read_option_names(METRICS.module_path(row), row.function_name) or ()
            free = tuple(name for name in names if name not in row.settings)
            metrics[row.name] = Measure(row.name, row.summary, settings=free, needs_boxes="region" in given)
    return {**metrics, **{one.name: one for one in _OF_MAPS}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Limit of a measure, and the maps that it is for.

    Attributes:
        measure: the measure.
        name: name of the rule; empty for one made of the rest.
        least, most: limits of a number; None for none.
        wanted: what a true-or-false measure must be.
        share: share of the maps for which it must hold.
        classes: labels of the classes that it is about; empty for all.
        per_class: it must hold in each class by itself.
        method, layer: those that it is about; empty for all.
        settings: values of the measure's settings.
        where: where it was written.
    """

    measure: Measure
    name: str = ""
    least: float | None = None
    most: float | None = None
    wanted: bool | None = None
    share: float = 1.0
    classes: tuple[str, ...] = ()
    per_class: bool = False
    method: str = ""
    layer: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def title(self) -> str:
        """Its name; without one what it asks for, such as ``pearson >= 0.9``."""
        return self.name or self.describe()

    def describe(self) -> str:
        """Describe what it asks for: ``0.1 <= effective-area <= 0.6 for 95%, class tabby``."""
        words = self.measure.name
        if self.measure.truth:
            words = f"{words} is {str(self.wanted).lower()}"
        elif self.least is not None and self.most is not None:
            words = f"{self.least:g} <= {words} <= {self.most:g}"
        else:
            words += f" >= {self.least:g}" if self.least is not None else f" <= {self.most:g}"
        words += "" if self.share == 1 else f" for {self.share * 100:.4g}%"
        given = {"class": ", ".join(self.classes), "method": self.method, "layer": self.layer}
        return ", ".join([words, *(f"{name} {value}" for name, value in given.items() if value)])

    def measure_excess(self, value: float | bool | None) -> float:
        """Return by how much a value breaks the limit; 0 or less if it does not, and infinity if there is no value."""
        if value is None:
            return float("inf")
        if self.measure.truth:
            return float(value is not self.wanted)
        size = abs(value) if self.measure.change else value
        below = -float("inf") if self.least is None else self.least - size
        above = -float("inf") if self.most is None else size - self.most
        return max(below, above)


def make_rule(kind: RuleKind, measure: str, **words: Any) -> Rule:
    """Make a rule that no file has, by the name of its measure."""
    return Rule(measure=find_measures(kind)[measure], **words)
