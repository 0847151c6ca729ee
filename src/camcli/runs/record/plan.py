"""Plan of a run: what it would do, and how long that would take, from one batch that is done without writing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from camcli.base import passes
from camcli.base.errors import TrialEndedError
from camcli.engine.needs import RERUNS_FROM_LAYER
from camcli.images.source import PictureSource
from camcli.runs.record.inputs import Inputs
from camcli.runs.worker.groups import find_first_group
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import Load, Measure, stream_with_pauses
from camcli.runs.worker.threads import map_ahead
from camcli.runs.worker.worker import Worker

# After a batch that takes less than this many seconds, so many are timed: the first pays for warming up, and several
# overlap, as in a run.
QUICK_SECONDS, QUICK_BATCHES = 3.0, 4
# Signals by which methods query the network again and again: then a single image fills batches.
QUERIES = RERUNS_FROM_LAYER | {"score_of", "score_and_grad", "act_and_grad"}
# Seconds after which such a method's loop is left, and the rest of its time is estimated.
LOOP_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A batch, or several, done without writing.

    Attributes:
        images: number of its images.
        failed: reasons of those that failed, by name.
        maps: number of maps of those that did not.
        size: bytes of all files.
        seconds: time from the first file to the last, with that of masks that were left out.
        loops: the methods' loops over masks, of the last image.
    """

    images: int
    failed: dict[str, str]
    maps: int
    size: int
    seconds: float
    loops: Sequence[passes.Passes] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a run: what it would do.

    Attributes:
        out: the output folder.
        total: number of images; None if they come from standard input.
        done: number of those that are done already.
        trial: a batch of those that are not; None if there are none, or none that can be done before the run.
    """

    out: Path
    total: int | None
    done: int
    trial: Trial | None

    @property
    def left(self) -> int:
        """Number of images that are to be done."""
        return (self.total or 0) - self.done

    @property
    def seconds(self) -> float | None:
        """Estimated time of the run, once its model is loaded; None if nothing is known."""
        return self.trial.seconds / self.trial.images * self.left if self.trial else None


def make_plan(
    worker: Worker,
    inputs: Inputs,
    out: Path,
    is_done: Callable[[PictureSource], bool] = lambda source: False,
    draw: Callable[[Item], int] = lambda item: 0,
    measure: Measure | None = None,
    load: Load | None = None,
) -> Plan:
    """Make the plan of a run.

    Args:
        worker: the resolved job.
        inputs: its images.
        out: its output folder.
        is_done: says whether an image is done.
        draw: makes an image's files, without writing them, and returns their size in bytes; called in threads.
        measure, load: as in :func:`camcli.runs.worker.pipeline.stream_with_pauses`; what is measured of an image fills
            batches.
    """
    if inputs.total is None:
        return Plan(out, None, 0, None)
    done = sum(map(is_done, inputs.iter_sources()))
    trial = None
    if done < inputs.total and not worker.explainer.fits_concepts:
        fills = measure is not None or any(one.signal_names & QUERIES for one in worker.explainer.bound_methods)
        stream = partial(stream_with_pauses, worker, measure=measure or (lambda explainer, items: None), load=load)
        trial = _try_batch(worker, stream, _choose_batch(worker, inputs, is_done, fills), draw)
        if trial.seconds < QUICK_SECONDS:
            trial = _try_batch(worker, stream, _choose_batch(worker, inputs, is_done, fills, QUICK_BATCHES), draw)
    return Plan(out, inputs.total, done, trial)


def _choose_batch(
    worker: Worker, inputs: Inputs, is_done: Callable[[PictureSource], bool], fills: bool, batches: int = 1
) -> Sequence[PictureSource]:
    """Return the first images that are not done, as many as go through the devices at once; or the first group.

    Args:
        worker: the resolved job.
        inputs: its images.
        is_done: says whether an image is done.
        fills: True if a single image fills batches.
        batches: number of batches.
    """
    if worker.job.group:
        count = len(find_first_group(worker.job.group, inputs.iter_sources))
        return list(islice(inputs.iter_sources(), count))
    left = (source for source in inputs.iter_sources() if not is_done(source))
    return list(islice(left, batches * (1 if fills else worker.batch_size) * len(worker.devices)))


def _try_batch(
    worker: Worker,
    stream: Callable[[Iterable[Item]], Iterable[Item | None]],
    batch: Sequence[PictureSource],
    draw: Callable[[Item], int],
) -> Trial:
    failed: dict[str, str] = {}
    maps, size, left_out = 0, 0, 0.0

    def draw_item(item: Item) -> tuple[Item, int]:
        drawn = draw(item)
        item.release_pixels()
        return item, drawn

    began = time.monotonic()
    streamed = stream(map(Item, batch))
    with passes.trying(LOOP_SECONDS):
        for item, drawn in map_ahead(draw_item, streamed, worker.workers, 2 * worker.workers):
            errors = [item.error] if item.error else [one for one in item.results if isinstance(one, Exception)]
            # One for all targets of an image.
            ended = {id(error): error.seconds for error in errors if isinstance(error, TrialEndedError)}
            reasons = [str(error) for error in errors if not isinstance(error, TrialEndedError)]
            left_out += sum(ended.values())
            if reasons:
                failed[item.source.display_name] = reasons[0]
            maps += 0 if item.error else len(item.results) - len(reasons)
            size += drawn
    seconds = time.monotonic() - began + left_out
    return Trial(len(batch), failed, maps, size, seconds, passes.list_latest(began))
