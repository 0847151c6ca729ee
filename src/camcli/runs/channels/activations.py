"""Activations of one layer, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.base.words import first_line, shorten
from camcli.engine import devices
from camcli.engine.explainer import Explainer
from camcli.engine.hooks.watch import layer_output
from camcli.engine.layers.layout import Layout, to_nchw
from camcli.images.placement import Placement
from camcli.images.view import View
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import map_batches, run_in_fitting_batches
from camcli.runs.worker.worker import Worker

# Reduces the activations of images (n, c, h, w) to what is kept of each.
ReduceActivations = Callable[[Tensor, Sequence[Item]], Sequence[np.ndarray]]
# Result for one image, or why there is none; None for an image that cannot be read.
ActivationResult = np.ndarray | PictureError | None


@dataclass(frozen=True, slots=True)
class WatchedLayer:
    """Layer whose channels are ranked.

    Attributes:
        name: its path.
        layout: memory layout of its output.
        call: which of its calls in a forward pass counts; 0 for the last.
        placement: where its cells lie in the model's input, if that was measured.
        channels: number of its channels.
    """

    name: str
    layout: Layout
    call: int
    placement: Placement | None
    channels: int

    @classmethod
    def from_worker(cls, worker: Worker) -> WatchedLayer:
        """Return the layer of a job.

        Raises:
            RequestError: the job names several layers.
        """
        explainer = worker.explainer
        layers = explainer.layers
        if len(layers) > 1:
            raise RequestError(
                f"channels are ranked for one layer, and {len(layers)} are named: {shorten(layers, len(layers))}",
                "name one, and run the command again for the others",
            )
        name = layers[0]
        located = explainer.locations.get(name)
        return cls(
            name,
            explainer.layouts[name],
            # The forward pass stops at a layer that is called once; the last of several calls is known only at its end.
            worker.job.call or int(explainer.calls[name] == 1),
            located.placement if located else None,
            explainer.channel_counts[name],
        )


def watch_batches(
    worker: Worker, layer: WatchedLayer, batches: Iterable[list[Item]], reduce: ReduceActivations
) -> Iterator[list[tuple[Item, ActivationResult]]]:
    """Yield each batch's images with what is kept of their activations; None for one that cannot be read."""
    return map_batches(worker, lambda explainer, batch: _watch_batch(worker, layer, explainer, batch, reduce), batches)


def _watch_batch(
    worker: Worker, layer: WatchedLayer, explainer: Explainer, batch: Sequence[Item], reduce: ReduceActivations
) -> list[tuple[Item, ActivationResult]]:
    ready = [item for item in batch if item.input is not None]
    found = run_in_fitting_batches(
        worker,
        explainer,
        ready,
        lambda some: read_activations(worker, layer, explainer, some, reduce),
        lambda item: _watch_one(worker, layer, explainer, item, reduce),
    )
    results = iter(found)
    pairs = [(item, None if item.input is None else next(results)) for item in batch]
    for item in ready:
        item.input = None
    return pairs


def _watch_one(
    worker: Worker, layer: WatchedLayer, explainer: Explainer, item: Item, reduce: ReduceActivations
) -> ActivationResult:
    try:
        return read_activations(worker, layer, explainer, [item], reduce)[0]
    except RequestError:
        raise
    except Exception as error:  # any error is this image's alone, and the others go on
        return PictureError(f"the network fails on this image: {first_line(error)}")


def read_activations(
    worker: Worker, layer: WatchedLayer, explainer: Explainer, items: Sequence[Item], reduce: ReduceActivations
) -> list[ActivationResult]:
    """Return what is kept of the activations of images in one batch; may raise anything."""
    module = explainer.module
    images = devices.stack_for(explainer.device, [item.input for item in items if item.input is not None])
    place = explainer.tensor_indices.get(layer.name, 0)
    with worker.computing():
        output = layer_output(module, layer.name, devices.copy_to_module(module, images), layer.call, place)
    cells = to_nchw(output, layer.layout).float()
    if len(cells) != len(items):
        raise ValueError(f"the layer {layer.name!r} returns {len(cells)} outputs for {len(items)} images")
    finite = cells.isfinite().flatten(1).all(1).tolist()
    broken = PictureError(
        f"the layer {layer.name!r} returns NaN or infinite values for this image",
        "the weights contain such values, or half precision overflows (then --precision fp32 helps)",
    )
    return [kept if ok else broken for kept, ok in zip(reduce(cells, items), finite, strict=True)]


def pool_channels(cells: Float[Tensor, "n c h w"], views: Sequence[View]) -> Float32[np.ndarray, "n c"]:
    """Return the mean of each channel over the cells that show any of the image, and not padding alone."""
    shown = torch.from_numpy(np.stack([view.visible_cells(tuple(cells.shape[2:])) for view in views])).to(cells.device)
    if bool(shown.all()):
        return np.asarray(cells.mean((2, 3)).numpy(force=True))
    sums = cells.where(shown[:, None], 0).sum((2, 3))
    return np.asarray((sums / shown.sum((1, 2))[:, None]).numpy(force=True))
