"""Concepts over a set of pictures, found before the first is explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.engine.maps.concepts import MOST_PICTURES
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import read_ahead
from camcli.runs.worker.threads import batched
from camcli.runs.worker.worker import Worker


def fit_concepts(worker: Worker, items: Iterable[Item]) -> int:
    """Find concepts in the first pictures that can be used, before any is explained; returns how many they were.

    Raises:
        RequestError: what the layers say of them are no numbers; or the model needs more than pictures.
    """
    if worker.extras:
        raise RequestError(
            "concepts of several pictures are found without the features beside them (--extras), which the model needs",
            "let each picture have concepts of its own: -o over=picture",
        )
    used = 0

    def samples() -> Iterator[dict[str, Tensor]]:
        nonlocal used
        inputs = (item.drop() for item in filter(None, read_ahead(worker, items)))
        for batch in batched((one for one in inputs if one is not None), worker.batch_size):
            for count, cells in _cells(worker, batch[: MOST_PICTURES - used]):
                used += count
                yield cells
            if used >= MOST_PICTURES:
                return

    worker.explainer.fit(samples())
    if used and not worker.explainer.fitted:
        raise RequestError(
            f"the activations of {', '.join(worker.explainer.layers)} contain NaN or infinite values in {used} "
            "picture(s), so there are no concepts in them",
            "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
        )
    return used


def _cells(worker: Worker, images: Sequence[Tensor]) -> list[tuple[int, dict[str, Tensor]]]:
    """Cells of so many images; what the network fails on is left out, and told when it is explained."""
    try:
        with worker.computing():
            return [(len(images), worker.explainer.cells(torch.stack(list(images)), MOST_PICTURES))]
    except RequestError:
        raise
    except Exception:  # whatever it is, it is one image's
        if len(images) == 1:
            return []
    return [one for image in images for one in _cells(worker, [image])]
