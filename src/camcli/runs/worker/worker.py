"""Resolved job, tried once before the first image."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from camcli.base import timing
from camcli.base.errors import CamcliError, RequestError
from camcli.base.words import first_line
from camcli.engine import devices, factors
from camcli.engine.explainer import Explainer
from camcli.engine.maps.method import bind_methods, default_method
from camcli.engine.network import Network
from camcli.engine.precision import DTYPES, float32_precision, note_precision
from camcli.engine.speed.linear import LinearTrial
from camcli.engine.speed.tune import optimize_weights
from camcli.images import BY_FOLDER
from camcli.images.decode import parse_colour
from camcli.images.features import FeatureFile, Features
from camcli.runs.job import fingerprint
from camcli.runs.job.job import Job
from camcli.runs.worker.bands import choose_bands
from camcli.runs.worker.checks import (
    check_fits,
    check_layer_channels,
    check_prompts,
    check_shared,
    check_targets,
    check_wrapping,
    read_region,
)
from camcli.runs.worker.groups import find_first_group
from camcli.runs.worker.item import SourceFactory
from camcli.runs.worker.resolve import ResolvedJob, resolve_job, resolve_target_rule
from camcli.runs.worker.resources import (
    choose_batch_size,
    choose_linear,
    choose_linear_option,
    compile_explainer,
    copy_explainer,
    default_batch_size,
    limit_batch_pixels,
    make_noise,
)
from camcli.runs.worker.true_boxes import read_true_boxes


class Worker:
    """Job, resolved and tried on noise, so that mistakes surface before the first image.

    Args:
        job: the job.
        pictures: iterates over all of them, if they are known beforehand; then images missing in the files of targets
            and features are found too.
        total: number of images, if known.
        loading: arguments of :func:`camcli.load` in place of the job's; see :func:`resolve_job`.
        recorded: False if nothing is written, so that no fingerprint is needed.
        volumes: True for a command that makes maps of volumes.

    Attributes:
        region: region of each image that is summed over, for models that score every pixel.
        extras: features that the model takes besides each image.
        network: the network, on its device, in its precision.
        explainer: the methods at the layers named.
        explainers: ``explainer``, and one for each further device, each with a copy of the network.
        target_rule: maps an image's path and scores to its classes.
        true_boxes: the boxes that are explained, found or missed, if a file of them is given.
        target_words: words of the targets, with the default in place of ``auto``.
        prompts: prompts that images are compared with, if any.
        devices: devices of the network and its copies.
        batch_size: number of images in one forward pass.
        linear: library that computes linear layers.
        max_batch_pixels: maximum pixels that the images of a batch have together.
        fitting_batch_sizes: by the id of an explainer, number of images that were found to fit its device's memory.
        workers: number of threads that decode.
        bands: the bands of each image that the model takes, and those drawn; None for colours.
        shows_pixels: an output shows images at their own size, so that ``decode="reduced"`` must not reduce them.
        score_description: the score that the maps explain, in words for people.
        notes: notes for the user about all maps; may grow while images are processed.
        decoding_notes: kinds of notes on decoding that were made already.
        sha256: hash of the weights.
        fingerprint_parts: parts of the job and its resolution that could change an image's files, each as its value or
            its SHA-256.
        fingerprint: 16 hex digits that change when any of these parts does.

    Raises:
        RequestError: the job is invalid.
    """

    def __init__(
        self,
        job: Job,
        pictures: SourceFactory | None = None,
        total: int | None = None,
        loading: Mapping[str, Any] | None = None,
        recorded: bool = True,
        volumes: bool = False,
    ) -> None:
        self.job = job
        self.devices = devices.parse_devices(job.device)
        parse_colour(job.background)
        check_wrapping(job)
        self.region, self.extras = read_region(job), _read_extras(job, pictures)
        first = find_first_group(job.group, pictures)
        count = len(first) if job.group else 0
        features = self.extras.sample(count or 2, first) if self.extras else None
        resolved = timing.measured("load", resolve_job)(job, count, features, loading)
        network = resolved.network
        check_fits(job, network, volumes)
        self.bands = choose_bands(job, network)
        # Before the precision is changed, so that the same weights have the same hash in every run.
        self.sha256 = timing.measured("hash", network.sha256)() if recorded else ""
        self.fingerprint_parts = _collect_job_parts(job, network, self.sha256) if recorded else {}
        device = self.devices[0]
        check_shared(job, network, device)
        self.network = replace(network, module=network.module.to(device))
        given = job.batch_size or (int(job.group) if job.group and job.group != BY_FOLDER else 0)
        preferred = given or default_batch_size(device)
        self.explainer = _make_explainer(job, self.network, resolved, preferred)
        self.target_rule, self.target_words = resolved.target_rule, resolved.target_words
        self.prompts, self.true_boxes = resolved.prompts, read_true_boxes(job, network)
        self.workers = job.workers or devices.count_decoders(self.devices)
        noise = make_noise(network, count or 1)
        linear = LinearTrial(self.explainer.setup, choose_linear_option(job), job.precision)
        self._trial_seconds = timing.measured("trial", self._try_on_noise)(noise, features, count, linear)
        self.fingerprint_parts |= _collect_explainer_parts(job, self.explainer) if recorded else {}
        self.fingerprint = fingerprint.compute_fingerprint(self.fingerprint_parts)
        one_by_one = self.explainer.one_by_one
        self.batch_size = 1 if one_by_one else given or choose_batch_size(self.explainer, device, preferred, first)
        self.linear = timing.measured("linear", choose_linear)(self, linear, self.batch_size / (count or 1))
        self.max_batch_pixels = limit_batch_pixels(self.batch_size, device, bool(given))
        self.shows_pixels, self.fitting_batch_sizes = False, dict[int, int]()
        if self.explainer.network is not self.network and self.explainer.network:
            self.network = self.explainer.network
            self.target_rule = resolve_target_rule(job, resolved, self.network)
        copies = [copy_explainer(self, device, noise, features) for device in self.devices[1:]]
        self.explainers = (self.explainer, *copies)
        check_layer_channels(job, self.explainer)
        check_targets(job, self.target_rule, self.explainer, pictures)
        check_prompts(self.prompts, self.explainer, pictures)
        explainer_notes = dict.fromkeys(note for explainer in self.explainers for note in explainer.notes)
        box_notes = self.true_boxes.notes if self.true_boxes else []
        self.notes = [*network.notes, *resolved.notes, *explainer_notes, *box_notes]
        self.notes += note_precision(job.precision, device)
        self._notes_lock, self.decoding_notes, self._is_compiled = Lock(), set[str](), False
        self.compile_for(total or 0)
        self.notes += _note_uneven(self.explainer, network.preprocess.size)
        self._first_notes = tuple(self.notes)
        self.score_description = _describe_score(job, self.explainer)

    def _list_notes(self, resolved: ResolvedJob) -> list[str]:
        """Return the notes of the network, of the job, of the explainers and of the true boxes."""
        explainer_notes = dict.fromkeys(note for explainer in self.explainers for note in explainer.notes)
        true_boxes = self.true_boxes.notes if self.true_boxes else []
        return [*resolved.network.notes, *resolved.notes, *explainer_notes, *true_boxes]

    def for_job(self, job: Job) -> Worker:
        """Return a worker for other images of the same job, with this one's network; of its notes those that stand."""
        other = copy(self)
        other.job, other.notes, other._notes_lock = job, list(self._first_notes), Lock()
        other.decoding_notes = set()
        return other

    def compile_for(self, total: int, noun: str = "images") -> None:
        """Compile the network if that is asked for, and was not done, or if it pays for so many images.

        Args:
            total: number of images that go through the network.
            noun: what these are.
        """
        if not self._is_compiled and (self.job.compile == "on" or (self.job.compile != "off" and total)):
            self._is_compiled = True
            with timing.measure("compile"):
                self.notes += compile_explainer(self, total, self._trial_seconds, noun)

    def computing(self) -> AbstractContextManager[None]:
        """Compute in the job's precision while the block runs, whatever the process is set to."""
        return float32_precision(self.job.precision)

    @property
    def device_names(self) -> str:
        """Names of the devices, joined by commas."""
        return ", ".join(map(str, self.devices))

    def note(self, text: str) -> None:
        """Add a note, unless it is there already; may be called from any thread."""
        with self._notes_lock:
            if text not in self.notes:
                self.notes.append(text)

    def _try_on_noise(self, noise: Tensor, features: Features | None, count: int, linear: LinearTrial) -> float:
        """Explain noise, to find errors that would concern all images; return the seconds that it took.

        Args:
            noise: an image, or a group of them.
            features: features of as many images.
            count: number of images in a group; 0 without groups.
            linear: counts the products of linear layers.
        """
        network, explainer, job = self.network, self.explainer, self.job
        try:
            # In full precision, so that weights are rounded only once.
            if not network.shared:
                with self.computing():
                    optimize_weights(explainer, noise, features)
            with self.computing():
                explainer.locate(noise, features)
            if not network.shared:
                devices.cast_floats(network.module, DTYPES[job.precision])
            with self.computing(), linear.counting():
                began = time.perf_counter()
                explainer.check(noise, features)
                return time.perf_counter() - began
        except CamcliError:
            raise
        except Exception as error:
            explainer.check_channels(noise)
            height, width = network.preprocess.size
            raise RequestError(
                f"{network.name} fails on {f'{count} images' if count else 'an image'} of {height}x{width} "
                f"in {job.precision} on {self.devices[0]}: {first_line(error)}",
                _suggest_fixes(job.precision, self.devices[0]),
            ) from error


