"""A job resolved, and tried once before the first picture."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from camcli.base.errors import CamcliError, RequestError
from camcli.base.words import first_line
from camcli.engine import devices, factors
from camcli.engine.explainer import Explainer
from camcli.engine.maps.method import recipes
from camcli.engine.network import Network
from camcli.engine.precision import DTYPES, arithmetic
from camcli.images import BY_FOLDER
from camcli.images.decode import colour
from camcli.images.features import Extras, Features
from camcli.runs.job import fingerprint
from camcli.runs.job.job import Job
from camcli.runs.worker.checks import (
    check_fits,
    check_image_channels,
    check_layer_channels,
    check_prompts,
    check_shared,
    check_targets,
    check_wrapping,
    read_region,
)
from camcli.runs.worker.groups import first_group
from camcli.runs.worker.item import Pictures
from camcli.runs.worker.resolve import Question, aimed, asked
from camcli.runs.worker.resources import (
    choose_batch_size,
    compile_explainer,
    copy_explainer,
    default_rows,
    make_noise,
    most_pixels,
)


class Worker:
    """A job resolved and tried on one image, so that mistakes surface before the first picture.

    Args:
        job: what is asked.
        pictures: goes over all of them, if they are known beforehand; then what the files of targets and features lack
            is found too.
        total: how many there are, if that is known.

    Attributes:
        region: what of each picture is summed over, for models that score every pixel.
        extras: the features that the model is handed beside each picture.
        network: on its device, in its precision.
        explainer: the methods at the layers asked for.
        explainers: this one, and one for each further device, each with a copy of the network.
        target: from a picture's path and scores to its classes.
        wanted: the words of the targets, as they are meant where nobody named any.
        prompts: what pictures are compared with, if that is texts.
        devices: where the network and its copies are.
        batch_size: pictures in one forward.
        most_pixels: that the pictures of a batch have together.
        fits: by the id of an explainer, how many pictures at a time its device was found to have memory for.
        workers: threads that decode.
        shows_pixels: somebody shows the pictures at their own size, so that ``decode="reduced"`` must not reduce them.
        explains: what number the maps explain, in words for people.
        notes: what the user must know about all the maps; may grow while pictures are done.
        noted_reading: what was noted once of how pictures are read.
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
        self.region = read_region(job)
        check_wrapping(job)
        self.extras = _read_extras(job, pictures)
        first = first_group(job.group, pictures)
        count = len(first) if job.group else 0
        features = self.extras.some(count or 2, first) if self.extras else None
        question = asked(job, count, features)
        network = question.network
        check_fits(job, network)
        check_image_channels(job, network)
        # Before the precision is changed, so that the same weights have the same hash in every run.
        self.sha256 = network.sha256()
        self.counted = _count_parts(job, network, self.sha256)
        device = self.devices[0]
        check_shared(job, network, device)
        self.network = replace(network, module=network.module.to(device))
        given = job.batch_size or (int(job.group) if job.group and job.group != BY_FOLDER else 0)
        rows = given or default_rows(device)
        self.explainer = _make_explainer(job, self.network, question, rows)
        self.target, self.wanted, self.prompts = question.target, question.wanted, question.prompts
        self.shows_pixels = False
        self.workers = job.workers or devices.decoders(self.devices)
        noise = make_noise(network, count or 1)
        tried = self._try(noise, features, count)
        self.counted |= _count_found(job, self.explainer)
        self.fingerprint = fingerprint.fingerprint(self.counted)
        alone = self.explainer.one_by_one
        self.batch_size = 1 if alone else given or choose_batch_size(self.explainer, device, rows, first)
        self.most_pixels = most_pixels(self.batch_size, device, bool(given))
        self.fits: dict[int, int] = {}
        if self.explainer.network is not self.network and self.explainer.network:
            self.network = self.explainer.network
            self.target = aimed(job, question, self.network)
        copies = [copy_explainer(self, device, noise, features) for device in self.devices[1:]]
        self.explainers = (self.explainer, *copies)
        check_layer_channels(job, self.explainer)
        check_targets(job, self.target, self.explainer, pictures)
        check_prompts(self.prompts, self.explainer, pictures)
        # What the explainers have to say of all maps so far, each thing once.
        found_out = dict.fromkeys(note for explainer in self.explainers for note in explainer.notes)
        self.notes = [*network.notes, *question.notes, *found_out]
        if job.precision == "tf32" and device.type != "cuda":
            self.notes.append(f"TF32 is an arithmetic of GPUs: on {device} this is fp32")
        self._noting = Lock()
        self.noted_reading: set[str] = set()
        if job.compile != "off":
            self.notes += compile_explainer(self, total or 0, tried)
        self.notes += _note_uneven(self.explainer, network.prepare.size)
        self.explains = _describe(job, self.explainer)

    def computing(self) -> AbstractContextManager[None]:
        """While it lasts, networks compute in the job's precision, whatever the process is set to."""
        return arithmetic(self.job.precision)

    @property
    def where(self) -> str:
        """The devices, in words for people."""
        return ", ".join(map(str, self.devices))

    def note(self, text: str) -> None:
        """Add a note, unless it is there; from any thread."""
        with self._noting:
            if text not in self.notes:
                self.notes.append(text)

    def _try(self, noise: Tensor, features: Features | None, count: int) -> float:
        """Explain noise, so that what holds for all pictures is found out; gives the seconds that it took.

        Args:
            noise: an image, or a group of them.
            features: of so many pictures.
            count: how many images a group has; 0 where there are none.
        """
        network, explainer, job = self.network, self.explainer, self.job
        try:
            # In full precision, so that weights are rounded once.
            if not network.shared:
                with self.computing():
                    explainer.rearrange(noise, features)
            with self.computing():
                explainer.locate(noise, features)
            if not network.shared:
                devices.cast(network.module, DTYPES[job.precision])
            with self.computing():
                began = time.perf_counter()
                explainer.check(noise, features)
                return time.perf_counter() - began
        except CamcliError:
            raise
        except Exception as error:
            explainer.check_channels(noise)
            height, width = network.prepare.size
            raise RequestError(
                f"{network.name} fails on {f'{count} images' if count else 'an image'} of {height}x{width} "
                f"in {job.precision} on {self.devices[0]}: {first_line(error)}",
                _suggest_others(job.precision, self.devices[0]),
            ) from error


