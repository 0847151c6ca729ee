"""Merge of the shards in an output folder: one ledger, and one table for other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.base.log import LOGGER
from camcli.runs.record import ledger, provenance
from camcli.runs.record.ledger import Ledger
from camcli.runs.record.lines import LineFile
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.provenance import list_jobs, read_record
from camcli.runs.record.records import RUN, Records
from camcli.runs.record.status import Status, count_status
from camcli.runs.record.view import View, look_at


@dataclass(frozen=True, slots=True)
class Merged:
    """Findings of a merge.

    Attributes:
        status: the folder's status after it.
        replaced: number of results that later ones of the same images replaced.
    """

    status: Status
    replaced: int


def merge_shards(
    path: Path,
    say: Callable[[str], None] = LOGGER.info,
    records: Records[Any] = RUN,
    add: Callable[[Ledger[Any], Mapping[str, Any]], Mapping[str, Any]] = lambda ledger, facts: {},
) -> Merged:
    """Move the lines of all shards in an output folder to its ledger, and drop those that later ones replace.

    Args:
        path: the output folder.
        say: told what is waited for.
        records: the records that are merged.
        add: from the ledger, and what is recorded of the job, to more to record.

    Raises:
        NothingFoundError: no run wrote there.
        RequestError: a run writes there now, or a ledger cannot be read.
        OutputError: the ledger cannot be written.
    """
    record = records.read(path)
    job, *accepted = list_jobs(record)
    with Ledger(path, job, records.line_type, file=records.lines, accepted=lambda folder: accepted, say=say) as opened:
        opened.tidy()
        replaced = opened.replaced
        folder = opened.folder
        status = count_status(View(folder.path, folder.find_size, lambda records: False), record, records)
        facts = records.add_facts_of_shards(folder.path, record)
        more = dict(add(opened, facts))
        if status.is_complete and "finished" not in record:
            more["finished"] = provenance.format_now()
        if more or facts != record:
            provenance.write(folder, {**facts, **more}, records.facts)
    return Merged(status, replaced)


def iter_outcomes(path: Path) -> Iterator[Outcome]:
    """Yield the outcomes of a job in its output folder, once its shards are merged."""
    jobs = list_jobs(read_record(path))
    with look_at(path) as view:
        lines = LineFile(view.path / ledger.FILE, Outcome)
        for _, block in lines.iter_blocks():
            yield from (lines.parse(head) for head in block if head.job in jobs)
