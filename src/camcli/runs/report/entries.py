"""The images of a run with their maps, read from its records one at a time."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camcli.images.own_outputs import find_line_records
from camcli.runs.record import ledger
from camcli.runs.record.heads import Worth, find_worth
from camcli.runs.record.lines import LineFile, hash_text
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.view import View
from camcli.targets import AUTO

# Number of a file, and the byte where lines begin in it.
Place = tuple[int, int]
# Targets that are an image's label, and the one that is what the model says.
LABEL_TARGETS, PREDICTED = frozenset({"folder", "dataset"}), "predicted"


@dataclass(frozen=True, slots=True)
class Entry:
    """An image with its maps.

    Attributes:
        outcomes: its lines of one run: those that count (:func:`camcli.runs.record.heads.find_worth`).
        later_error: why a later run failed on it; empty if none did.
    """

    outcomes: Sequence[Outcome]
    later_error: str = ""

    @property
    def error(self) -> str:
        """Reason why it has no map, or not all of them; empty if it has all."""
        return next((one.error for one in self.outcomes if one.error), "")


class Entries:
    """The images of a job in an output folder, in the order in which they were recorded first.

    Memory: a few numbers an image. The folder may be written to meanwhile.

    Args:
        view: the folder.
        jobs: fingerprints of the jobs whose lines count.

    Attributes:
        others: number of lines of other jobs, which are left out.

    Raises:
        RequestError: a record cannot be read.
    """

    def __init__(self, view: View, jobs: Container[str]) -> None:
        self.others = 0
        self._files = [LineFile(path, Outcome) for path in find_line_records(view.path, ledger.FILE)]
        # From an image to the worth and run of the lines that count and where they begin (file and byte), then to the
        # last run and where its lines begin.
        self._places: dict[int, tuple[int, str, Place, str, Place]] = {}
        for number, file in enumerate(self._files):
            for offset, block in file.iter_blocks():
                if block[0].job not in jobs:
                    self.others += len(block)
                elif (worth := find_worth(block)) > Worth.CUT:
                    self._add(hash_text(block[0].name), int(worth), sys.intern(block[0].run), (number, offset))

    def _add(self, key: int, worth: int, run: str, place: Place) -> None:
        known = self._places.get(key, (worth, run, place, run, place))
        best = (worth, run, place) if (worth, run) >= known[:2] else known[:3]
        last = (run, place) if run >= known[3] else known[3:]
        self._places[key] = (*best, *last)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Entry]:
        try:
            for _, _, place, _, last in self._places.values():
                later = "" if last == place else next((one.error or "" for one in self._read(last) if one.error), "")
                yield Entry(self._read(place), later)
        finally:
            for file in self._files:
                file.close()

    def _read(self, place: tuple[int, int]) -> list[Outcome]:
        file = self._files[place[0]]
        return [file.parse(head) for head in file.read_block(place[1])]


@dataclass(frozen=True, slots=True)
class Truth:
    """Labels of an image, and whether the model predicts one of them.

    Attributes:
        labels: the classes that it is labelled as.
        predicted: the class that the model predicts.
        right: it is one of them.
    """

    labels: tuple[str, ...]
    predicted: str
    right: bool


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Rule that tells an image's labels from the targets that were explained.

    Attributes:
        beside_predicted: the predicted class was explained too: another class is the label, if there is one.
    """

    beside_predicted: bool

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LabelRule | None:
        """Return the rule of a recorded job; None if its targets are no labels."""
        job = record.get("job") or {}
        words = {str(word).partition(":")[0] for word in job.get("target") or ()} - {AUTO}
        if not (job.get("targets") or words & LABEL_TARGETS) or words - LABEL_TARGETS - {PREDICTED}:
            return None
        return cls(PREDICTED in words)

    def find_truth(self, entry: Entry) -> Truth | None:
        """Return what an image is labelled as; None if that, or what is predicted, is not known.

        A map that failed does not say of which class it was, which may be a label.
        """
        if any(one.error and one.index is None for one in entry.outcomes):
            return None
        known = [one for one in entry.outcomes if one.index is not None and one.predicted is not None]
        if not known:
            return None
        predicted = known[0].predicted
        labels = {one.index: name_class(one.index, one.label) for one in known}
        if self.beside_predicted:
            labels = {index: name for index, name in labels.items() if index != predicted} or labels
        return Truth(tuple(labels.values()), name_class(predicted, known[0].predicted_label), predicted in labels)


def name_class(index: int | None, label: str | None) -> str:
    """Return the name of a class as the page has it: ``281 tabby``."""
    return " ".join(filter(None, ["" if index is None else str(index), label or ""]))
