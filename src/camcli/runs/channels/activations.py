"""The activations of one layer, picture by picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.base.words import first_line, several
from camcli.engine import devices
from camcli.engine.explainer import Explainer
from camcli.engine.hooks.watch import output_of
from camcli.engine.layers.layout import Layout, canonical
from camcli.images.placement import Placement
from camcli.images.view import View
from camcli.runs.worker.item import Item
from camcli.runs.worker.pipeline import explain_apart, spread_batches
from camcli.runs.worker.worker import Worker

# From the activations of pictures (n, c, h, w) to what is kept of them, picture by picture.
Kept = Callable[[Tensor, Sequence[Item]], Sequence[np.ndarray]]
# That of one picture, or why there is none; None of a picture that cannot be seen.
Said = np.ndarray | PictureError | None


@dataclass(frozen=True, slots=True)
class WatchedLayer:
    """The one layer whose channels are ranked.

    Attributes:
        name: its path.
        layout: how its output lies in memory.
        turn: which of its runs in a forward counts; 0 for the last.
        placement: where its cells lie in the model's input, where that was measured.
        channels: how many it has.
    """

    name: str
    layout: Layout
    turn: int
    placement: Placement | None
    channels: int

    @classmethod
    def of(cls, worker: Worker) -> WatchedLayer:
        """The layer of a job.

        Raises:
            RequestError: there are several.
        """
        explainer = worker.explainer
        layers = explainer.layers
        if len(layers) > 1:
            raise RequestError(
                f"the channels of one layer are ranked, and {len(layers)} are named: {several(layers, len(layers))}",
                "name one, and give the command again for the others",
            )
        name = layers[0]
        located = explainer.located.get(name)
        return cls(
            name,
            explainer.layouts[name],
            # A layer that runs once ends the forward; of several runs the last is known at the end only.
            worker.job.call or int(explainer.runs[name] == 1),
            located.placement if located else None,
            explainer.channels[name],
        )


def watch_batches(
    worker: Worker, layer: WatchedLayer, batches: Iterable[list[Item]], kept: Kept
) -> Iterator[list[tuple[Item, Said]]]:
    """Batch by batch each picture, with what is kept of its activations; None where it cannot be seen."""
    return spread_batches(worker, lambda explainer, batch: _watch_batch(worker, layer, explainer, batch, kept), batches)


def _watch_batch(
    worker: Worker, layer: WatchedLayer, explainer: Explainer, batch: Sequence[Item], kept: Kept
) -> list[tuple[Item, Said]]:
    ready = [item for item in batch if item.input is not None]
    found = explain_apart(
        worker,
        explainer,
        ready,
        lambda some: read_activations(worker, layer, explainer, some, kept),
        lambda item: _watch_alone(worker, layer, explainer, item, kept),
    )
    said = iter(found)
    pairs = [(item, None if item.input is None else next(said)) for item in batch]
    for item in ready:
        item.input = None
    return pairs


def _watch_alone(worker: Worker, layer: WatchedLayer, explainer: Explainer, item: Item, kept: Kept) -> Said:
    try:
        return read_activations(worker, layer, explainer, [item], kept)[0]
    except RequestError:
        raise
    except Exception as error:  # whatever it is, it is this picture's, and the others go on
        return PictureError(f"the network fails on this picture: {first_line(error)}")


def read_activations(
    worker: Worker, layer: WatchedLayer, explainer: Explainer, items: Sequence[Item], kept: Kept
) -> list[Said]:
    """What is kept of the activations of pictures in one batch; may raise anything."""
    module = explainer.module
    images = devices.batch_for(explainer.device, [item.input for item in items if item.input is not None])
    place = explainer.places.get(layer.name, 0)
    with worker.computing():
        said = output_of(module, layer.name, devices.copied_to(module, images), layer.turn, place)
    cells = canonical(said, layer.layout).float()
    if len(cells) != len(items):
        raise ValueError(f"the layer {layer.name!r} gives {len(cells)} outputs for {len(items)} pictures")
    sound = cells.isfinite().flatten(1).all(1).tolist()
    broken = PictureError(
        f"the layer {layer.name!r} gives NaN or infinite values for this image",
        "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
    )
    return [own if good else broken for own, good in zip(kept(cells, items), sound, strict=True)]


def pooled(cells: Float[Tensor, "n c h w"], views: Sequence[View]) -> Float32[np.ndarray, "n c"]:
    """The mean of each channel over the cells that show any of the picture, and not padding alone."""
    shown = torch.from_numpy(np.stack([view.shown(tuple(cells.shape[2:])) for view in views])).to(cells.device)
    if bool(shown.all()):
        return np.asarray(cells.mean((2, 3)).numpy(force=True))
    sums = cells.where(shown[:, None], 0).sum((2, 3))
    return np.asarray((sums / shown.sum((1, 2))[:, None]).numpy(force=True))
