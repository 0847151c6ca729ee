"""Run of a job on a Ray cluster: actors are started, given shards, watched, and replaced when they are lost."""

from __future__ import annotations

import importlib.util
import os
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from camcli.base import atomic
from camcli.base.errors import CamcliError, OutputError, RequestError
from camcli.base.words import first_line
from camcli.images.address import is_url
from camcli.runs.job.job import Job
from camcli.runs.record.inputs import Inputs
from camcli.runs.record.merge import merge_shards
from camcli.runs.record.outcome import Outcome

# Shards for each actor: more of them even out the actors' speeds, and cost reading the list of images once each.
SHARDS_PER_ACTOR = 4
# CPUs of an actor where none is said: a network uses no more of them well.
CPUS_PER_ACTOR = 4
# Actors that may be lost one after another without an image being done between them.
MAX_LOSSES = 3
POLL_SECONDS = 1.0


@dataclass(slots=True)
class _Task:
    """Shard that an actor does.

    Attributes:
        shard: the shard, such as ``3/16``.
        received: number of its images of which the driver knows.
        repeated: number of those that the actor reports again, since they were done before it began.
        actor: the actor.
        since: when it last reported.
    """

    shard: str
    received: int = 0
    repeated: int = 0
    actor: Any = None
    since: float = 0.0


