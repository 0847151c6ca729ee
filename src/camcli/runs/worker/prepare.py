"""Preparation of an image as the model's input: decoded, resized, normalised; or the reason why it fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from camcli.base import timing
from camcli.base.errors import PictureError
from camcli.base.log import log_failure
from camcli.base.words import first_line
from camcli.engine import devices
from camcli.images.decode import decode_reduced, never_reduce
from camcli.images.decoded import DecodedPicture
from camcli.images.region import Region
from camcli.images.source import Picture
from camcli.images.view import View
from camcli.runs.worker.bands import make_input
from camcli.runs.worker.decode_ahead import Admit
from camcli.runs.worker.item import Item
from camcli.runs.worker.volumes import prepare_volume, takes_volumes

if TYPE_CHECKING:
    from camcli.runs.worker.worker import Worker

ONE_COLOUR = "the image is a single colour: the map shows border effects of the network"


def prepare_item(worker: Worker, given: Item, admit: Admit) -> Item:
    """Return a copy of an item with its image and input; ``admit`` waits until there is room for its pixels."""
    item = replace(given)
    if item.skipped or item.error:
        return item
    began = time.perf_counter()

    def wait_for_room(pixels: int) -> None:
        nonlocal began
        started = time.perf_counter()
        item.reservation = admit(pixels)
        began += time.perf_counter() - started

    try:
        if item.source.error:
            raise PictureError(item.source.error)
        network = worker.network
        if takes_volumes(network):
            item.input, item.picture, item.notes = prepare_volume(network, worker.job, item.source, wait_for_room)
        else:
            opened = _decode(worker, item, wait_for_room)
            in_steps = worker.job.decode == "reduced"
            item.input, view = make_input(opened, network.preprocess, network.name, in_steps)
            item.picture, item.notes = Picture(item.source, np.asarray(opened.image), view, opened.info), opened.notes
        if worker.extras:
            worker.extras.get([item.source.path])
        if worker.prompts:
            worker.prompts.find_competing(item.source.path)
        item.notes += (ONE_COLOUR,) if _is_one_colour(item.picture.pixels) else ()
        if worker.true_boxes:
            item.target_rule = worker.true_boxes.make_rule(item.source, item.picture.view)
        if network.output_spec.task == "segment":
            item.picture_mask = _make_mask(Region(), item.picture.view)
            item.region_mask = _make_mask(worker.region, item.picture.view) if worker.region else None
    except PictureError as error:
        log_failure(item.source.display_name, error)
        _fail(item, error.message, error.hint, error.__cause__)
    except Exception as error:  # any error is this image's alone, and the others go on
        log_failure(item.source.display_name, error)
        _fail(item, f"it cannot be prepared for the model: {first_line(error)}", "", error)
    taken = time.perf_counter() - began
    timing.add("decode", taken)
    item.seconds += taken
    return item


def _decode(worker: Worker, item: Item, admit: Callable[[int], None]) -> DecodedPicture:
    if item.decoded:
        admit(math.prod(item.decoded.size))
        return item.decoded
    full = worker.job.decode == "full" or worker.shows_pixels
    spare = never_reduce if full else worker.network.preprocess.max_divisor
    path, job = item.source.path, worker.job
    return decode_reduced(path, spare, job.background, job.range, item.source.page, worker.bands, admit=admit)


def _fail(item: Item, message: str, hint: str, cause: BaseException | None) -> None:
    """Drop all of the image but a new error, since the one that was raised keeps the pixels alive."""
    item.error = PictureError(message, hint)
    item.out_of_memory = cause is not None and devices.is_out_of_memory(cause)
    item.input = item.picture_mask = item.region_mask = item.picture = None
    if item.reservation:
        item.reservation.release()


def _make_mask(region: Region, view: View) -> Tensor:
    """Return a mask of the model's input, true where a region of the image lies."""
    return torch.from_numpy(region.contains(*view.pixel_centres(), view.picture))


def _is_one_colour(pixels: np.ndarray) -> bool:
    # Every 16th pixel first, which is enough for nearly every image of more colours.
    return all(bool((some == pixels[0, 0]).all()) for some in (pixels[::16, ::16], pixels))
