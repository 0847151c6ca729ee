"""Concepts over a set of images, found before the first is explained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.engine.maps.concepts import MAX_PICTURES
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import read_ahead
from camcli.runs.worker.threads import batched
from camcli.runs.worker.worker import Worker


def fit_concepts(worker: Worker, items: Iterable[Item]) -> int:
    """Find concepts in the first usable images, before any is explained; return how many were used.

    Raises:
        RequestError: the layers' activations are not finite; or the model needs features besides the images.
    """
    if worker.extras:
        raise RequestError(
            "concepts of several images cannot be found for a model that needs extra features (--extras)",
            "find the concepts of each image separately: -o over=picture",
        )
    used = 0

    def samples() -> Iterator[dict[str, Tensor]]:
        nonlocal used
        inputs = (item.release_pixels() for item in filter(None, read_ahead(worker, items)))
        for batch in batched((one for one in inputs if one is not None), worker.batch_size):
            for count, cells in _compute_cells(worker, batch[: MAX_PICTURES - used]):
                used += count
                yield cells
            if used >= MAX_PICTURES:
                return

    worker.explainer.fit(samples())
    if used and not worker.explainer.fitted_concepts:
        raise RequestError(
            f"the activations of {', '.join(worker.explainer.layers)} contain NaN or infinite values in "
            f"{count_of(used, 'image')}, so there are no concepts in them",
            "the weights contain such values, or half precision overflows (then --precision fp32 helps)",
        )
    return used


def _compute_cells(worker: Worker, images: Sequence[Tensor]) -> list[tuple[int, dict[str, Tensor]]]:
    """Sample cells of images; those on which the network fails are left out, and reported when explained."""
    try:
        with worker.computing():
            return [(len(images), worker.explainer.sample_cells(torch.stack(list(images)), MAX_PICTURES))]
    except RequestError:
        raise
    except Exception:  # any error is one image's alone
        if len(images) == 1:
            return []
    return [one for image in images for one in _compute_cells(worker, [image])]
