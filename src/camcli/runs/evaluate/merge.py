"""Merge of the shards of an evaluation: one record, and the tables of all images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.base.errors import PictureError
from camcli.base.log import LOGGER
from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.records import EVALUATION
from camcli.runs.evaluate.tabulate import Tables, tabulate
from camcli.runs.record.ledger import Ledger
from camcli.runs.record.merge import Merged, merge_shards


@dataclass(frozen=True, slots=True)
class MergedEvaluation:
    """Findings of a merge.

    Attributes:
        merged: those of the record.
        tables: the tables; None if no image could be done.
    """

    merged: Merged
    tables: Tables | None


def merge_evaluation(path: Path, say: Callable[[str], None] = LOGGER.info) -> MergedEvaluation:
    """Merge the shards of an evaluation, and make the tables of all images that are done, and record them.

    Args:
        path: the output folder.
        say: told what is waited for.

    Raises:
        NothingFoundError: no run of ``camcli evaluate`` wrote there.
        RequestError: a run writes there now, or a ledger cannot be read.
        OutputError: the record cannot be written.
    """
    made: list[Tables] = []

    def add_tables(ledger: Ledger[Evaluation], facts: Mapping[str, Any]) -> dict[str, Any]:
        try:
            made.append(tabulate(ledger.iter_pictures(), facts.get("layers", ()), int(facts["job"]["seed"])))
        except PictureError:
            return {}
        return made[0].as_facts()

    merged = merge_shards(path, say, EVALUATION, add_tables)
    return MergedEvaluation(merged, made[0] if made else None)
