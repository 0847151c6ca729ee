"""A job resolved, and pictures streaming through it: decoded ahead in threads, explained in batches."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camcli.concepts import MOST_PICTURES, spread_first
from camcli.errors import CamcliError, PictureError, RequestError, did_you_mean
from camcli.explainer import Explainer, Result
from camcli.geometry import View
from camcli.job import Explanation, Job, factors
from camcli.network import Network
from camcli.pictures import Picture, Source, colour, decode, find, upright
from camcli.question import asked
from camcli.region import Region, rectangle
from camcli.signature import written
from camcli.stream import ahead, batched
from camcli.survey import probe_image
from camcli.targets import parsed

# Measured: on a CPU, batches larger than 8 are no faster.
CPU_BATCH = 8
GPU_BATCH = 32
ONE_COLOUR = "the picture is one colour: what is drawn comes from the network's borders"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True)
class Item:
    """One picture on its way.

    Attributes:
        source: where it is.
        image: the decoded upright RGB picture, where the caller has it already.
        stamp: its file's size and time of change.
        skipped: nothing is to be done for it; it rides along.
        error: why it cannot be explained at all.
        picture: its pixels, and what the model sees of them.
        input: the model's input, ``(3, h, w)``.
        seen: for models that score every pixel: which part of the input is picture, ``(h, w)``.
        region: likewise, over which part is summed, if one is given.
        results: class by class, layer by layer, a map or why there is none.
        notes: what a reader of any of its maps must know.
        seconds: what it has taken so far.
    """

    source: Source
    image: Image.Image | None = None
    stamp: str = ""
    skipped: bool = False
    error: PictureError | None = None
    picture: Picture | None = None
    input: Tensor | None = None
    seen: Tensor | None = None
    region: Tensor | None = None
    results: Sequence[Result] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class Worker:
    """Everything that explains pictures, resolved and tried on one image, so that mistakes surface before the first.

    Args:
        job: what is asked.

    Attributes:
        network: on its device, in its precision.
        explainer: the methods at the layers asked for.
        target: from a picture's path and scores to its classes.
        device: where the network is.
        batch_size: pictures in one forward.
        workers: threads that decode.
        explains: what number the maps explain, in words for people.
        notes: what the user must know about all the maps; may grow while pictures are done.
        sha256: of the weights.
        fingerprint: of the job and of what it was resolved to: 16 hex digits that change when anything changes that
            could change a picture's files.

    Raises:
        RequestError: anything in the job that cannot be.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.device = _device(job.device)
        colour(job.background)
        self.region = _region(job)
        question = asked(job)
        network = question.network
        _check_fits(job, network)
        # Before the precision is changed, so that the same weights have the same hash in every run.
        self.sha256 = network.sha256()
        self.fingerprint = _fingerprint(job, network, self.sha256)
        self.network = replace(network, module=network.module.to(self.device, PRECISIONS[job.precision]))
        self.batch_size = job.batch_size or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        self.explainer = Explainer(
            self.network,
            layers=job.layers,
            method=job.method,
            options=job.options,
            layout=job.layout,
            call=job.call,
            fuse=job.fuse,
            scales=factors(job.scales),
            flips=job.augment,
            eigen_smooth=job.eigen_smooth,
            rows=self.batch_size,
            score=job.score,
            versus=question.versus,
            counterfactual=job.counterfactual,
            channels=question.strongest,
        )
        self.target = question.target
        self.workers = job.workers or min(4, os.cpu_count() or 1)
        try:
            self.explainer.check(probe_image(network.prepare.size, torch.float32, torch.device("cpu")))
        except CamcliError:
            raise
        except Exception as error:
            height, width = network.prepare.size
            raise RequestError(
                f"{network.name} fails on an image of {height}x{width} "
                f"in {job.precision} on {self.device}: {_first_line(error)}",
                "try --precision fp32, or --device cpu",
            ) from error
        self._check_channels()
        self.notes = [*network.notes, *question.notes, *self.explainer.notes]
        if job.size:
            self.notes += _uneven(self.explainer.grids, network.prepare.size)
        self.explains = self.explainer.says(bool(job.region))

    def _check_channels(self) -> None:
        """See that the layer has the channels asked for, before the first picture."""
        if any(recipe.of_channel for recipe in self.explainer.recipes) and not self.explainer.strongest:
            for word in self.job.target:
                row, argument = parsed(word)
                for number in argument.split(",") if row == "channel" else ():
                    self.explainer.check_channel(int(number))

    def fit(self, items: Iterable[Item]) -> int:
        """Find concepts in the first pictures that can be used, before any is explained; returns how many they were.

        Raises:
            RequestError: what the layers say of them are no numbers.
        """
        used = 0

        def samples() -> Iterator[dict[str, Tensor]]:
            nonlocal used
            decoded = ahead(self._decoded, items, self.workers, self.batch_size + self.workers)
            inputs = (item.input for item in decoded if item.input is not None)
            for batch in batched(inputs, self.batch_size):
                for count, cells in self._cells(batch[: MOST_PICTURES - used]):
                    used += count
                    yield cells
                if used >= MOST_PICTURES:
                    return

        self.explainer.fit(samples())
        if used and not self.explainer.fitted:
            raise RequestError(
                f"what {', '.join(self.explainer.layers)} says of {used} picture(s) holds NaN or infinite values, so "
                "there are no concepts in it",
                "the weights hold such values, or half precision overflows (then --precision fp32 helps)",
            )
        return used

    def _cells(self, images: Sequence[Tensor]) -> list[tuple[int, dict[str, Tensor]]]:
        """Cells of so many images; what the network fails on is left out, and told when it is explained."""
        try:
            return [(len(images), self.explainer.cells(torch.stack(list(images)), MOST_PICTURES))]
        except RequestError:
            raise
        except Exception:  # whatever it is, it is one image's
            if len(images) == 1:
                return []
        return [one for image in images for one in self._cells([image])]

    def stream(self, items: Iterable[Item]) -> Iterator[Item]:
        """Items with their results, in order; at most two batches of pictures and the threads' own are held."""
        decoded = ahead(self._decoded, items, self.workers, self.batch_size + self.workers)
        for batch in batched(decoded, self.batch_size, counts=lambda item: item.input is not None):
            yield from self._explained(batch)

    def _decoded(self, item: Item) -> Item:
        if item.skipped:
            return item
        began = time.perf_counter()
        try:
            if item.source.error:
                raise PictureError(item.source.error)
            image = item.image or decode(item.source.path, self.job.background)
            item.input, view = self.network.prepare(image)
            item.picture = Picture(item.source, np.asarray(image), view)
            item.notes = (ONE_COLOUR,) if _one_colour(item.picture.pixels) else ()
            if self.network.outlet.task == "segment":
                item.seen = _inside(Region(), view)
                item.region = _inside(self.region, view) if self.region else None
        except PictureError as error:
            item.error, item.input = error, None
        except Exception as error:  # whatever it is, it is this picture's, and the others go on
            item.input = None
            item.error = PictureError(f"it cannot be prepared for the model: {_first_line(error)}")
        item.seconds += time.perf_counter() - began
        return item

    def _explained(self, batch: Sequence[Item]) -> Sequence[Item]:
        ready = [item for item in batch if item.input is not None]
        if not ready:
            return batch
        began = time.perf_counter()
        found: list[list[Result]] | None = None
        try:
            found = self._results(ready)
        except RequestError:
            raise
        except torch.OutOfMemoryError:
            self._note(f"{self.device} has not enough memory for {len(ready)} pictures at a time: --batch-size")
        except Exception as error:
            self._note(f"a batch failed and was done picture by picture: {_first_line(error)}")
        if found is None:  # not in the handlers: they would hold on to the failed batch's memory
            found = [self._alone(item) for item in ready]
        share = (time.perf_counter() - began) / len(ready)
        for item, results in zip(ready, found, strict=True):
            item.input, item.seen, item.region = None, None, None
            item.results = [_noted(_in_picture(result, item.picture), item.notes) for result in results]
            item.seconds += share
        return batch

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _results(self, items: Sequence[Item]) -> list[list[Result]]:
        images = torch.stack([item.input for item in items if item.input is not None])
        seen, region = (_stacked(masks) for masks in ([one.seen for one in items], [one.region for one in items]))
        return self.explainer.results(
            images, lambda row, scores: self.target(items[row].source.path, scores), seen, region
        )

    def _alone(self, item: Item) -> list[Result]:
        try:
            return self._results([item])[0]
        except RequestError:
            raise
        except PictureError as error:
            return [error]
        except Exception as error:
            return [PictureError(f"the network fails on this picture: {_first_line(error)}")]


