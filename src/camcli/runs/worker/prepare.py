"""One picture made the model's input: decoded, resized, normalised; or the reason why it cannot be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from camcli.base.errors import PictureError
from camcli.base.words import first_line
from camcli.engine import devices
from camcli.images.decode import Reduced, decode_reduced, undivided
from camcli.images.region import Region
from camcli.images.source import Picture
from camcli.images.view import View
from camcli.runs.worker.decode_ahead import Admit
from camcli.runs.worker.item import Item

if TYPE_CHECKING:
    from camcli.runs.worker.worker import Worker

ONE_COLOUR = "the picture is one colour: what is drawn comes from the network's borders"


def prepare_item(worker: Worker, given: Item, admit: Admit) -> Item:
    """A copy of an item with its picture and input; ``admit`` waits until there is room for so many pixels."""
    item = replace(given)
    if item.skipped or item.error:
        return item
    began = time.perf_counter()

    def admitted(pixels: int) -> None:
        nonlocal began
        asked = time.perf_counter()
        item.hold = admit(pixels)
        began += time.perf_counter() - asked

    try:
        if item.source.error:
            raise PictureError(item.source.error)
        opened = _open(worker, item, admitted)
        image = opened.image
        if worker.extras:
            worker.extras.of([item.source.path])
        if worker.prompts:
            worker.prompts.among(item.source.path)
        prepare = worker.network.prepare
        full = worker.job.decode == "full"
        if opened.planes is not None:
            item.input, view = prepare.planes(opened.planes)
        else:
            item.input, view = prepare(image) if full else prepare.reduced(image, opened.size, opened.box)
        item.picture = Picture(item.source, np.asarray(image), view)
        item.notes = opened.notes + ((ONE_COLOUR,) if _one_colour(item.picture.pixels) else ())
        if worker.network.outlet.task == "segment":
            item.seen = _inside(Region(), view)
            item.region = _inside(worker.region, view) if worker.region else None
    except PictureError as error:
        _fail(item, error.message, error.hint, error.__cause__)
    except Exception as error:  # whatever it is, it is this picture's, and the others go on
        _fail(item, f"it cannot be prepared for the model: {first_line(error)}", "", error)
    item.seconds += time.perf_counter() - began
    return item


def _open(worker: Worker, item: Item, admit: Callable[[int], None]) -> Reduced:
    if item.image:
        admit(math.prod(item.image.size))
        return item.image
    full = worker.job.decode == "full" or worker.shows_pixels
    spare = undivided if full else worker.network.prepare.spare
    return decode_reduced(
        item.source.path, spare, worker.job.background, worker.job.range, item.source.page, admit=admit
    )


def _fail(item: Item, message: str, hint: str, cause: BaseException | None) -> None:
    """Keep nothing of the picture but an error of its own, since the one that was raised holds on to the pixels."""
    item.error = PictureError(message, hint)
    item.short = cause is not None and devices.lacks_memory(cause)
    item.input = item.seen = item.region = item.picture = None
    if item.hold:
        item.hold.release()


def _inside(region: Region, view: View) -> Tensor:
    """Which pixels of the model's input lie in a region of the picture."""
    return torch.from_numpy(region.at(*view.centres(), view.picture))


def _one_colour(pixels: np.ndarray) -> bool:
    # Every 16th pixel first, which tells nearly every other picture.
    return all(bool((some == pixels[0, 0]).all()) for some in (pixels[::16, ::16], pixels))
