"""Pictures streaming through a resolved job: decoded ahead, explained in batches, one failure one picture's."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.base.words import first_line
from camcli.engine import devices
from camcli.engine.explainer import Explainer
from camcli.engine.explanation import Explanation
from camcli.engine.maps.result import Result
from camcli.images import depth, frames
from camcli.images.source import PAUSE, Picture
from camcli.runs.worker.decode_ahead import KEPT, Reading
from camcli.runs.worker.groups import fail_together, form_groups
from camcli.runs.worker.item import Item
from camcli.runs.worker.prepare import prepare_item
from camcli.runs.worker.resources import pixels_under_way
from camcli.runs.worker.threads import batched, pieces, spread
from camcli.runs.worker.worker import Worker

# How notes of a picture begin that its user can change.
READ_SO = (depth.NARROW, depth.EIGHT, frames.ONE_OF)
IS = {frames.ONE_OF: "is read as "}

R = TypeVar("R")


def stream(
    worker: Worker, items: Iterable[Item], begin: Callable[[Sequence[Item]], None] = lambda group: None
) -> Iterator[Item]:
    """Items with their results, in order, as :func:`paused_stream` gives them."""
    with closing(paused_stream(worker, items, begin)) as given:
        yield from filter(None, given)


def paused_stream(
    worker: Worker, items: Iterable[Item], begin: Callable[[Sequence[Item]], None] = lambda group: None
) -> Generator[Item | None, None, None]:
    """Items with their results, in order; at most two batches of pictures and the threads' own are held.

    With several devices these are two for each, and one more. None is given where no other comes for a while.

    Args:
        worker: the job resolved.
        items: pictures; of a group all of them, also those that need not be done if no other must.
        begin: is told each group before it is begun, and may mark its items.
    """
    # Concepts may have been found, or read from a file, since the copies were made.
    for copy in worker.explainers[1:]:
        copy.fitted = worker.explainer.fitted
    batches = _batches(worker, form_groups(worker.job.group, items, begin) if worker.job.group else items)
    # Not a loop: its variable would hold on to a batch while the next is explained.
    explained = spread_batches(worker, partial(_explain_batch, worker), batches)
    yield from chain.from_iterable(map(_or_pause, explained))


def spread_batches(
    worker: Worker, work: Callable[[Explainer, list[Item]], R], batches: Iterable[list[Item]]
) -> Iterator[R]:
    """``work`` of each batch, in order, with the explainer of whichever device is free; in a thread if several."""
    # Copies on the CPU keep PyTorch's number of threads: with fewer, sums come out with another rounding.
    return spread(work, batches, worker.explainers, pauses=lambda batch: not batch)


def decoded_batches(worker: Worker, items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items as they are decoded, in order, in batches of as many pictures as go through the network at once."""
    with closing(_batches(worker, items)) as given:
        yield from filter(None, given)


def _batches(worker: Worker, items: Iterable[Item]) -> Generator[list[Item], None, None]:
    """The same, with an empty batch where nothing comes for a while."""
    read = read_ahead(worker, items)
    if worker.job.group:
        return pieces(filter(None, read), lambda item: item.mates)
    return batched(
        read, worker.batch_size, lambda item: item.input is not None, lambda item: item.pixels, worker.most_pixels
    )


def read_ahead(worker: Worker, items: Iterable[Item]) -> Iterator[Item | None]:
    """Items as they are decoded, in order; None where nothing comes for a while."""
    reading = Reading(
        partial(prepare_item, worker),
        workers=worker.workers,
        depth=worker.batch_size + worker.workers,
        most=pixels_under_way(worker),
        seconds=worker.job.timeout,
        late=partial(_give_up, worker.job.timeout),
        again=partial(_lacked_memory, worker),
        # A group is not divided, so whoever waits for the rest of it has nothing to give back.
        kept=0.0 if worker.job.group else KEPT,
        pauses=lambda item: item.source is PAUSE,
    )
    return map(partial(_note_reading, worker), reading(items))


def _give_up(seconds: float, item: Item) -> Item:
    why = f"is not decoded after {seconds:g} s"
    return replace(item, error=PictureError(why, "--timeout SECONDS gives it more, 0 as many as it takes"))


def _lacked_memory(worker: Worker, item: Item) -> bool:
    if item.short:
        worker.note("memory was short while several pictures were decoded, so fewer are at a time from then on")
    return item.short


def _note_reading(worker: Worker, item: Item | None) -> Item | None:
    """Note once a run what its user can change about how pictures are read; of each its own notes say it."""
    if item is None:
        return None
    for note in item.notes:
        kind = next((kind for kind in READ_SO if note.startswith(kind)), None)
        if kind and kind not in worker.noted_reading:
            worker.noted_reading.add(kind)
            worker.note(f"{item.source.shown} {IS.get(kind, '')}{note}")
    return item