def explain(
    images: str | Path | Image.Image | Iterable[str | Path | Image.Image],
    *,
    on_error: Callable[[str, PictureError], Any] | None = None,
    **options: Any,
) -> Iterator[Explanation]:
    """Explain pictures one after the other, lazily; nothing is written.

    ``for explanation in camcli.explain("photos", model="resnet50", layer="layer4", target="top:2"): ...``

    Args:
        images: a file, folder, glob or ``@list``; a picture of Pillow's; or several of these.
        on_error: called with the picture's name and the reason for each map that cannot be made; default: raise it.
        **options: fields of :class:`camcli.Job`, as ``model``, ``method``, ``text``, ``targets``, ``batch_size``;
            ``layer``, ``method`` and ``target`` may be one or several, ``options`` of methods a dict
            (``{"samples": 8}``), ``scales`` numbers, and ``size`` a number or height and width.

    Yields:
        For each picture its explanations, class by class, layer by layer, with ``source`` and ``view`` set:
        ``explanation.view.onto_picture(explanation.map)`` is the map at the picture's own pixels.

    Raises:
        RequestError: anything in the options that cannot be, before the first picture.
        PictureError: a picture has no map, unless ``on_error`` is given.
    """
    several = [images] if isinstance(images, str | Path | Image.Image) else images
    named = [str(one) for one in several if isinstance(one, str | Path)] if isinstance(several, Sequence) else []
    worker = Worker(_job(options, named))

    def items() -> Iterator[Item]:
        for number, one in enumerate(several):
            if isinstance(one, Image.Image):
                yield _in_memory(one, f"image-{number}", worker.job.background)
            else:
                yield from map(Item, _found(one, worker, checked=one is images))

    if worker.explainer.fits:
        if not isinstance(several, Sequence):
            raise RequestError(
                "concepts are found in several pictures together before the first is explained, and these come one by "
                "one",
                "give a list of them; or let each picture have concepts of its own: options={'over': 'picture'}",
            )
        worker.fit(spread_first(items, sum(1 for _ in items())))
    return _explanations(worker.stream(items()), on_error)


