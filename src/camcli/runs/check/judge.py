"""Judgement of rules, map by map: how many break each, and which break it most."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from camcli.runs.check import Rule
from camcli.targets.labels import normalize_name

NO_PREDICTION = "the model does not choose one class for the image, or an earlier version made the run"
# Maps that are named for each rule, those that break it most.
MAX_NAMED = 20
# Tolerance for the share of maps, which is a quotient of integers.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Subject:
    """Subject of a value: the image's name, its class by label and number, and the method and layer of the map."""

    name: str
    label: str = ""
    index: int | None = None
    method: str = ""
    layer: str = ""

    @property
    def title(self) -> str:
        """Image and class in words."""
        return f"{self.name} ({self.label})" if self.label else self.name

    @property
    def long_title(self) -> str:
        """Image, class, method and layer in words."""
        where = f" at {self.layer}" if self.layer else ""
        return f"{self.title}, {self.method}{where}" if self.method else self.title


@dataclass(frozen=True, slots=True)
class Value:
    """Value of a measure: a number, true or false; or None and the reason why it is undefined.

    ``is_exempt`` says that the limit does not apply, such as a similarity's to maps that are equal to the bit.
    """

    value: float | bool | None
    reason: str = ""
    is_exempt: bool = False

    def describe(self) -> str:
        """Describe it in a few characters."""
        if self.value is None:
            return f"undefined: {self.reason}"
        if isinstance(self.value, bool):
            return self.reason or str(self.value).lower()
        return f"{self.value:.6g}"


@dataclass(slots=True)
class Tally:
    """Count of a rule over the maps of one class, or of all.

    Attributes:
        rule: the rule.
        group: label of the class, if the rule is judged by classes.
        counted: number of maps that it is about.
        broken: number of those that break it, undefined ones among them.
        undefined: number of those without a value.
        several: maps are told apart by method or layer too.
    """

    rule: Rule
    group: str = ""
    counted: int = 0
    broken: int = 0
    undefined: int = 0
    several: bool = False
    _worst: list[tuple[float, int, Subject, Value]] = field(default_factory=list)

    def add(self, subject: Subject, value: Value) -> bool:
        """Add a map; return whether it holds the limit."""
        excess = 0.0 if value.is_exempt else self.rule.measure_excess(value.value)
        self.counted += 1
        self.undefined += value.value is None and not value.is_exempt
        if excess <= 0:
            return True
        self.broken += 1
        item = excess, -self.counted, subject, value  # of equal ones the first
        (heapq.heappush if len(self._worst) < MAX_NAMED else heapq.heappushpop)(self._worst, item)
        return False

    @property
    def is_empty(self) -> bool:
        """True if it is about no map, which is a fault but for failures, of which there may be none."""
        return not self.counted and self.rule.measure.name not in ("failed", "missing")

    @property
    def holds(self) -> bool:
        """True if the rule holds for its share of the maps, and is about any."""
        return not self.is_empty and self.counted - self.broken >= (self.rule.share - ROUNDING) * self.counted

    @property
    def title(self) -> str:
        """The rule in words, with the class that it was judged in."""
        return f"{self.rule.title}, class {self.group}" if self.group else self.rule.title

    def describe(self) -> str:
        """Describe what was found: ``holds for 18 of 20 maps (90%), asked for 95%``."""
        if self.is_empty:
            return "there is no map that it is about"
        if not self.counted:
            return "holds: there is none"
        good = self.counted - self.broken
        words = (
            f"holds for {good} of {self.counted} ({good / self.counted:.1%}), asked for {self.rule.share * 100:.4g}%"
        )
        return words + (f"; {self.undefined} undefined" if self.undefined else "")

    def list_worst(self) -> list[str]:
        """List the maps that break it most, worst first, with their values."""
        return [
            f"{subject.long_title if self.several else subject.title}: {value.describe()}"
            for _, _, subject, value in sorted(self._worst, reverse=True)
        ]


class Judge:
    """Judge of several rules.

    Args:
        rules: the rules.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self._tallies: list[dict[str, Tally]] = [{} if rule.per_class else {"": Tally(rule)} for rule in rules]
        self._kinds: set[tuple[str, str]] = set()

    def add(self, subject: Subject, values: Sequence[Value | None]) -> list[bool | None]:
        """Add a map with its value for each rule, None where the rule is not about it; return whether each holds."""
        if subject.method or subject.layer:  # which a failed image has not
            self._kinds.add((subject.method, subject.layer))
        return [
            self._find(number, subject).add(subject, value) if value and is_about(rule, subject) else None
            for number, (rule, value) in enumerate(zip(self.rules, values, strict=True))
        ]

    def _find(self, number: int, subject: Subject) -> Tally:
        group = subject.label if self.rules[number].per_class else ""
        return self._tallies[number].setdefault(group, Tally(self.rules[number], group))

    @property
    def tallies(self) -> list[Tally]:
        """The count of each rule; of one that is judged by classes, of each class, sorted."""
        several = len(self._kinds) > 1
        return [
            replace(tally, several=several)
            for rule, found in zip(self.rules, self._tallies, strict=True)
            for tally in ([found[name] for name in sorted(found)] or [Tally(rule)])
        ]


def is_about(rule: Rule, subject: Subject) -> bool:
    """Return whether a rule is about a map, by its class, method and layer."""
    return (
        (not rule.classes or any(_is_class(name, subject) for name in rule.classes))
        and rule.method in ("", subject.method)
        and rule.layer in ("", subject.layer)
    )


def _is_class(name: str, subject: Subject) -> bool:
    return normalize_name(name) in list_class_names(subject.label, subject.index)


def list_class_names(label: str, index: int | None) -> set[str]:
    """Return what a map's class may be called, normalized: its label, and its number as ``281`` or ``index:281``.

    A record has neither the synonyms nor the WordNet ids of its classes.
    """
    return {normalize_name(label), *(() if index is None else (str(index), f"index:{index}"))}
