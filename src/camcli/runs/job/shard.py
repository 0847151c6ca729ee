"""Shards: the part of a job's images that one of several processes or machines does."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from camcli.base.errors import RequestError
from camcli.images.naming import NAME_MARK

SHARD_PATTERN = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)
ENVIRONMENT_PATTERN = re.compile(r"env(?:/(\d{1,6}))?", re.ASCII)
USAGE = "write --shard 3/16 for the third of 16, --shard env for the one that the scheduler names, or env/16"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a job's images.

    Attributes:
        number: which one, from 1 on.
        count: number of all shards.
        by_folder: all images of a folder belong to one shard.
    """

    number: int
    count: int
    by_folder: bool = False

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder_name(self) -> str:
        """Name of the folder of its records."""
        return f"{self.number:0{len(str(self.count))}}-of-{self.count}"

    def holds(self, name: str) -> bool:
        """Return whether an image belongs to this shard, by its output name alone, without a mark for a namesake."""
        key = name.rpartition("/")[0] if self.by_folder else NAME_MARK.sub("", name)
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, person=b"shard").digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """Scheduler that tells each of its tasks which one it is, by environment variables.

    Attributes:
        name: its name.
        index: variable with the task's index.
        count: variable with the number of tasks; empty if it has none.
        first: variable with the first task's index; empty where that is always 0.
        step: variable with the distance of two indices; empty where that is always 1.
    """

    name: str
    index: str
    count: str = ""
    first: str = ""
    step: str = ""


_SCHEDULERS = (
    _Scheduler("a SLURM array", *(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "STEP"))),
    _Scheduler("a Kubernetes indexed job", "JOB_COMPLETION_INDEX"),
    _Scheduler("torchrun", "RANK", "WORLD_SIZE"),
    _Scheduler("an AWS Batch array", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    _Scheduler("Google Batch", "BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
    _Scheduler("a Cloud Run job", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    _Scheduler("srun", "SLURM_PROCID", "SLURM_NTASKS"),
)


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard | None:
    """Parse a shard: ``3/16``, ``env`` or ``env/16``; None for an empty text.

    Raises:
        RequestError: it is none; or the environment names no task, or those of two schedulers.
    """
    if not text:
        return None
    if given := SHARD_PATTERN.fullmatch(text):
        number, count = map(int, given.groups())
        if not 1 <= number <= count:
            raise RequestError(f"there is no shard {number} of {count}", "shards are numbered from 1: 1/16 to 16/16")
        return Shard(number, count)
    if given := ENVIRONMENT_PATTERN.fullmatch(text):
        return _read_environment(int(given[1] or 0), environment)
    raise RequestError(f"shard cannot be {text!r}", USAGE)


def _read_environment(count: int, environment: Mapping[str, str]) -> Shard:
    """Return the shard that a scheduler names; ``count`` is the number of shards, 0 if the scheduler says it."""
    # A task that is the only one of its scheduler, as srun and torchrun have it inside an array, says nothing.
    there = [one for one in _SCHEDULERS if one.index in environment and environment.get(one.count) != "1"]
    there = there or [one for one in _SCHEDULERS if one.index in environment]
    if not there:
        known = ", ".join(one.index for one in _SCHEDULERS)
        raise RequestError(
            "--shard env finds no task in the environment: none of the variables of the schedulers it knows is set",
            f"name the shard: --shard 3/16. It reads {known}",
        )
    if len(there) > 1:
        raise RequestError(
            f"--shard env finds the tasks of {there[0].name} and of {there[1].name} in the environment "
            f"({', '.join(one.index for one in there)})",
            "name the shard: --shard 3/16, or --shard $RANK/16 with numbers from 1 on",
        )
    return _read_task(there[0], count, environment)


def _read_task(found: _Scheduler, wanted: int, environment: Mapping[str, str]) -> Shard:
    """Return the shard of a scheduler's task, one of ``wanted``, or of as many as it has tasks if that is 0."""
    index = _read_number(found.index, environment)
    if not wanted and found.count not in environment:
        raise RequestError(
            f"--shard env finds task {index} of {found.name}, which does not say how many there are",
            "name their number: --shard env/16",
        )
    count = _read_number(found.count, environment) if found.count in environment else wanted
    first = _read_number(found.first, environment) if found.first in environment else 0
    step = _read_number(found.step, environment) if found.step in environment else 1
    if wanted and found.first and wanted != count:  # which of the indices came first in the larger array is not known
        raise RequestError(
            f"--shard env/{wanted} finds task {index} of {found.name} of {count}",
            f"name the shard, from 1 on: --shard ${found.index}/{wanted}",
        )
    count = wanted or count
    number, between = divmod(index - first, step or 1)
    if between or not 0 <= number < count:
        raise RequestError(
            f"{found.index}={index} is not among the {count} shards of {found.name} that begins at {first}",
            "give its tasks indices without gaps, or name the shard: --shard 3/16",
        )
    return Shard(number + 1, count)


def _read_number(variable: str, environment: Mapping[str, str]) -> int:
    given = environment[variable]
    if not given.isdecimal():
        raise RequestError(f"the variable {variable} is {given!r}, and not a number", "name the shard: --shard 3/16")
    return int(given)