def _found(path: str | Path, worker: Worker, checked: bool) -> Iterator[Source]:
    """The pictures that one path stands for; one of several that stands for nothing is reported in its place."""
    try:
        return find([str(path)], out=Path(worker.job.out))
    except RequestError as error:
        if checked:
            raise
        return iter([Source(Path(path), str(path), error.message)])


def _in_memory(image: Image.Image, name: str, background: str) -> Item:
    # Converted before the next is drawn, since the caller may then close it.
    try:
        return Item(Source(Path(name), name), image=upright(image, background))
    except PictureError as error:
        return Item(Source(Path(name), name, error.message))


def _explanations(items: Iterator[Item], on_error: Callable[[str, PictureError], Any] | None) -> Iterator[Explanation]:
    for item in items:
        name = str(item.source.path)
        for result in [item.error] if item.error else item.results:
            if isinstance(result, Explanation):
                yield replace(result, source=name, view=item.picture.view if item.picture else None)
            elif on_error is None:
                raise PictureError(f"{name}: {result.message}", result.hint)
            else:
                on_error(name, result)


def _job(options: dict[str, Any], inputs: Sequence[str]) -> Job:
    """The job that keyword options amount to; a single value will do where a job has several."""
    named = {{"layer": "layers"}.get(name, name): value for name, value in options.items()}
    known = Job.__dataclass_fields__
    for name, value in named.items():
        if name not in known or name == "inputs":
            raise RequestError(
                f"there is no option {name!r}", did_you_mean(name, known) or f"there are: {', '.join(known)}"
            )
        if known[name].type.startswith("tuple"):
            if isinstance(value, Mapping):
                value = [f"{option}={written(given)}" for option, given in value.items()]
            named[name] = (str(value),) if isinstance(value, str | int) else tuple(map(str, value))
        if name in ("method", "scales") and not isinstance(value, str):
            named[name] = ",".join(map(str, [value] if isinstance(value, int | float) else value))
        if name == "size" and not isinstance(value, str):
            named[name] = "x".join(map(str, [value] if isinstance(value, int) else value))
    return Job(**named, inputs=tuple(inputs))


