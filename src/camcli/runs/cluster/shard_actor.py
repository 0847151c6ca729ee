"""What runs in an actor: shards of one job, one after another, with a network that is loaded once."""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camcli.base.errors import RequestError
from camcli.images.address import is_url
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Outcome
from camcli.runs.worker.worker import Worker


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a shard, as an actor reports it.

    Attributes:
        outcomes: outcomes of images, in the shard's order; empty ones of those that were done before.
        about: what was resolved, in words by kind, with the first report.
        notes: notes for the user, with the last report.
    """

    outcomes: tuple[list[Outcome], ...] = ()
    about: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


class ShardActor:
    """Worker process that does shards of one job.

    Args:
        options: the job, as ``Job.as_dict`` gives it.
        folder: the folder that its paths are relative to.
        probe: file in the output folder that the driver wrote; empty if that is in a store.
    """

    def __init__(self, options: Mapping[str, Any], folder: str, probe: str) -> None:
        self._job = Job(**options)
        self._worker: Worker | None = None
        warnings.filterwarnings("ignore", module="PIL")
        logging.getLogger("camcli").addHandler(logging.NullHandler())
        self._missing = ""
        if Path(folder).is_dir():
            os.chdir(folder)
            self._missing = "" if not probe or Path(probe).exists() else str(Path(probe).parent)
        elif probe or not all(map(is_url, self._job.inputs)):
            self._missing = folder

    def run_shard(self, shard: str) -> Iterator[Progress]:
        """Do a shard, from where it was left; yield its progress image by image.

        Raises:
            RequestError: this machine does not see the driver's folders, or the job is invalid.
        """
        if self._missing:
            raise RequestError(
                f"the machine {platform.node()} does not see the folder {self._missing!r} of the one that started it",
                "put images, weights and --out on storage that all machines see under the same path",
            )
        job = replace(self._job, shard=shard)
        run = Run(job, worker=self._worker and self._worker.for_job(job))
        self._worker = run.worker
        with run:
            yield Progress(about=_describe(run))
            for outcomes in run:
                yield Progress((outcomes,))
        yield Progress(notes=tuple(run.notes))


def _describe(run: Run) -> dict[str, str]:
    worker = run.worker
    return {
        "model": f"{worker.network.name}, {worker.network.origin}",
        "methods": ", ".join(row.name for row in worker.explainer.methods),
        "layers": ", ".join(worker.explainer.layers),
        "target": worker.score_description,
        "untrained": "yes" if worker.network.untrained else "",
    }
