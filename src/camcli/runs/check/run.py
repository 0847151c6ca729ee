"""Check of a finished run by rules."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.base.errors import NothingFoundError
from camcli.images.address import show_path
from camcli.runs.check import make_rule
from camcli.runs.check.judge import Judge, Subject, Tally, Value
from camcli.runs.check.measures import BoundRule, LabelledBoxes, MapMeasures, bind_rule
from camcli.runs.check.rules import RuleFile
from camcli.runs.record.finished import RecordedImage, RecordedMap
from camcli.runs.record.golden import open_run
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.rows import ColumnType
from camcli.runs.worker.threads import map_ahead

# Threads that read and measure images.
THREADS = min(8, os.cpu_count() or 1)
COLUMNS: Mapping[str, ColumnType] = {
    **dict.fromkeys(("name", "source", "label", "method", "layer", "rule", "measure"), "text"),
    "value": "number",
    "holds": "truth",
    "reason": "text",
}


class RunCheck:
    """Check of a run: iterate over it to measure the maps, then read :attr:`tallies`.

    Args:
        path: the output folder, its address, or a golden run.
        rules: the rules. Failed images break one of its own unless these have one on failures.

    Attributes:
        total: number of images that the run recorded; None if it is not known.
        notes: notes for the user.

    Raises:
        NothingFoundError: no run wrote there.
        RequestError: a setting of a rule is wrong.
    """

    def __init__(self, path: Path, rules: RuleFile) -> None:
        self._run = open_run(path)
        facts = self._run.facts
        job: Mapping[str, Any] = facts.get("job") or {}
        self.notes: list[str] = []
        boxes = None
        if rules.boxes is not None:
            folders = [Path(one) for one in job.get("inputs") or () if Path(one).is_dir()]
            boxes = LabelledBoxes(rules.boxes, folders)
            if unmatched := boxes.boxes.describe_unmatched():
                self.notes.append(f"{rules.boxes} names {unmatched}, which is not here")
        every = [*rules.rules]
        if all(rule.measure.name != "failed" for rule in every):
            every.append(make_rule("check", "failed", wanted=False, name="no image failed"))
        self._bound = [bind_rule(rule, rules.path.parent, boxes) for rule in every]
        self._judge = Judge(every)
        self.total: int | None = facts.get("images")
        self._seen = self._untrained = 0

    def __iter__(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield the rows of each image: a row for each map and rule."""
        with self._run as run:
            for found in map_ahead(self._measure, run.iter_images(), THREADS, 4 * THREADS):
                self._seen += 1
                yield [row for recorded, values in found for row in self._add(recorded.outcome, values)]
        self._conclude()

    @property
    def tallies(self) -> list[Tally]:
        """The count of each rule; of a run that is not complete also of the images that it recorded."""
        missing = (self.total or 0) - self._seen
        if missing <= 0:
            return self._judge.tallies
        rule = make_rule("check", "failed", wanted=False, name="every image is recorded")
        return [*self._judge.tallies, Tally(rule, counted=self._seen + missing, broken=missing)]

    def _measure(self, image: RecordedImage) -> list[tuple[RecordedMap, list[Value | None]]]:
        return [(recorded, _measure_map(recorded, self._bound)) for recorded in image]

    def _add(self, outcome: Outcome, values: Sequence[Value | None]) -> Iterator[Mapping[str, Any]]:
        subject = make_subject(outcome)
        self._untrained += outcome.untrained
        for rule, value, holds in zip(self._judge.rules, values, self._judge.add(subject, values), strict=True):
            if value is not None and holds is not None:
                yield {
                    "name": outcome.name,
                    "source": outcome.source,
                    "label": outcome.label,
                    "method": outcome.method,
                    "layer": outcome.layer,
                    "rule": rule.title,
                    "measure": rule.measure.name,
                    "value": value.value,
                    "holds": holds,
                    "reason": value.reason,
                }

    def _conclude(self) -> None:
        shown = show_path(self._run.path)
        if not self._seen:
            raise NothingFoundError(f"the run in {shown!r} recorded no image", "run it first")
        if self._untrained:
            self.notes.append(f"the weights of {shown} are random: its maps mean nothing")
        if self.total is not None and self._seen < self.total:
            self.notes.append(f"{shown} is not complete: {self._seen} of its {self.total} images are recorded")


def _measure_map(recorded: RecordedMap, rules: Sequence[BoundRule]) -> list[Value | None]:
    measures = MapMeasures(recorded)
    return [rule.measure(measures) for rule in rules]


def make_subject(outcome: Outcome) -> Subject:
    """Return what a line's values are of."""
    return Subject(outcome.name, outcome.label or "", outcome.index, outcome.method or "", outcome.layer or "")
