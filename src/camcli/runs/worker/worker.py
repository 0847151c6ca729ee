"""A job resolved, and pictures streaming through it: decoded ahead in threads, explained in batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from camcli.base.errors import CamcliError, PictureError, RequestError
from camcli.base.paths import absolute
from camcli.engine import devices, factors
from camcli.engine.choose import ONE_TARGET, disagreement
from camcli.engine.explainer import Explainer
from camcli.engine.explanation import Explanation
from camcli.engine.input_channels import channels_in_words
from camcli.engine.layers.probe import probe_image
from camcli.engine.maps.concepts import MOST_PICTURES
from camcli.engine.maps.method import recipes
from camcli.engine.maps.result import Result
from camcli.engine.network import Network
from camcli.engine.precision import DTYPES, arithmetic
from camcli.engine.speed.compiling import Compilation
from camcli.images import BY_FOLDER, depth, frames
from camcli.images.decode import Reduced, colour, decode, decode_reduced, pixels_of, undivided
from camcli.images.features import Extras, Features
from camcli.images.find import grouped
from camcli.images.manifest import several
from camcli.images.region import Region, rectangle
from camcli.images.source import PAUSE, Picture, Source
from camcli.images.transform import PICTURES
from camcli.images.view import View
from camcli.runs.job import fingerprint
from camcli.runs.job.job import Job
from camcli.runs.worker.decode_ahead import KEPT, Admit, Hold, Reading
from camcli.runs.worker.resolve import aimed, asked
from camcli.runs.worker.threads import batched, pieces, spread
from camcli.targets import parsed
from camcli.targets.named import Listed

# Images that go through a network at once where much is kept of each. With one thread PyTorch leaves 1 x 1 convolutions
# to oneDNN only from 16 images on, and its own code takes 1.6 times as long for all of a ResNet-50.
CPU_ROWS, ONE_THREAD_ROWS, GPU_ROWS = 8, 16, 32
# Where little is kept, on a CPU: 16 are up to a quarter faster than 8, and more of them little faster, if at all.
LIGHT_BATCH = 16
# As many pixels the pictures of a batch have together, which wait for what is drawn over them: 288 MB. Where a batch's
# size is somebody's word, or a GPU's, as many as so many photographs have.
PIXELS = 96_000_000
PHOTOGRAPH = 12_000_000
# Seconds of a run's forwards from which on compiling is tried unasked: it takes up to 16 of them, and wins of the rest
# 5 % (AVX-512) to 40 % (AMX, bf16).
COMPILED_FROM = 300
ONE_DEVICE = "name one device: --device cuda:0, or --device cpu"
ONE_COLOUR = "the picture is one colour: what is drawn comes from the network's borders"
# How notes of a picture begin that its user can change.
READ_SO = (depth.NARROW, depth.EIGHT, frames.ONE_OF)
IS = {frames.ONE_OF: "is read as "}


@dataclass(slots=True)
class Item:
    """One picture on its way.

    Attributes:
        source: where it is.
        image: the decoded upright picture, where the caller has it already.
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
        mates: how many pictures its group has, itself among them.
        hold: the room that its pixels take among those under way.
        short: it failed for lack of memory.
    """

    source: Source
    image: Reduced | None = None
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
    mates: int = 1
    hold: Hold | None = None
    short: bool = False

    @property
    def pixels(self) -> int:
        """How many pixels of it are held."""
        return self.hold.pixels if self.hold else 0

    def drop(self) -> Tensor | None:
        """Its pixels are needed no more, so that there is room for others'; gives its input."""
        self.picture = None
        if self.hold:
            self.hold.release()
        return self.input


R = TypeVar("R")
# Goes over the pictures of a run, anew each time that it is called.
Pictures = Callable[[], Iterator[Source]]


