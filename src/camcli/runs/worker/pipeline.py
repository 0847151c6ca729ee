"""Stream of images through a resolved job: decoded ahead, explained in batches, each failing by itself."""

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

from camcli.base import timing
from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.base.log import log_failure
from camcli.base.words import first_line
from camcli.engine import devices
from camcli.engine.explainer import Explainer
from camcli.engine.explanation import Explanation
from camcli.engine.maps.result import Result
from camcli.images import depth, dicom, frames
from camcli.images.corners import box_to_picture
from camcli.images.source import PAUSE, Picture
from camcli.runs.worker.decode_ahead import STALL_SECONDS, Prefetcher
from camcli.runs.worker.groups import fail_whole_group, form_groups
from camcli.runs.worker.item import Item
from camcli.runs.worker.prepare import prepare_item
from camcli.runs.worker.resources import limit_run_pixels
from camcli.runs.worker.threads import batched, map_over, split_by_length
from camcli.runs.worker.worker import Worker

# Beginnings of an image's notes on its decoding, which the user can change.
DECODING_NOTES = (
    *(depth.NARROW_RANGE_NOTE, depth.EIGHT_BITS_NOTE, frames.FIRST_PAGE_NOTE),
    *(dicom.WINDOW_NOTE, dicom.BITS_NOTE, dicom.INVERTED_NOTE),
)
NOTE_PREFIXES = {frames.FIRST_PAGE_NOTE: "is read as "}

R = TypeVar("R")
Measure = Callable[[Explainer, Sequence[Item]], None]
# From an image whose maps are there already to these.
Load = Callable[[Item], list[Result]]