def _region(job: Job) -> Region | None:
    """The region that the job names.

    Raises:
        RequestError: it names none.
    """
    if not job.region:
        return None
    found = rectangle(job.region)
    if found:
        return found
    try:
        pixels = np.asarray(decode(Path(job.region), "#000000"))
    except PictureError as error:
        raise RequestError(
            f"the region {job.region!r} is neither x0,y0,x1,y1 nor a picture that can be read: {error.message}",
            "give a rectangle in pixels, or a mask that is black outside the region",
        ) from error
    return Region(mask=pixels.max(axis=2) > 0)


def _check_fits(job: Job, network: Network) -> None:
    """Options that only some models give a meaning."""
    if job.region and network.outlet.task != "segment":
        raise RequestError(
            f"{network.name} does not score every pixel, so a region means nothing to it", "leave --region out"
        )
    if job.min_score != Job().min_score and network.outlet.task != "detect":
        raise RequestError(
            f"{network.name} finds no boxes, so a least score means nothing to it", "leave --min-score out"
        )


def _inside(region: Region, view: View) -> Tensor:
    """Which pixels of the model's input lie in a region of the picture."""
    return torch.from_numpy(region.at(*view.centres(), view.picture))


def _stacked(masks: Sequence[Tensor | None]) -> Tensor | None:
    there = [mask for mask in masks if mask is not None]
    return torch.stack(there) if there else None


def _in_picture(result: Result, picture: Picture | None) -> Result:
    """A result with its box in pixels of the picture."""
    if isinstance(result, PictureError) or result.box is None or picture is None:
        return result
    return replace(result, box=picture.view.corners(result.box))


def _device(name: str) -> torch.device:
    """The device of this name; ``auto`` is the best there is.

    Raises:
        RequestError: there is no such device here.
    """
    here = ["cpu"]
    here += [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return torch.device(here[1] if len(here) > 1 else "cpu")
    if name == "cuda" and "cuda:0" in here:
        return torch.device("cuda:0")
    if name not in here:
        raise RequestError(f"there is no device {name!r} here", f"there are: auto, {', '.join(here)}")
    return torch.device(name)


def _uneven(grids: dict[str, tuple[int, int]], size: tuple[int, int]) -> list[str]:
    """What is to be said of layers whose cells cannot cover an input of the size asked evenly."""
    height, width = size
    return [
        f"the {rows}x{columns} cells of {layer} do not divide {height}x{width} evenly, so its maps can lie up to a "
        "cell off towards the lower and right edges; a --size in multiples of the stride (often 32) avoids that"
        for layer, (rows, columns) in grids.items()
        if height % rows or width % columns
    ]


def _fingerprint(job: Job, network: Network, sha256: str) -> str:
    """A fingerprint of what was asked and of what it was resolved to, since names stand for changing things."""
    resolved = [job.fingerprint, sha256, repr(network.prepare), repr(network.labels)]
    return hashlib.sha256("\n".join(resolved).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _one_colour(pixels: np.ndarray) -> bool:
    # Every 16th pixel first, which tells nearly every other picture.
    return all(bool((some == pixels[0, 0]).all()) for some in (pixels[::16, ::16], pixels))


def _noted(result: Result, notes: tuple[str, ...]) -> Result:
    return replace(result, notes=(*result.notes, *notes)) if notes and isinstance(result, Explanation) else result


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