def _read_extras(job: Job, pictures: Pictures | None) -> Extras | None:
    """Features beside the pictures, if a file of them is named.

    Raises:
        RequestError: it cannot be read, or lacks some.
    """
    if not job.extras:
        return None
    extras = Extras(Path(job.extras), [Path(given) for given in job.inputs if Path(given).is_dir()])
    if pictures:
        extras.check(source.path for source in pictures() if not source.error)
    return extras


def _count_parts(job: Job, network: Network, sha256: str) -> dict[str, str]:
    """Parts of the job and its network that count in the fingerprint."""
    # The methods that it comes to, since a name may stand for another one.
    methods = [one.row.name for one in recipes(job.method, job.options, network.outlet.task == "detect")]
    return fingerprint.parts(replace(job, method=",".join(methods)), network, sha256)


def _count_found(job: Job, explainer: Explainer) -> dict[str, str]:
    """Parts that count in the fingerprint and are known since noise was explained."""
    found = fingerprint.code(job, explainer.methods)
    if explainer.layers:
        found["layers"] = ", ".join(explainer.layers)
    if explainer.one_by_one:
        found["batches of"] = "1"
    return found


def _make_explainer(job: Job, network: Network, question: Question, rows: int) -> Explainer:
    """The explainer that a job asks for, which has tried nothing yet."""
    return Explainer(
        network,
        layers=job.layers,
        method=job.method,
        options=job.options,
        layout=job.layout,
        call=job.call,
        fuse=job.fuse,
        scales=factors(job.scales),
        flips=job.augment,
        eigen_smooth=job.eigen_smooth,
        rows=rows,
        group=bool(job.group),
        score=question.score,
        versus=question.versus,
        counterfactual=job.counterfactual,
        channels=question.strongest,
        recompute=job.recompute,
        placement=job.placement,
    )


def _describe(job: Job, explainer: Explainer) -> str:
    """What number the maps explain, in words for people."""
    words = explainer.says(bool(job.region))
    if not job.group:
        return words
    each = "one for all pictures of a group" if explainer.shared else "one for each picture of a group"
    return f"{words}; {each}"


def _suggest_others(precision: str, device: torch.device) -> str:
    """Ways in which a network that fails may work."""
    ways = ["--precision fp32"] * (precision != "fp32") + ["--device cpu"] * (device.type != "cpu")
    return f"try {', or '.join(ways)}" if ways else "call the model itself on such an image to see where"


def _note_uneven(explainer: Explainer, size: tuple[int, int]) -> list[str]:
    """What is to be said of layers whose cells cannot cover an input of the size asked evenly."""
    placed = {name for name, one in explainer.located.items() if one.placement}
    height, width = size
    return [
        f"the {rows}x{columns} cells of {name} do not divide {height}x{width} evenly, so its maps can lie up to a "
        "cell off towards the lower and right edges; a --size in multiples of the stride (often 32) avoids that"
        for name, (rows, columns) in explainer.grids.items()
        if name not in placed and (height % rows or width % columns)
    ]
