"""Concepts over a set of images, found before the first is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from camcli.base.errors import RequestError
from camcli.base.words import count_of
from camcli.engine.maps.concepts import MAX_PICTURES
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import read_ahead
from camcli.runs.worker.threads import batched
from camcli.runs.worker.worker import Worker


def fit_concepts(
    worker: Worker,
    items: Iterable[Item],
    keep: Callable[[Sequence[Item], dict[str, Tensor]], None] = lambda items, cells: None,
) -> int:
    """Find concepts in the first usable images, before any is explained; return how many were used.

    Args:
        worker: the resolved job.
        items: the images.
        keep: is given those that are used, with their cells ``(n, m, c)`` by layer, batch by batch.

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
        ready = (item for item in filter(None, read_ahead(worker, items)) if item.release_pixels() is not None)
        for batch in batched(ready, worker.batch_size):
            for some, cells in _compute_cells(worker, batch[: MAX_PICTURES - used]):
                used += len(some)
                keep(some, cells)
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


def _compute_cells(worker: Worker, items: Sequence[Item]) -> list[tuple[Sequence[Item], dict[str, Tensor]]]:
    """Sample cells of images; those on which the network fails are left out, and reported when explained."""
    try:
        with worker.computing():
            images = torch.stack([item.input for item in items if item.input is not None])
            return [(items, worker.explainer.sample_cells(images, MAX_PICTURES))]
    except RequestError:
        raise
    except Exception:  # any error is one image's alone
        if len(items) == 1:
            return []
    return [one for item in items for one in _compute_cells(worker, [item])]
