"""Records of a job in an output folder: which files they are, and whose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from camcli.images.own_outputs import find_shard_folders
from camcli.runs.record import ledger, provenance
from camcli.runs.record.lines import R
from camcli.runs.record.outcome import Outcome
from camcli.runs.record.provenance import list_jobs

# What a record says of one run of a shard, and not of the job.
_OF_ONE_SHARD = ("run", "began", "finished", "shard", "images_of_shard", "pictures", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Records(Generic[R]):
    """Records that a command writes.

    Attributes:
        command: the command.
        line_type: type of the lines, a dataclass.
        lines: file of the lines.
        facts: file of what the last run recorded of itself.
    """

    command: str
    line_type: Callable[..., R]
    lines: str
    facts: str

    def read(self, path: Path) -> dict[str, Any]:
        """Read what the last run recorded in an output folder.

        Raises:
            NothingFoundError: none wrote there.
        """
        return provenance.read_record(path, self.facts, self.command)

    def add_facts_of_shards(self, path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record with what its shards recorded of the job: model, layers, versions, and so on.

        Args:
            path: local folder of the records.
            record: that of the folder, which the first shard made before it knew more.
        """
        if "model" in record:
            return {**record}
        found = (provenance.read(folder, self.facts) for folder in find_shard_folders(path))
        own = [one for one in found if one.get("fingerprint") in list_jobs(record)]
        last = max(own, key=lambda one: str(one.get("began")), default={})
        return {name: value for name, value in {**last, **record}.items() if name not in _OF_ONE_SHARD}


RUN = Records("camcli explain", Outcome, ledger.FILE, provenance.FILE)