def _read_extras(job: Job, pictures: SourceFactory | None) -> FeatureFile | None:
    """Read the features besides the images, if a file of them is named.

    Raises:
        RequestError: the file cannot be read, or lacks images.
    """
    if not job.extras:
        return None
    extras = FeatureFile(Path(job.extras), [Path(given) for given in job.inputs if Path(given).is_dir()])
    if pictures:
        extras.check(source.path for source in pictures() if not source.error)
    return extras


def _collect_job_parts(job: Job, network: Network, sha256: str) -> dict[str, str]:
    """Collect the parts of the job and its network that count in the fingerprint."""
    # The methods themselves, since a name may stand for another one; the layers as resolved are a part of their own.
    methods = [one.row.name for one in bind_methods(job.method, job.options, default_method(network))]
    return fingerprint.collect_parts(replace(job, method=",".join(methods), layers=()), network, sha256)


def _collect_explainer_parts(job: Job, explainer: Explainer) -> dict[str, str]:
    """Collect the parts that count in the fingerprint and are known only once noise was explained."""
    found = fingerprint.collect_code(job, explainer.methods)
    if explainer.layers:
        found["layers"] = ", ".join(explainer.layers)
    if explainer.one_by_one:
        found["batches of"] = "1"
    return found


def _make_explainer(job: Job, network: Network, resolved: ResolvedJob, batch_size: int) -> Explainer:
    """Make the job's explainer, which is not tried yet."""
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
        batch_size=batch_size,
        group=bool(job.group),
        score=resolved.score,
        versus=resolved.versus,
        counterfactual=job.counterfactual,
        top_channels=resolved.top_channels,
        recompute=job.recompute,
        placement=job.placement,
        backward=job.backward,
    )


def _describe_score(job: Job, explainer: Explainer) -> str:
    """Describe the score that the maps explain, in words for people."""
    words = explainer.describe_target(bool(job.region))
    if not job.group:
        return words
    each = "one for all images of a group" if explainer.shares_prediction else "one for each image of a group"
    return f"{words}; {each}"


def _suggest_fixes(precision: str, device: torch.device) -> str:
    """Suggest options with which a network that fails may work."""
    ways = ["--precision fp32"] * (precision != "fp32") + ["--device cpu"] * (device.type != "cpu")
    return f"try {', or '.join(ways)}" if ways else "call the model itself on such an image to find out where"


def _note_uneven(explainer: Explainer, size: tuple[int, int]) -> list[str]:
    """Return notes on layers whose cells do not divide the input evenly."""
    placed = {name for name, one in explainer.locations.items() if one.placement}
    height, width = size
    return [
        f"the {rows}x{columns} cells of {name} do not divide {height}x{width} evenly, so its maps can lie up to a "
        "cell off towards the lower and right edges; a --size in multiples of the stride (often 32) avoids that"
        for name, (rows, columns) in explainer.grids.items()
        if name not in placed and (height % rows or width % columns)
    ]