def stream_results(worker: Worker, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items with their results, in order, as :func:`stream_with_pauses` does, but without the pauses."""
    with closing(stream_with_pauses(worker, items)) as given:
        yield from filter(None, given)


def stream_with_pauses(
    worker: Worker,
    items: Iterable[Item],
    on_group: Callable[[Sequence[Item]], None] = lambda group: None,
    measure: Measure = lambda explainer, items: None,
    load: Load | None = None,
    at_once: int = 0,
) -> Generator[Item | None, None, None]:
    """Yield items with their results, in order; hold at most two batches of images and the threads' own.

    With several devices these are two for each, and one more. None is yielded where no other comes for a while.

    Args:
        worker: the resolved job.
        items: images; of a group all of them, also those that are done already.
        on_group: called with each group before it is started; may mark its items.
        measure: called with the explained images of each batch while their inputs are there, and with the explainer
            that they went through, which no other thread uses meanwhile.
        load: returns the results of an image, in place of explaining it.
        at_once: number of images that are explained, measured and yielded together; 0 for a whole batch.
    """
    # Concepts may have been found, or read from a file, since the copies were made.
    for copy in worker.explainers[1:]:
        copy.fitted_concepts = worker.explainer.fitted_concepts
    grouped = form_groups(worker.job.group, items, on_group) if worker.job.group else items
    batches = _make_batches(worker, grouped, at_once or worker.batch_size)
    # Not a loop: its variable would keep a batch alive while the next is explained.
    waited = timing.MeasuredIterator("wait for images", batches)
    explained = map_batches(worker, partial(_explain_batch, worker, measure, load), waited)
    yield from chain.from_iterable(map(_batch_or_pause, explained))


def map_batches(
    worker: Worker, work: Callable[[Explainer, list[Item]], R], batches: Iterable[list[Item]]
) -> Iterator[R]:
    """Yield ``work`` of each batch, in order, with the explainer of a free device; in threads if there are several."""
    # Copies on the CPU keep PyTorch's number of threads: with fewer, sums are rounded differently.
    return map_over(work, batches, worker.explainers, is_pause=lambda batch: not batch)


def decode_batches(worker: Worker, items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield decoded items, in order, in batches of as many images as go through the network at once."""
    with closing(_make_batches(worker, items, worker.batch_size)) as given:
        yield from filter(None, given)


def _make_batches(worker: Worker, items: Iterable[Item], size: int) -> Generator[list[Item], None, None]:
    """Return decoded items in batches of so many, or groups, with an empty one where nothing comes for a while."""
    read = read_ahead(worker, items)
    if worker.job.group:
        return split_by_length(filter(None, read), lambda item: item.group_size)
    return batched(
        read,
        size,
        lambda item: item.input is not None,
        lambda item: item.held_pixels,
        worker.max_batch_pixels,
    )


def read_ahead(worker: Worker, items: Iterable[Item]) -> Iterator[Item | None]:
    """Return decoded items, in order, with None where nothing comes for a while."""
    prefetch = Prefetcher(
        partial(prepare_item, worker),
        workers=worker.workers,
        depth=worker.batch_size + worker.workers,
        max_pixels=limit_run_pixels(worker),
        timeout=worker.job.timeout,
        on_timeout=partial(_mark_timed_out, worker.job.timeout),
        should_retry=partial(_was_out_of_memory, worker),
        # A group is not divided, so a consumer that waits for the rest of one has nothing to release.
        stall_seconds=0.0 if worker.job.group else STALL_SECONDS,
        is_pause=lambda item: item.source is PAUSE,
    )
    return map(partial(_note_decoding, worker), prefetch(items))


def _mark_timed_out(seconds: float, item: Item) -> Item:
    why = f"was not decoded within {seconds:g} s"
    return replace(item, error=PictureError(why, "raise --timeout SECONDS, or set it to 0 for no limit"))


def _was_out_of_memory(worker: Worker, item: Item) -> bool:
    if item.out_of_memory:
        worker.note("memory ran short while several images were decoded, so fewer are decoded at a time from then on")
    return item.out_of_memory


def _note_decoding(worker: Worker, item: Item | None) -> Item | None:
    """Note once per run how images are decoded, where the user can change it; each has its own notes too."""
    if item is None:
        return None
    for note in item.notes:
        kind = next((kind for kind in DECODING_NOTES if note.startswith(kind)), None)
        if kind and kind not in worker.decoding_notes:
            worker.decoding_notes.add(kind)
            worker.note(f"{item.source.display_name} {NOTE_PREFIXES.get(kind, '')}{note}")
    return item


def _explain_batch(
    worker: Worker, measure: Measure, load: Load | None, explainer: Explainer, batch: Sequence[Item]
) -> Sequence[Item]:
    if worker.job.group:
        fail_whole_group(batch)
    ready = [item for item in batch if item.input is not None]
    if not ready:
        return batch
    began = time.perf_counter()
    results_by_item: list[list[Result]]
    if load:
        results_by_item = [*map(load, ready)]
    elif worker.job.group:
        results_by_item = _explain_group(worker, explainer, ready)
    else:
        results_by_item = run_in_fitting_batches(
            worker,
            explainer,
            ready,
            lambda some: find_results(worker, explainer, some),
            lambda item: _explain_one(worker, explainer, item),
        )
    for note in explainer.notes:
        worker.note(note)
    for item, results in zip(ready, results_by_item, strict=True):
        item.results = [_add_notes(_move_boxes_to_picture(result, item.picture), item.notes) for result in results]
    measure(explainer, ready)
    taken = time.perf_counter() - began
    timing.add("compute", taken)
    share = taken / len(ready)
    for item in ready:
        item.input, item.picture_mask, item.region_mask = None, None, None
        item.seconds += share
    return batch


def run_in_fitting_batches(
    worker: Worker,
    explainer: Explainer,
    items: Sequence[Item],
    run_batch: Callable[[Sequence[Item]], list[R]],
    run_one: Callable[[Item], R],
) -> list[R]:
    """Run independent images in batches that are known to fit in memory, and return their results.

    Args:
        worker: the resolved job.
        explainer: the explainer on the device that is used.
        items: the images.
        run_batch: returns the results of several images; may raise anything.
        run_one: returns the result of one image, or why there is none.
    """
    done: list[R] = []
    before = fits = worker.fitting_batch_sizes.get(id(explainer), len(items))
    while len(done) < len(items):
        some = items[len(done) : len(done) + fits]
        results = _try_batch(worker, some, run_batch, run_one)
        if results is None:
            fits = len(some) // 2
        else:
            done += results
    if fits < before:
        worker.fitting_batch_sizes[id(explainer)] = fits
        worker.note(
            f"{explainer.device} does not have enough memory for {min(before, len(items))} images at a time: {fits} "
            f"from then on (--batch-size {fits})"
        )
    return done


def _try_batch(
    worker: Worker, some: Sequence[Item], run_batch: Callable[[Sequence[Item]], list[R]], run_one: Callable[[Item], R]
) -> list[R] | None:
    """Return the results of some images; None if memory is short for so many, and may suffice for fewer."""
    try:
        return run_batch(some)
    except CamcliError:
        trouble = ""  # one image's reason, which is reported with it
    except Exception as error:
        if devices.is_out_of_memory(error) and len(some) > 1:
            return None
        trouble = first_line(error)
    # Not in the handler, which would keep the failed batch's memory alive.
    if len(some) > 1 and trouble:
        worker.note(f"a batch failed and was processed image by image: {trouble}")
    return [run_one(item) for item in some]


def _explain_group(worker: Worker, explainer: Explainer, group: Sequence[Item]) -> list[list[Result]]:
    """Return the results of a group, which fails as a whole: no part of it is a group."""
    try:
        return find_results(worker, explainer, group)
    except RequestError as error:
        # Errors of all groups were raised before the first.
        reason = PictureError(f"its group of {len(group)} images: {error.message}", error.hint)
    except PictureError as error:
        reason = error
    except torch.OutOfMemoryError:
        reason = PictureError(f"{explainer.device} does not have enough memory for its group of {len(group)} images")
    except Exception as error:
        log_failure(f"the group of {group[0].source.display_name}", error)
        reason = PictureError(f"the network fails on its group of {len(group)} images: {first_line(error)}")
    return [[reason] for _ in group]


def find_results(worker: Worker, explainer: Explainer, items: Sequence[Item]) -> list[list[Result]]:
    """Explain images in one batch; may raise anything."""
    images = devices.stack_for(explainer.device, [item.input for item in items if item.input is not None])
    picture_masks, region_masks = (
        _stack_masks(masks) for masks in ([one.picture_mask for one in items], [one.region_mask for one in items])
    )
    paths = [item.source.path for item in items]
    extras = worker.extras.get(paths) if worker.extras else None
    competing = [worker.prompts.find_competing(path) if worker.prompts else () for path in paths]
    with worker.computing():
        return explainer.results(
            images,
            lambda row, scores: (items[row].target_rule or worker.target_rule)(paths[row], scores),
            picture_masks,
            region_masks,
            extras,
            competing.__getitem__,
        )


def _explain_one(worker: Worker, explainer: Explainer, item: Item) -> list[Result]:
    try:
        return find_results(worker, explainer, [item])[0]
    except CamcliError as error:
        # Errors of all images were raised before the first.
        log_failure(item.source.display_name, error)
        return [error if isinstance(error, PictureError) else PictureError(error.message, error.hint)]
    except Exception as error:
        log_failure(item.source.display_name, error)
        return [PictureError(f"the network fails on this image: {first_line(error)}")]


def _stack_masks(masks: Sequence[Tensor | None]) -> Tensor | None:
    there = [mask for mask in masks if mask is not None]
    return torch.stack(there) if there else None


def _batch_or_pause(batch: Sequence[Item]) -> Sequence[Item | None]:
    return batch or [None]


def _move_boxes_to_picture(result: Result, picture: Picture | None) -> Result:
    """Return a result with its boxes in pixels of the image."""
    if isinstance(result, PictureError) or result.box is None or picture is None:
        return result
    move, truth = partial(box_to_picture, picture.view), result.true_box
    return replace(result, box=move(result.box), true_box=None if truth is None else move(truth))


def _add_notes(result: Result, notes: tuple[str, ...]) -> Result:
    return replace(result, notes=(*result.notes, *notes)) if notes and isinstance(result, Explanation) else result
