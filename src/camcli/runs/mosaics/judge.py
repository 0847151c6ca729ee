"""What a model predicts of each image, and which images can be parts of a mosaic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from camcli.base.errors import CamcliError, PictureError
from camcli.base.words import first_line
from camcli.engine import devices
from camcli.engine.explainer import Explainer
from camcli.images.source import PictureSource
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import map_batches, run_in_fitting_batches
from camcli.runs.worker.worker import Worker


@dataclass(frozen=True, slots=True)
class Judged:
    """An image and its class.

    Attributes:
        source: the image.
        index: the class that its target names.
        probability: probability of this class.
        predicted: True if no class is more likely.
    """

    source: PictureSource
    index: int
    probability: float
    predicted: bool


def judge_batches(
    worker: Worker, batches: Iterable[list[Item]]
) -> Iterator[list[tuple[PictureSource, Judged | PictureError]]]:
    """Yield for each batch its images, and what the model predicts or why that cannot be said."""
    return map_batches(worker, lambda explainer, batch: _judge_batch(worker, explainer, batch), batches)


def choose_parts(judged: Sequence[Judged], side: int, count: int, seed: int) -> list[list[Judged]]:
    """Choose the images of at most ``count`` mosaics, each of ``side ** 2`` classes, and no image twice.

    Classes with the most images left are taken first, so that few images are left over; of equal ones, and of the
    images of a class, a random one. The places in a mosaic are random too.
    """
    rng = np.random.default_rng(seed)
    by_class: dict[int, list[Judged]] = defaultdict(list)
    for number in rng.permutation(len(judged)):
        by_class[judged[number].index].append(judged[number])
    chosen: list[list[Judged]] = []
    while len(chosen) < count:
        draws = {index: (-len(images), rng.random()) for index, images in sorted(by_class.items()) if images}
        if len(draws) < side**2:
            break
        parts = [by_class[index].pop() for index in sorted(draws, key=draws.__getitem__)[: side**2]]
        chosen.append([parts[place] for place in rng.permutation(side**2)])
    return chosen


def _judge_batch(
    worker: Worker, explainer: Explainer, batch: Sequence[Item]
) -> list[tuple[PictureSource, Judged | PictureError]]:
    ready = [item for item in batch if item.input is not None]
    found = iter(
        run_in_fitting_batches(
            worker,
            explainer,
            ready,
            lambda some: _judge(worker, explainer, some),
            lambda item: _judge_one(worker, explainer, item),
        )
    )
    unread = PictureError("it cannot be read")
    return [(item.source, next(found) if item.input is not None else item.error or unread) for item in batch]


def _judge_one(worker: Worker, explainer: Explainer, item: Item) -> Judged | PictureError:
    try:
        return _judge(worker, explainer, [item])[0]
    except CamcliError as error:
        return error if isinstance(error, PictureError) else PictureError(error.message, error.hint)
    except Exception as error:  # any error is this image's alone, and the others go on
        return PictureError(f"the network fails on this image: {first_line(error)}")


def _judge(worker: Worker, explainer: Explainer, items: Sequence[Item]) -> list[Judged | PictureError]:
    """Return what the model predicts of images in one batch; may raise anything."""
    runner = explainer.setup.runner
    images = devices.stack_for(explainer.device, [item.input for item in items if item.input is not None])
    with worker.computing(), runner.ready(), torch.no_grad():
        predictions = runner.read_predictions(runner.module(runner.make_leaf(images)), len(items))
        found: list[Judged | PictureError] = []
        for row, item in enumerate(items):
            scores = predictions.scores(row)
            index = worker.target_rule(item.source.path, scores)[0]
            assert isinstance(index, int)  # a box is a target of detectors alone
            [target] = predictions.find_targets(row, index)
            predicted = bool(scores[index] >= scores.max())
            found.append(Judged(item.source, index, float(target.probability or 0), predicted))
    return found