class ClusterRun:
    """Run of a job by actors of a Ray cluster, as a ``with`` block that holds the connection to it.

    Without an address, and without ``RAY_ADDRESS``, a cluster of this machine is started with it.

    Exactly-once comes from the shards' ledgers: what an actor has recorded is not done again by the next one.
    Iterating does the work, yields each image's outcomes in no order, and merges the shards at the end.

    Args:
        job: the job.
        address: the cluster's address; empty for the one that the environment names, or one on this machine.
        actors: number of actors; 0 for as many as the cluster has room for.
        gpus_per_actor: GPUs of each, perhaps a fraction; negative for one where the cluster has GPUs.
        stall: seconds without an image done after which an actor is given up.

    Attributes:
        total: number of images.
        notes: notes for the user; grow while it goes on.
        about: what the first actor resolved, in words by kind; empty before.
        actors: number of actors.

    Raises:
        RequestError: Ray is not installed, or the job cannot be done in shards on several machines; on entering, there
            is no such cluster, or it has no room for the actors.
        NothingFoundError: there is no image.
    """

    def __init__(
        self, job: Job, address: str = "", actors: int = 0, gpus_per_actor: float = -1.0, stall: float = 900.0
    ) -> None:
        _check(job)
        self.job, self.actors = job, actors
        self._address, self._gpus_per_actor, self._stall = address, gpus_per_actor, stall
        self._inputs = Inputs(job)
        self.total = self._inputs.total or 0
        self.notes = self._inputs.note_unread()
        self.about: Mapping[str, str] = {}
        self._needs: dict[str, float] = {}
        self._waiting, self._running, self._idle = deque[_Task](), dict[Any, _Task](), list[Any]()
        self._losses = 0
        # A store is seen by all; of a folder this has to show.
        self._probe = None if is_url(job.out) else Path(job.out, f".camcli-{secrets.token_hex(8)}.tmp")

    def __enter__(self) -> ClusterRun:
        import ray

        self._ray = ray
        address = self._address or os.environ.get("RAY_ADDRESS")
        if not address:
            # Else Ray would write a token into the home folder, for a cluster that ends with this process.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            ray.init(
                # By itself Ray would join a cluster of this machine that a file names, also one that was killed.
                address=address or "local",
                logging_level="ERROR",
                log_to_driver=False,
                include_dashboard=None if address else False,
            )
        except Exception as error:
            raise RequestError(
                f"there is no Ray cluster {address or 'on this machine'}: {first_line(error)}",
                "start one with ray start --head, and name it by --address HOST:6379 or auto",
            ) from error
        try:
            self._choose_resources()
            self._write_probe()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._probe:
            self._probe.unlink(missing_ok=True)
        # Actors end with the connection, at once: what they have not recorded is done again.
        self._ray.shutdown()

    def __iter__(self) -> Iterator[list[Outcome]]:
        count = max(1, min(self.total, SHARDS_PER_ACTOR * self.actors))
        self._waiting = deque(_Task(f"{number}/{count}") for number in range(1, count + 1))
        while self._waiting or self._running:
            self._assign()
            ready, _ = self._ray.wait(list(self._running), timeout=POLL_SECONDS)
            for stream in ready:
                yield from self._take(stream)
            self._give_up_stalled()
        merge_shards(Path(self.job.out))

    def _write_probe(self) -> None:
        """Write a file by which actors see that the output folder is the same one."""
        if self._probe is None:
            return
        try:
            self._probe.parent.mkdir(parents=True, exist_ok=True)
            atomic.fill(self._probe, b"")
        except OSError as error:
            where = str(self._probe.parent)
            raise OutputError(f"the output folder {where!r} cannot be written to: {error.strerror}") from error

    def _assign(self) -> None:
        """Give waiting shards to actors, and start as many of these as the cluster has room for now."""
        wanted = min(self.actors, len(self._waiting) + len(self._running), self._count_room())
        while len(self._idle) + len(self._running) < wanted:
            self._idle.append(self._start_actor())
        while self._waiting and self._idle:
            task = self._waiting.popleft()
            task.actor, task.since, task.repeated = self._idle.pop(), time.monotonic(), task.received
            self._running[task.actor.run_shard.options(num_returns="streaming").remote(task.shard)] = task
        if not self._running:
            raise OutputError(
                f"no machine of the cluster has room for an actor any more ({self.describe_needs()})",
                "finished results are kept, and the same command continues",
            )

    def _take(self, stream: Any) -> Iterator[list[Outcome]]:
        """Take the next report of an actor; yield the outcomes that are new."""
        task = self._running[stream]
        try:
            progress = self._ray.get(next(stream))
        except StopIteration:
            del self._running[stream]
            self._idle.append(task.actor)
            return
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CamcliError):
                raise error.cause from None
            raise OutputError(f"shard {task.shard} ended by an error: {first_line(error.cause)}") from error
        except self._ray.exceptions.RayError as error:
            self._give_back(stream, f"an actor was lost: {first_line(error)}")
            return
        task.since = time.monotonic()
        self.about = self.about or progress.about or {}
        self.notes += [note for note in progress.notes if note not in self.notes]
        for outcomes in progress.outcomes:
            self._losses = 0
            if task.repeated:  # the images come in the same order, and these were reported by an actor before
                task.repeated -= 1
                continue
            task.received += 1
            yield outcomes

    def _give_up_stalled(self) -> None:
        """Give up actors that have not reported for too long: a lost one may keep its place without an error."""
        for stream, task in list(self._running.items()):
            if time.monotonic() - task.since > self._stall:
                with suppress(Exception):
                    self._ray.kill(task.actor)
                self._give_back(stream, f"shard {task.shard} reported nothing for {self._stall:g} s")

    def _give_back(self, stream: Any, reason: str) -> None:
        """Give an actor's shard back, to be done by another one."""
        self._losses += 1
        if self._losses > MAX_LOSSES:
            raise OutputError(
                f"{reason}; {self._losses} actors were lost one after another without an image done",
                "finished results are kept, and the same command continues; Ray's logs may say more",
            )
        self.notes.append(f"{reason}; its shard goes on in another one")
        self._waiting.appendleft(self._running.pop(stream))

    def _start_actor(self) -> Any:
        from camcli.runs.cluster.shard_actor import ShardActor

        remote = self._ray.remote(ShardActor).options(**self._needs, max_restarts=0)
        return remote.remote(self._make_options(), str(Path.cwd()), str(self._probe or ""))

    def _make_options(self) -> dict[str, Any]:
        """Return the job as actors do it."""
        device = self.job.device if self.job.device != "auto" else "cuda" if "num_gpus" in self._needs else "cpu"
        return replace(self.job, device=device).as_dict()

    def _choose_resources(self) -> None:
        """Choose each actor's CPUs and GPUs, and how many actors there are."""
        there = self._ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 1)), there.get("GPU", 0.0)
        each = self._gpus_per_actor
        if each < 0:
            each = 1.0 if gpus and self.job.device in ("auto", "cuda") else 0.0
        self.actors = self.actors or (int(gpus / each) if each else max(1, cpus // CPUS_PER_ACTOR))
        # As many CPUs for each as all actors find on the machines that there are.
        for number in range(max(1, cpus // max(1, self.actors)), 0, -1):
            self._needs = {"num_cpus": number, **({"num_gpus": each} if each else {})}
            if self._count_room() >= self.actors > 0:
                return
        raise RequestError(
            f"the cluster has {cpus} CPUs and {gpus:g} GPUs, which is no room for {self.actors} actors with "
            f"{each:g} GPUs each",
            "lower --actors or --gpus-per-actor",
        )

    def _count_room(self) -> int:
        """Count the actors that the machines that are there now have room for together."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        return sum(int(min(node.get(names[one], 0) / each for one, each in self._needs.items())) for node in nodes)

    def describe_needs(self) -> str:
        """Describe what each actor takes of a machine."""
        return f"each takes {self._needs['num_cpus']} CPUs and {self._needs.get('num_gpus', 0):g} GPUs"


def _check(job: Job) -> None:
    if importlib.util.find_spec("ray") is None:
        raise RequestError("--engine ray needs Ray, which is not installed", "pip install 'camcli-vision[ray]'")
    if not job.out:
        raise RequestError(
            "--engine ray needs an output folder that all machines see", "name it: --out FOLDER, or s3://..."
        )
    if job.shard:
        raise RequestError("--engine ray chooses the shards itself", "leave --shard out")
    if "-" in job.inputs:
        raise RequestError("names on standard input cannot be given to several machines", "write them to @list.txt")
    replace(job, shard="1/1")  # refuses what cannot be done in shards