def _explain_batch(worker: Worker, explainer: Explainer, batch: Sequence[Item]) -> Sequence[Item]:
    if worker.job.group:
        fail_together(batch)
    ready = [item for item in batch if item.input is not None]
    if not ready:
        return batch
    began = time.perf_counter()
    if worker.job.group:
        found = _explain_group(worker, explainer, ready)
    else:
        found = explain_apart(
            worker,
            explainer,
            ready,
            lambda some: find_results(worker, explainer, some),
            lambda item: _explain_alone(worker, explainer, item),
        )
    for note in explainer.notes:
        worker.note(note)
    share = (time.perf_counter() - began) / len(ready)
    for item, results in zip(ready, found, strict=True):
        item.input, item.seen, item.region = None, None, None
        item.results = [_noted(_in_picture(result, item.picture), item.notes) for result in results]
        item.seconds += share
    return batch


def explain_apart(
    worker: Worker,
    explainer: Explainer,
    items: Sequence[Item],
    together: Callable[[Sequence[Item]], list[R]],
    alone: Callable[[Item], R],
) -> list[R]:
    """Results of pictures that have nothing to do with one another: of as many at a time as are known to fit.

    Args:
        worker: the job resolved.
        explainer: whose device it is.
        items: the pictures.
        together: gives those of several; may raise anything.
        alone: gives that of one, or why there is none.
    """
    found: list[R] = []
    before = fits = worker.fits.get(id(explainer), len(items))
    while len(found) < len(items):
        some = items[len(found) : len(found) + fits]
        results = _try_together(worker, some, together, alone)
        if results is None:
            fits = len(some) // 2
        else:
            found += results
    if fits < before:
        worker.fits[id(explainer)] = fits
        worker.note(
            f"{explainer.device} has not enough memory for {min(before, len(items))} pictures at a time: {fits} "
            f"went at a time from then on (--batch-size {fits})"
        )
    return found


def _try_together(
    worker: Worker, some: Sequence[Item], together: Callable[[Sequence[Item]], list[R]], alone: Callable[[Item], R]
) -> list[R] | None:
    """Results of some pictures; None if there is not enough memory for so many, and for fewer there may be."""
    try:
        return together(some)
    except CamcliError:
        trouble = ""  # one picture's reason, which is told of it
    except Exception as error:
        if devices.lacks_memory(error) and len(some) > 1:
            return None
        trouble = first_line(error)
    # Not in the handler: it would hold on to the failed batch's memory.
    if len(some) > 1 and trouble:
        worker.note(f"a batch failed and was done picture by picture: {trouble}")
    return [alone(item) for item in some]


def _explain_group(worker: Worker, explainer: Explainer, group: Sequence[Item]) -> list[list[Result]]:
    """The results of a group, which fails as a whole: no part of it is a group."""
    try:
        return find_results(worker, explainer, group)
    except RequestError as error:
        # What holds for every group was found out before the first.
        reason = PictureError(f"its group of {len(group)} pictures: {error.message}", error.hint)
    except PictureError as error:
        reason = error
    except torch.OutOfMemoryError:
        reason = PictureError(f"{explainer.device} has not enough memory for its group of {len(group)} pictures")
    except Exception as error:
        reason = PictureError(f"the network fails on its group of {len(group)} pictures: {first_line(error)}")
    return [[reason] for _ in group]


def find_results(worker: Worker, explainer: Explainer, items: Sequence[Item]) -> list[list[Result]]:
    """Explain pictures in one batch; may raise anything."""
    images = devices.batch_for(explainer.device, [item.input for item in items if item.input is not None])
    seen, region = (_stacked(masks) for masks in ([one.seen for one in items], [one.region for one in items]))
    paths = [item.source.path for item in items]
    extras = worker.extras.of(paths) if worker.extras else None
    among = [worker.prompts.among(path) if worker.prompts else () for path in paths]
    with worker.computing():
        return explainer.results(
            images, lambda row, scores: worker.target(paths[row], scores), seen, region, extras, among.__getitem__
        )


def _explain_alone(worker: Worker, explainer: Explainer, item: Item) -> list[Result]:
    try:
        return find_results(worker, explainer, [item])[0]
    except CamcliError as error:
        # What holds for every picture was found out before the first.
        return [error if isinstance(error, PictureError) else PictureError(error.message, error.hint)]
    except Exception as error:
        return [PictureError(f"the network fails on this picture: {first_line(error)}")]


def _stacked(masks: Sequence[Tensor | None]) -> Tensor | None:
    there = [mask for mask in masks if mask is not None]
    return torch.stack(there) if there else None


def _or_pause(batch: Sequence[Item]) -> Sequence[Item | None]:
    return batch or [None]


def _in_picture(result: Result, picture: Picture | None) -> Result:
    """A result with its box in pixels of the picture."""
    if isinstance(result, PictureError) or result.box is None or picture is None:
        return result
    return replace(result, box=picture.view.corners(result.box))


def _noted(result: Result, notes: tuple[str, ...]) -> Result:
    return replace(result, notes=(*result.notes, *notes)) if notes and isinstance(result, Explanation) else result
