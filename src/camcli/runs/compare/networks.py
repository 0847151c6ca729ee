"""Networks of the passes, loaded when their turn comes."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from camcli.runs.job.job import Job
from camcli.runs.record.inputs import Inputs
from camcli.runs.worker.worker import Worker

# Networks of so many bytes in all are kept beside the next one, and not loaded again for the images.
KEPT_BYTES = 2**30


class Networks:
    """Networks of several jobs on the same images; those that are large are loaded one at a time.

    Args:
        jobs: the jobs.
        inputs: their images.

    Attributes:
        notes: notes of all of them for the user.
    """

    def __init__(self, jobs: Sequence[Job], inputs: Inputs) -> None:
        self._jobs, self._inputs = jobs, inputs
        self._workers: dict[int, Worker] = {}
        self.notes: list[str] = []

    @property
    def order(self) -> list[int]:
        """Numbers of the jobs, those of networks that are loaded first."""
        return sorted(range(len(self._jobs)), key=lambda number: number not in self._workers)

    def load(self, number: int) -> Worker:
        """Return the resolved job of this number; its network is loaded if need be.

        Raises:
            RequestError: the job is invalid.
        """
        if number not in self._workers:
            if sum(map(_count_bytes, self._workers.values())) > KEPT_BYTES:
                self.clear()
                gc.collect()  # a network holds itself in circles
            self._workers[number] = Worker(self._jobs[number], self._inputs.source_factory, self._inputs.total)
        worker = self._workers[number]
        self.add_notes(worker)
        return worker

    def add_notes(self, worker: Worker) -> None:
        """Add what a network noted since."""
        self.notes += [note for note in worker.notes if note not in self.notes]

    def clear(self) -> None:
        """Drop the networks that are loaded."""
        self._workers.clear()


def _count_bytes(worker: Worker) -> int:
    """Return the size of a network's parameters."""
    return sum(one.numel() * one.element_size() for one in worker.network.module.parameters())
