"""Comparison of two finished runs, map by map, and its judgement by rules."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from camcli.base import atomic
from camcli.base.errors import NothingFoundError, OutputError, RequestError
from camcli.images.address import show_path, to_url
from camcli.runs.check import Rule, make_rule
from camcli.runs.check.judge import NO_PREDICTION, Judge, Subject, Tally, Value
from camcli.runs.diff import MapChange
from camcli.runs.diff.compare import compare_pair
from camcli.runs.diff.jobs import list_differences
from camcli.runs.diff.pairs import Names, Pair, pair_images, pair_maps
from camcli.runs.diff.sheet import SheetRun, draw_sheet
from camcli.runs.diff.summary import ChangeCounts, Quantiles, Worst
from camcli.runs.record.finished import RecordedImage
from camcli.runs.record.golden import open_run
from camcli.runs.worker.threads import map_ahead

# Threads that read and compare maps.
THREADS = min(8, os.cpu_count() or 1)


class RunDiff:
    """Comparison of a new run with a base: iterate over it to compare the maps, then read what was found.

    Used as a ``with`` block. Both runs are read image by image, sorted by name; neither is changed.

    Args:
        base, new: output folders, their addresses, or golden runs.
        rules: the rules. If there are any, maps of the base that the new run does not have break one of its own, unless
            these have one on missing maps.
        worst: number of maps that are kept as those that changed most.

    Attributes:
        total: number of images of the larger run; None if it is not known.
        differences: what differs between the jobs: name, and both values.
        counts: numbers of maps.
        notes: notes for the user.

    Raises:
        NothingFoundError: no run wrote to one of the folders.
    """

    def __init__(self, base: Path, new: Path, rules: Sequence[Rule], worst: int) -> None:
        self._base, self._new = open_run(base), open_run(new)
        self.differences = list_differences(self._base.facts, self._new.facts)
        if rules and all(rule.measure.name != "missing" for rule in rules):
            rules = [*rules, make_rule("diff", "missing", wanted=False, name="no map is missing")]
        self._judge = Judge(rules)
        totals = [run.facts.get("images") for run in (self._base, self._new)]
        self.total: int | None = None if None in totals else max(map(int, filter(None, totals)), default=0)
        self.counts = ChangeCounts()
        self.notes: list[str] = []
        self._untrained = set[str]()
        self._quantiles, self._worst = Quantiles(), Worst[Pair](worst)
        self._stack = ExitStack()

    def __enter__(self) -> RunDiff:
        self._stack.enter_context(closing(self._quantiles))
        for run in (self._base, self._new):
            self._stack.enter_context(run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield the rows of each image, a row for each map.

        Raises:
            RequestError: a map was not kept as an array, or a record cannot be read.
        """
        seen = {"base": 0, "new": 0, "both": 0}
        names = Names.from_facts(self._base.facts, self._new.facts)

        def compare(images: tuple[RecordedImage, RecordedImage]) -> list[tuple[MapChange, Pair]]:
            return [(compare_pair(pair), pair) for pair in pair_maps(*images, names)]

        for changes in map_ahead(compare, self._count_images(seen), THREADS, 4 * THREADS):
            yield [self._add(change, pair) for change, pair in changes]
            self._quantiles.add([change for change, _ in changes])
        self._conclude(seen)

    @property
    def tallies(self) -> list[Tally]:
        """The count of each rule."""
        return self._judge.tallies

    @property
    def worst(self) -> list[tuple[MapChange, Pair]]:
        """The maps that changed most, worst first."""
        return self._worst.sort()

    def compute_quantiles(self) -> dict[str, tuple[int, list[float]]]:
        """Return for each measure how many maps have it, and its quantiles."""
        return self._quantiles.compute()

    def write_sheet(self, path: Path) -> None:
        """Draw the maps that changed most.

        Raises:
            OutputError: the file cannot be written.
        """
        runs = [
            SheetRun(show_path(run.path), run.facts, None if to_url(run.path) else run.path)
            for run in (self._base, self._new)
        ]
        try:
            atomic.write(path.absolute(), draw_sheet(self.worst, *runs))
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error

    def _count_images(self, seen: dict[str, int]) -> Iterator[tuple[RecordedImage, RecordedImage]]:
        for base, new in pair_images(self._base.iter_images(), self._new.iter_images()):
            seen["base"] += bool(base)
            seen["new"] += bool(new)
            seen["both"] += bool(base and new)
            yield base, new

    def _add(self, change: MapChange, pair: Pair) -> Mapping[str, Any]:
        self.counts.add(change)
        for run, one in zip((self._base, self._new), pair, strict=True):
            if one is not None and one.outcome.untrained:
                self._untrained.add(show_path(run.path))
        if change.there != "none":
            self._worst.add(change, pair)
        outcomes = [one.outcome for one in pair if one is not None]
        explained = next((one for one in outcomes if one.label), outcomes[0])  # the base's class, if it has one
        subject = Subject(change.name, explained.label or "", explained.index, change.method, change.layer)
        self._judge.add(subject, [find_value(rule, change) for rule in self._judge.rules])
        return change.as_row()

    def _conclude(self, seen: Mapping[str, int]) -> None:
        for name, run in (("base", self._base), ("new", self._new)):
            total, shown = run.facts.get("images"), show_path(run.path)
            if not seen[name]:
                raise NothingFoundError(f"the run in {shown!r} recorded no image", "run it first")
            if total is not None and seen[name] < total:
                self.notes.append(f"{shown} is not complete: {seen[name]} of its {total} images are recorded")
        self.notes += [f"the weights of {name} are random: its maps mean nothing" for name in sorted(self._untrained)]
        if not seen["both"]:
            raise RequestError(
                "the two runs have no image in common",
                "images are matched by their names below the output folder: run both with the same inputs and --root",
            )
        if not self.counts.both and self.counts.base and self.counts.new:
            self.notes.append("no maps are of the same method and layer in both runs, so none could be compared")


def find_value(rule: Rule, change: MapChange) -> Value | None:
    """Return the value of a rule's measure for a map; None where the rule is not about it."""
    name = rule.measure.name
    if name == "missing":
        if change.there not in ("both", "base"):
            return None
        return Value(change.there == "base", "; ".join(change.reasons))
    if change.there != "both":
        return None
    if name == "changed":
        reason = NO_PREDICTION if change.changed is None else f"{change.base_predicted} -> {change.new_predicted}"
        return Value(change.changed, reason)
    value = getattr(change, name.replace("-", "_"))
    # Maps that are equal to the bit did not change, even where their similarity is undefined.
    exempt = bool(change.equal) and name in ("pearson", "ssim", "overlap", "moved", "moved-pixels")
    return Value(value, "" if value is not None else "; ".join(change.reasons) or "there is no such number", exempt)