class Worker:
    """Everything that explains pictures, resolved and tried on one image, so that mistakes surface before the first.

    Args:
        job: what is asked.
        pictures: goes over all of them, if they are known beforehand; then what the files of targets and features lack
            is found too.
        total: how many there are, if that is known.

    Attributes:
        network: on its device, in its precision.
        explainer: the methods at the layers asked for.
        explainers: this one, and one for each further device, each with a copy of the network.
        target: from a picture's path and scores to its classes.
        wanted: the words of the targets, as they are meant where nobody named any.
        prompts: what pictures are compared with, if that is texts.
        devices: where the network and its copies are.
        batch_size: pictures in one forward.
        workers: threads that decode.
        shows_pixels: somebody shows the pictures at their own size, so that ``decode="reduced"`` must not reduce them.
        explains: what number the maps explain, in words for people.
        notes: what the user must know about all the maps; may grow while pictures are done.
        sha256: of the weights.
        counted: the parts of the job and of what it was resolved to that could change a picture's files, each as its
            value or its SHA-256.
        fingerprint: of all of them: 16 hex digits that change when any does.

    Raises:
        RequestError: anything in the job that cannot be.
    """

    def __init__(self, job: Job, pictures: Pictures | None = None, total: int | None = None) -> None:
        self.job = job
        self.devices = devices.named(job.device)
        colour(job.background)
        self.region = _region(job)
        _check_wrapping(job)
        folders = [Path(given) for given in job.inputs if Path(given).is_dir()]
        self.extras = Extras(Path(job.extras), folders) if job.extras else None
        if self.extras and pictures:
            self.extras.check(source.path for source in pictures() if not source.error)
        first = _first_group(job.group, pictures)
        count = len(first) if job.group else 0
        features = self.extras.some(count or 2, first) if self.extras else None
        question = asked(job, count, features)
        network = question.network
        _check_fits(job, network)
        _check_channels(job, network)
        # Before the precision is changed, so that the same weights have the same hash in every run.
        self.sha256 = network.sha256()
        # The methods that it comes to, since a name may stand for another one.
        methods = [one.row.name for one in recipes(job.method, job.options, network.outlet.task == "detect")]
        self.counted = fingerprint.parts(replace(job, method=",".join(methods)), network, self.sha256)
        device = self.devices[0]
        _check_shared(job, network, device)
        self.network = replace(network, module=network.module.to(device))
        given = job.batch_size or (int(job.group) if job.group and job.group != BY_FOLDER else 0)
        self._rows = given or _rows(device)
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
            rows=self._rows,
            group=bool(job.group),
            score=question.score,
            versus=question.versus,
            counterfactual=job.counterfactual,
            channels=question.strongest,
            recompute=job.recompute,
            placement=job.placement,
        )
        self.target, self.wanted, self.prompts = question.target, question.wanted, question.prompts
        self.shows_pixels = False
        self.workers = job.workers or devices.decoders(self.devices)
        try:
            noise = _noise(network, count or 1)
            # In full precision, so that weights are rounded once.
            if not network.shared:
                with self.computing():
                    self.explainer.rearrange(noise, features)
            with self.computing():
                self.explainer.locate(noise, features)
            if not network.shared:
                devices.cast(self.network.module, DTYPES[job.precision])
            with self.computing():
                began = time.perf_counter()
                self.explainer.check(noise, features)
                tried = time.perf_counter() - began
        except CamcliError:
            raise
        except Exception as error:
            self.explainer.check_channels(noise)
            height, width = network.prepare.size
            raise RequestError(
                f"{network.name} fails on {f'{count} images' if count else 'an image'} of {height}x{width} "
                f"in {job.precision} on {device}: {_first_line(error)}",
                _other_ways(job.precision, device),
            ) from error
        self.counted |= fingerprint.code(job, self.explainer.methods)
        if self.explainer.layers:
            self.counted["layers"] = ", ".join(self.explainer.layers)
        if self.explainer.one_by_one:
            self.counted["batches of"] = "1"
        self.fingerprint = fingerprint.fingerprint(self.counted)
        self.batch_size = 1 if self.explainer.one_by_one else given or self._batch_size(first)
        ordinary = self.batch_size * PHOTOGRAPH if given or device.type != "cpu" else 0
        self._most = max(PIXELS, ordinary)
        self._fits: dict[int, int] = {}
        if self.explainer.network is not self.network and self.explainer.network:
            self.network = self.explainer.network
            self.target = aimed(job, question, self.network)
        copies = [self._copied(device, noise, features) for device in self.devices[1:]]
        self.explainers = (self.explainer, *copies)
        self._check_channels()
        self._check_targets(pictures)
        self._check_prompts(pictures)
        self.notes = [*network.notes, *question.notes, *self._found_out()]
        if job.precision == "tf32" and device.type != "cuda":
            self.notes.append(f"TF32 is an arithmetic of GPUs: on {device} this is fp32")
        self._noting = Lock()
        self._read_so: set[str] = set()
        if job.compile != "off":
            self.notes += self._compiled(total or 0, tried)
        placed = {name for name, one in self.explainer.located.items() if one.placement}
        grids = {name: grid for name, grid in self.explainer.grids.items() if name not in placed}
        self.notes += _uneven(grids, network.prepare.size)
        self.explains = self.explainer.says(bool(job.region))
        if job.group:
            each = "one for all pictures of a group" if self.explainer.shared else "one for each picture of a group"
            self.explains += f"; {each}"

    def computing(self) -> AbstractContextManager[None]:
        """While it lasts, networks compute in the job's precision, whatever the process is set to."""
        return arithmetic(self.job.precision)

    def _batch_size(self, first: Sequence[Path]) -> int:
        """How many pictures in one forward are fast, for little memory: fewer if the first is large."""
        if self.devices[0].type != "cpu":
            return self._rows
        most = self._rows if self.explainer.keeps_much else LIGHT_BATCH
        pixels = max(map(pixels_of, first), default=0)
        return max(1, min(most, PIXELS // pixels)) if pixels else most

    def _copied(self, device: torch.device, noise: Tensor, features: Features | None) -> Explainer:
        """An explainer with a network of its own on another device.

        Raises:
            RequestError: the network cannot be copied, or fails there.
        """
        name = self.network.name
        try:
            with self.computing():
                return self.explainer.on(device, noise, features)
        except CamcliError as error:
            raise RequestError(f"{name} cannot be copied to {device}: {error.message}", ONE_DEVICE) from error
        except Exception as error:  # whatever it is, the network works where it is
            raise RequestError(f"{name} cannot be copied to {device}: {_first_line(error)}", ONE_DEVICE) from error

    def _found_out(self) -> Sequence[str]:
        """What the explainers have to say of all maps so far, each thing once."""
        return tuple(dict.fromkeys(note for explainer in self.explainers for note in explainer.notes))

    @property
    def where(self) -> str:
        """The devices, in words for people."""
        return ", ".join(map(str, self.devices))

    def _compiled(self, total: int, tried: float) -> list[str]:
        """Compile what can be, if it is asked for or the run is long; what the user must know of it.

        Args:
            total: how many pictures there are; 0 if that is not known.
            tried: seconds that noise took, alone, which is longer than a picture takes in a batch.
        """
        wanted = self.job.compile == "on"
        if not wanted and total * tried < COMPILED_FROM:
            return []
        least = 0.0 if wanted else COMPILED_FROM * self.batch_size / total
        noise = _noise(self.network, self.batch_size)
        why = "features come with the pictures" if self.extras else ""
        if len(self.devices) > 1:
            why = "whether it pays is measured on one device, and several are named, which must say the same"
        with self.computing():
            done = Compilation(reason=why) if why else self.explainer.compile(noise, least)
        if done.reason:
            return [f"nothing is compiled: {done.reason}"] if wanted else []
        pays = math.ceil(done.pays_after * self.batch_size)
        before, after = (1000 * seconds / self.batch_size for seconds in (done.before, done.after))
        return [
            f"compiled in {done.seconds:.0f} s: {', '.join(done.parts)}; {before:.1f} ms a picture became {after:.1f}, "
            f"which pays from {pays} pictures on"
        ]

    def _check_channels(self) -> None:
        """See that the layer has the channels asked for, before the first picture."""
        if any(recipe.of_channel for recipe in self.explainer.recipes) and not self.explainer.strongest:
            for word in self.job.target:
                row, argument = parsed(word)
                for number in argument.split(",") if row == "channel" else ():
                    self.explainer.check_channel(int(number))

    def _check_prompts(self, pictures: Pictures | None) -> None:
        """See that every picture has prompts of its own, if these are known, and that the methods can do with them."""
        own = self.prompts.own if self.prompts else None
        if own is None:
            return
        if named := [recipe.row.name for recipe in self.explainer.recipes if "logits" in recipe.wants]:
            raise RequestError(
                f"{' and '.join(named)} finds rivals among all prompts, and {own.file} gives each picture its own",
                "choose another method, such as gradcam; or give all pictures the same prompts",
            )
        if pictures is not None:
            own.check(source.path for source in pictures() if not source.error)

    def _check_targets(self, pictures: Pictures | None) -> None:
        """See that the file of targets fits the pictures, if these are known.

        Raises:
            RequestError: it lacks some; or lists others too, where pictures are grouped; or the pictures of a group
                with one prediction do not agree, or none of them is listed.
        """
        target = self.target
        if not isinstance(target, Listed) or pictures is None:
            return
        if not (self.job.group and self.explainer.shared):
            target.check(source.path for source in pictures() if not source.error)
            unused = target.unused(source.path for source in pictures()) if self.job.group else []
            if unused:
                total = sum(1 for _ in pictures())
                raise RequestError(
                    f"{target.file} lists targets of {total + len(unused)} pictures, and there are {total}: not among "
                    f"them {'is' if len(unused) == 1 else 'are'} {several(unused, len(unused))}",
                    "give one target for each picture of the groups",
                )
            return
        for number, group in enumerate(grouped(pictures(), self.job.group, lambda one: one.path), start=1):
            said = [found for one in group if (found := target.of(one.path))]
            if not said:
                raise RequestError(
                    f"{target.file} lists no target for group {number}, {_names(group)}", "list one of its pictures"
                )
            if len(set(said)) > 1:
                raise RequestError(
                    f"the model gives one prediction for a group, and of group {number}, {_names(group)}, in "
                    f"{target.file} {disagreement(said)}",
                    ONE_TARGET,
                )

    def fit(self, items: Iterable[Item]) -> int:
        """Find concepts in the first pictures that can be used, before any is explained; returns how many they were.

        Raises:
            RequestError: what the layers say of them are no numbers; or the model needs more than pictures.
        """
        if self.extras:
            raise RequestError(
                "concepts of several pictures are found without the features beside them (--extras), which the model "
                "needs",
                "let each picture have concepts of its own: -o over=picture",
            )
        used = 0

        def samples() -> Iterator[dict[str, Tensor]]:
            nonlocal used
            inputs = (item.drop() for item in filter(None, self._read(items)))
            for batch in batched((one for one in inputs if one is not None), self.batch_size):
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
            with self.computing():
                return [(len(images), self.explainer.cells(torch.stack(list(images)), MOST_PICTURES))]
        except RequestError:
            raise
        except Exception:  # whatever it is, it is one image's
            if len(images) == 1:
                return []
        return [one for image in images for one in self._cells([image])]

    def stream(
        self, items: Iterable[Item], begin: Callable[[Sequence[Item]], None] = lambda group: None
    ) -> Iterator[Item]:
        """Items with their results, in order, as :meth:`paused_stream` gives them."""
        with closing(self.paused_stream(items, begin)) as given:
            yield from filter(None, given)

    def paused_stream(
        self, items: Iterable[Item], begin: Callable[[Sequence[Item]], None] = lambda group: None
    ) -> Generator[Item | None, None, None]:
        """Items with their results, in order; at most two batches of pictures and the threads' own are held.

        With several devices these are two for each, and one more. None is given where no other comes for a while.

        Args:
            items: pictures; of a group all of them, also those that need not be done if no other must.
            begin: is told each group before it is begun, and may mark its items.
        """
        # Concepts may have been found, or read from a file, since the copies were made.
        for copy in self.explainers[1:]:
            copy.fitted = self.explainer.fitted
        batches = self._batches(self._grouped(items, begin) if self.job.group else items)
        # Not a loop: its variable would hold on to a batch while the next is explained.
        explained = self.spread(self._explained, batches)
        yield from chain.from_iterable(map(_or_pause, explained))

    def spread(self, work: Callable[[Explainer, list[Item]], R], batches: Iterable[list[Item]]) -> Iterator[R]:
        """``work`` of each batch, in order, with the explainer of whichever device is free; in a thread if several."""
        # Copies on the CPU keep PyTorch's number of threads: with fewer, sums come out with another rounding.
        return spread(work, batches, self.explainers, pauses=lambda batch: not batch)

    def batches(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Items as they are decoded, in order, in batches of as many pictures as go through the network at once."""
        with closing(self._batches(items)) as given:
            yield from filter(None, given)

    def _batches(self, items: Iterable[Item]) -> Generator[list[Item], None, None]:
        """Likewise, with an empty one where nothing comes for a while."""
        read = self._read(items)
        if self.job.group:
            return pieces(filter(None, read), lambda item: item.mates)
        return batched(read, self.batch_size, lambda item: item.input is not None, lambda item: item.pixels, self._most)

    def _read(self, items: Iterable[Item]) -> Iterator[Item | None]:
        """Items as they are decoded, in order; None where nothing comes for a while."""
        # A batch is explained while the next is collected, and others are written; of several devices each has two.
        under_way = 2 * len(self.devices) if len(self.devices) > 1 else 1
        reading = Reading(
            self._decoded,
            workers=self.workers,
            depth=self.batch_size + self.workers,
            most=(under_way + 1) * self._most + PIXELS,
            seconds=self.job.timeout,
            late=self._late,
            again=self._lacked_memory,
            # A group is not divided, so whoever waits for the rest of it has nothing to give back.
            kept=0.0 if self.job.group else KEPT,
            pauses=lambda item: item.source is PAUSE,
        )
        return map(self._heard, reading(items))

    def _late(self, item: Item) -> Item:
        why, hint = (
            f"is not decoded after {self.job.timeout:g} s",
            "--timeout SECONDS gives it more, 0 as many as it takes",
        )
        return replace(item, error=PictureError(why, hint))

    def _lacked_memory(self, item: Item) -> bool:
        if item.short:
            self._note("memory was short while several pictures were decoded, so fewer are at a time from then on")
        return item.short

    def _grouped(self, items: Iterable[Item], begin: Callable[[Sequence[Item]], None]) -> Iterator[Item]:
        """The items group by group; a group of which one must be done is done as a whole."""
        folders: set[int] = set()
        items = (item for item in items if item.source is not PAUSE)
        for group in grouped(items, self.job.group, lambda item: item.source.path):
            begin(group)
            wrong = _unlike_a_group(self.job.group, group, folders)
            skipped = all(item.skipped for item in group)
            for item in group:
                item.mates, item.skipped = len(group), skipped
                item.error = item.error or (PictureError(*wrong) if wrong else None)
            yield from group

    def _decoded(self, given: Item, admit: Admit) -> Item:
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
            opened = self._opened(item, admitted)
            image = opened.image
            if self.extras:
                self.extras.of([item.source.path])
            if self.prompts:
                self.prompts.among(item.source.path)
            prepare = self.network.prepare
            full = self.job.decode == "full"
            if opened.planes is not None:
                item.input, view = prepare.planes(opened.planes)
            else:
                item.input, view = prepare(image) if full else prepare.reduced(image, opened.size, opened.box)
            item.picture = Picture(item.source, np.asarray(image), view)
            item.notes = opened.notes + ((ONE_COLOUR,) if _one_colour(item.picture.pixels) else ())
            if self.network.outlet.task == "segment":
                item.seen = _inside(Region(), view)
                item.region = _inside(self.region, view) if self.region else None
        except PictureError as error:
            self._fail(item, error.message, error.hint, error.__cause__)
        except Exception as error:  # whatever it is, it is this picture's, and the others go on
            self._fail(item, f"it cannot be prepared for the model: {_first_line(error)}", "", error)
        item.seconds += time.perf_counter() - began
        return item

    def _fail(self, item: Item, message: str, hint: str, cause: BaseException | None) -> None:
        """Nothing of the picture is kept: an error of its own, since the one that was raised holds on to the pixels."""
        item.error = PictureError(message, hint)
        item.short = cause is not None and devices.lacks_memory(cause)
        item.input = item.seen = item.region = item.picture = None
        if item.hold:
            item.hold.release()

    def _heard(self, item: Item | None) -> Item | None:
        """Have said once of the run what its user can change about how pictures are read; of each its notes say it."""
        if item is None:
            return None
        for note in item.notes:
            kind = next((kind for kind in READ_SO if note.startswith(kind)), None)
            if kind and kind not in self._read_so:
                self._read_so.add(kind)
                self._note(f"{item.source.shown} {IS.get(kind, '')}{note}")
        return item

    def _opened(self, item: Item, admit: Callable[[int], None]) -> Reduced:
        if item.image:
            admit(math.prod(item.image.size))
            return item.image
        full = self.job.decode == "full" or self.shows_pixels
        spare = undivided if full else self.network.prepare.spare
        return decode_reduced(
            item.source.path, spare, self.job.background, self.job.range, item.source.page, admit=admit
        )

    def _explained(self, explainer: Explainer, batch: Sequence[Item]) -> Sequence[Item]:
        if self.job.group:
            _fail_together(batch)
        ready = [item for item in batch if item.input is not None]
        if not ready:
            return batch
        began = time.perf_counter()
        if self.job.group:
            found = self._together(explainer, ready)
        else:
            found = self.apart(explainer, ready, partial(self._results, explainer), partial(self._alone, explainer))
        for note in explainer.notes:
            self._note(note)
        share = (time.perf_counter() - began) / len(ready)
        for item, results in zip(ready, found, strict=True):
            item.input, item.seen, item.region = None, None, None
            item.results = [_noted(_in_picture(result, item.picture), item.notes) for result in results]
            item.seconds += share
        return batch

    def apart(
        self,
        explainer: Explainer,
        items: Sequence[Item],
        together: Callable[[Sequence[Item]], list[R]],
        alone: Callable[[Item], R],
    ) -> list[R]:
        """What is said of pictures that have nothing to do with one another: of as many at a time as are known to fit.

        Args:
            explainer: whose device it is.
            items: the pictures.
            together: says it of several; may raise anything.
            alone: says it of one, or why nothing can be said.
        """
        found: list[R] = []
        before = fits = self._fits.get(id(explainer), len(items))
        while len(found) < len(items):
            some = items[len(found) : len(found) + fits]
            said = self._tried(some, together, alone)
            if said is None:
                fits = len(some) // 2
            else:
                found += said
        if fits < before:
            self._fits[id(explainer)] = fits
            self._note(
                f"{explainer.device} has not enough memory for {min(before, len(items))} pictures at a time: {fits} "
                f"went at a time from then on (--batch-size {fits})"
            )
        return found

    def _tried(
        self, some: Sequence[Item], together: Callable[[Sequence[Item]], list[R]], alone: Callable[[Item], R]
    ) -> list[R] | None:
        """What is said of them; None if there is not enough memory for so many, and for fewer there may be."""
        try:
            return together(some)
        except CamcliError:
            trouble = ""  # one picture's reason, which is told of it
        except Exception as error:
            if devices.lacks_memory(error) and len(some) > 1:
                return None
            trouble = _first_line(error)
        # Not in the handler: it would hold on to the failed batch's memory.
        if len(some) > 1 and trouble:
            self._note(f"a batch failed and was done picture by picture: {trouble}")
        return [alone(item) for item in some]

    def _together(self, explainer: Explainer, group: Sequence[Item]) -> list[list[Result]]:
        """The results of a group, which fails as a whole: no part of it is a group."""
        try:
            return self._results(explainer, group)
        except RequestError as error:
            # What holds for every group was found out before the first.
            reason = PictureError(f"its group of {len(group)} pictures: {error.message}", error.hint)
        except PictureError as error:
            reason = error
        except torch.OutOfMemoryError:
            reason = PictureError(f"{explainer.device} has not enough memory for its group of {len(group)} pictures")
        except Exception as error:
            reason = PictureError(f"the network fails on its group of {len(group)} pictures: {_first_line(error)}")
        return [[reason] for _ in group]

    def _note(self, text: str) -> None:
        with self._noting:
            if text not in self.notes:
                self.notes.append(text)

    def _results(self, explainer: Explainer, items: Sequence[Item]) -> list[list[Result]]:
        images = devices.batch_for(explainer.device, [item.input for item in items if item.input is not None])
        seen, region = (_stacked(masks) for masks in ([one.seen for one in items], [one.region for one in items]))
        paths = [item.source.path for item in items]
        extras = self.extras.of(paths) if self.extras else None
        among = [self.prompts.among(path) if self.prompts else () for path in paths]
        with self.computing():
            return explainer.results(
                images, lambda row, scores: self.target(paths[row], scores), seen, region, extras, among.__getitem__
            )

    def _alone(self, explainer: Explainer, item: Item) -> list[Result]:
        try:
            return self._results(explainer, [item])[0]
        except CamcliError as error:
            # What holds for every picture was found out before the first.
            return [error if isinstance(error, PictureError) else PictureError(error.message, error.hint)]
        except Exception as error:
            return [PictureError(f"the network fails on this picture: {_first_line(error)}")]


def _check_wrapping(job: Job) -> None:
    """What does not go together, before the network is loaded."""
    if job.group and job.batch_size:
        raise RequestError(
            f"both a group ({job.group}) and a batch size ({job.batch_size}) were given",
            "a group is a batch: leave --batch-size out",
        )
    if job.extras and not job.wrap:
        raise RequestError(
            f"features of the pictures ({job.extras}) were given, and nothing that takes them",
            "name a wrapper that does: --wrap path/to/file.py:Class, whose forward takes (images, features)",
        )


def _first_group(group: str, pictures: Pictures | None) -> list[Path]:
    """The pictures to try the network with: those of the first group (of several, if there is one), or the first.

    Raises:
        RequestError: the pictures do not make whole groups.
    """
    if pictures is None:
        return [Path()] * (1 if group in ("", BY_FOLDER) else int(group))
    if not group:
        return [source.path for source in islice(pictures(), 1)]
    first: list[Path] = []
    folders: set[int] = set()
    met = 0
    for some in grouped(pictures(), group, lambda one: one.path):
        met += len(some)
        # Of a single picture nobody can say whether its scores are its own or its group's.
        if not first or len(first) == 1 < len(some):
            first = [source.path for source in some]
        if wrong := _unlike_a_group(group, [Item(source) for source in some], folders, met):
            raise RequestError(*wrong)
    return first


def _unlike_a_group(group: str, items: Sequence[Item], folders: set[int], total: int = 0) -> tuple[str, str] | None:
    """Why these are no group, as a message and its hint.

    Args:
        group: what makes one.
        items: the pictures.
        folders: hashes of the folders met so far.
        total: of pictures, if it is known.
    """
    if group == BY_FOLDER:
        folder = items[0].source.path.parent
        place = absolute(folder)
        again = hash(place) in folders
        folders.add(hash(place))
        return (
            (f"the pictures of {str(folder)!r} come in two parts", "name the folder once, as a whole")
            if again
            else None
        )
    if len(items) == int(group):
        return None
    of = f"{total} pictures do not make groups of {group}" if total else f"pictures do not end with a group of {group}"
    return f"{of}: {len(items)} left over", "leave those out, or give as many as are missing"


def _fail_together(group: Sequence[Item]) -> None:
    """Where one picture of a group cannot be used, none can."""
    bad = next((item for item in group if item.error), None)
    for item in group if bad and bad.error else ():
        item.input = item.seen = item.region = None
        if item.error is None:
            assert bad is not None
            assert bad.error is not None
            item.error = PictureError(
                f"{bad.source.path}, of its group, cannot be used: {bad.error.message}", bad.error.hint
            )


def _names(group: Sequence[Source]) -> str:
    first, last = str(group[0].path), str(group[-1].path)
    return first if len(group) == 1 else f"{first} to {last}"


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


def _check_channels(job: Job, network: Network) -> None:
    """Pictures are grey or of three colours; a model of other channels is given arrays."""
    count = network.prepare.channels
    if job.inputs and count not in PICTURES:
        raise RequestError(
            f"{network.name} takes images of {channels_in_words(count)}, and pictures have 3, or 1 where they are grey",
            f"give it arrays (height, width, {count}) from Python: camcli.explain(arrays, model=...); or batches "
            f"(n, {count}, h, w): camcli.Explainer(network)(images)",
        )


def _noise(network: Network, count: int) -> Tensor:
    prepare = network.prepare
    return probe_image(prepare.size, torch.float32, torch.device("cpu"), count, channels=prepare.channels)


def _check_shared(job: Job, network: Network, device: torch.device) -> None:
    """See that a network that must stay as it is can be used so."""
    own = devices.like(network.module)
    rounded = job.precision not in ("fp32", "tf32") and own.dtype != DTYPES[job.precision]
    if network.shared and (own.device != device or rounded):
        raise RequestError(
            f"{network.name} hands out the same network each time, which must stay as it is (on {own.device}, in "
            f"{own.dtype}), and {network.shared}",
            f"build a new one in each call; or --device {own.device} --precision fp32",
        )


def _inside(region: Region, view: View) -> Tensor:
    """Which pixels of the model's input lie in a region of the picture."""
    return torch.from_numpy(region.at(*view.centres(), view.picture))


def _stacked(masks: Sequence[Tensor | None]) -> Tensor | None:
    there = [mask for mask in masks if mask is not None]
    return torch.stack(there) if there else None


def _or_pause(batch: Sequence[Item]) -> Sequence[Item | None]:
    return batch or [None]


def _in_picture(result: Result, picture: Picture | None) -> Result:
    """A result with its box in pixels of the picture."""
    if isinstance(result, PictureError) or result.box is None or picture is None:
        return result
    return replace(result, box=picture.view.corners(result.box))


def _other_ways(precision: str, device: torch.device) -> str:
    """Where a network that fails may work."""
    ways = ["--precision fp32"] * (precision != "fp32") + ["--device cpu"] * (device.type != "cpu")
    return f"try {', or '.join(ways)}" if ways else "call the model itself on such an image to see where"


def _rows(device: torch.device) -> int:
    """How many images at once are fast, for little memory where much is kept of each."""
    if device.type != "cpu":
        return GPU_ROWS
    return CPU_ROWS if torch.get_num_threads() > 1 else ONE_THREAD_ROWS


def _uneven(grids: dict[str, tuple[int, int]], size: tuple[int, int]) -> list[str]:
    """What is to be said of layers whose cells cannot cover an input of the size asked evenly."""
    height, width = size
    return [
        f"the {rows}x{columns} cells of {layer} do not divide {height}x{width} evenly, so its maps can lie up to a "
        "cell off towards the lower and right edges; a --size in multiples of the stride (often 32) avoids that"
        for layer, (rows, columns) in grids.items()
        if height % rows or width % columns
    ]


def _one_colour(pixels: np.ndarray) -> bool:
    # Every 16th pixel first, which tells nearly every other picture.
    return all(bool((some == pixels[0, 0]).all()) for some in (pixels[::16, ::16], pixels))


def _noted(result: Result, notes: tuple[str, ...]) -> Result:
    return replace(result, notes=(*result.notes, *notes)) if notes and isinstance(result, Explanation) else result


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
