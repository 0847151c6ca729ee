"""Status of an output folder: how many images are done, failed or missing, in all and by shard."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from camcli.images.own_outputs import find_line_records, find_shard_folders
from camcli.runs.record import provenance
from camcli.runs.record.earlier import has_all_files
from camcli.runs.record.heads import Block, Worth, find_worth
from camcli.runs.record.lines import LineFile, hash_text
from camcli.runs.record.provenance import list_jobs
from camcli.runs.record.records import RUN, Records
from camcli.runs.record.view import View, look_at

# Stands for the reason of an image that has only results of other jobs.
OTHER_JOB = "another job"
OTHER_WORTH = -1  # less than any result or failure of the job's own
ENDED = ("finished", "merged")
FILES_GONE = "a file of the result is missing, or has another size than was recorded"


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """Status of one shard's last run.

    Attributes:
        name: the shard, such as ``03-of-16``.
        images: number of its images; None if it is not known.
        recorded: number of images in its ledger, which is empty once it is merged.
        state: ``running``, ``finished``, ``merged``, ``stopped`` (to be run again), or ``not begun``.
        rate: images a second of that run; None if it is not known.
    """

    name: str
    images: int | None
    recorded: int
    state: str
    rate: float | None


@dataclass(slots=True)
class Status:
    """Status of an output folder.

    Attributes:
        images: number of images of the job; None if they came from standard input.
        done, failed: numbers of images whose lines that count are a whole result, or are not.
        others: number of images that have results of other jobs.
        reasons: numbers of failed images by reason.
        examples: an image for each reason.
        shards: the shards, if the job was run in shards.
    """

    images: int | None
    done: int = 0
    failed: int = 0
    others: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    shards: list[ShardStatus] = field(default_factory=list)

    @property
    def missing(self) -> int | None:
        """Number of images without an outcome; None if the number of all is not known."""
        return None if self.images is None else max(0, self.images - self.done - self.failed)

    @property
    def rate(self) -> float:
        """Images a second of all shards that run now."""
        return sum((one.rate or 0.0 for one in self.shards if one.state == "running"), 0.0)

    @property
    def is_complete(self) -> bool:
        """True if every image is done, as far as their number is known."""
        if self.failed or self.missing:
            return False
        return self.images is not None or all(one.state in ENDED for one in self.shards)


def read_status(out: Path, records: Records[Any] = RUN) -> Status:
    """Read the status of an output folder, which is neither locked nor changed.

    Raises:
        NothingFoundError: no run wrote there.
        RequestError: a ledger cannot be read.
        OutputError: the store that the folder is in cannot be read.
    """
    with look_at(out) as view:
        return count_status(view, records.read(out), records)


def count_status(view: View, record: Mapping[str, Any], records: Records[Any] = RUN) -> Status:
    """Count the images of an output folder by their state.

    Args:
        view: the folder.
        record: what the last run recorded in it.
        records: the records that are looked at.

    Raises:
        RequestError: a ledger cannot be read.
        OutputError: the store that the folder is in cannot be read.
    """
    status = Status(record.get("images"))
    own = list_jobs(record)
    # From a hashed name to the worth and run of the lines that count, and the reason why it is not done.
    states: dict[int, tuple[int, str, str]] = {}
    counts: Counter[Path] = Counter()
    for file in find_line_records(view.path, records.lines):
        names = set()
        for _, block in LineFile(file, records.line_type).iter_blocks():
            key, run = hash_text(block[0].name), sys.intern(block[0].run)
            names.add(key)
            own_block = block[0].job in own
            worth = int(find_worth(block)) if own_block else OTHER_WORTH
            if worth == Worth.CUT or (worth, run) < states.get(key, (worth, run, ""))[:2]:
                continue
            reason = _find_reason(block, view.find_size) if own_block else OTHER_JOB
            states[key] = worth, run, reason
            status.examples.setdefault(reason, block[0].name)
        counts[file.parent] = len(names)
    reasons = Counter(reason for _, _, reason in states.values())
    status.done, status.others = reasons.pop("", 0), reasons.pop(OTHER_JOB, 0)
    status.failed = reasons.total()
    status.reasons = dict(reasons.most_common())
    status.examples = {reason: status.examples[reason] for reason in reasons}
    status.shards = list(_list_shards(view, counts, records))
    return status


def _find_reason(block: Block, find_size: Callable[[str], int]) -> str:
    """Return why an image is not done; empty if it is."""
    for head in block:
        if head.failed:
            # Numbers differ from image to image, where the reason is the same.
            return re.sub(r"\d+", "N", json.loads(head.error).splitlines()[0])
    return "" if has_all_files(block, find_size) else FILES_GONE


def _list_shards(view: View, counts: Mapping[Path, int], records: Records[Any]) -> Iterator[ShardStatus]:
    folders = {folder.name: folder for folder in find_shard_folders(view.path)}
    numbers = {int(name.partition("-of-")[2]) for name in folders}
    for count in sorted(numbers):
        for number in range(1, count + 1):
            name = f"{number:0{len(str(count))}}-of-{count}"
            if name in folders:
                yield _read_shard(folders[name], counts[folders[name]], view.is_locked(folders[name]), records)
            else:
                yield ShardStatus(name, None, 0, "not begun", None)


def _read_shard(folder: Path, recorded: int, running: bool, records: Records[Any]) -> ShardStatus:
    record = provenance.read(folder, records.facts)
    finished = "finished" in record and not running
    ended = "finished" if (folder / records.lines).exists() else "merged"
    state = "running" if running else ended if finished else "stopped"
    try:
        began = datetime.fromisoformat(record["began"]).timestamp()
        end = datetime.fromisoformat(record["finished"]).timestamp() if finished else time.time()
    except (KeyError, ValueError, TypeError):
        return ShardStatus(folder.name, None, recorded, state, None)
    done = record["pictures"] - record["skipped"] if finished else recorded
    rate = done / (end - began) if end > began and (finished or running) else None
    return ShardStatus(folder.name, record.get("images_of_shard"), recorded, state, rate)
