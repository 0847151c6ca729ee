"""Use of the machine: batch size, memory for pixels, devices, compiling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from camcli.base.errors import CamcliError, RequestError
from camcli.base.log import LOGGER
from camcli.base.words import first_line
from camcli.engine import Linear
from camcli.engine.explainer import Explainer
from camcli.engine.layers.probe import probe_image
from camcli.engine.network import Network
from camcli.engine.speed.compiling import CompileReport
from camcli.engine.speed.linear import LinearChoice, LinearTrial
from camcli.engine.speed.tune import compile_prefix, copy_to
from camcli.images.decode import count_pixels
from camcli.images.features import Features

if TYPE_CHECKING:
    from camcli.runs.job.job import Job
    from camcli.runs.worker.worker import Worker

# Batch sizes where much is kept of each image. With one thread PyTorch leaves 1 x 1 convolutions to oneDNN only from 16
# images on, and its own code takes 1.6 times as long for all of a ResNet-50.
CPU_BATCH, ONE_THREAD_BATCH, GPU_BATCH = 8, 16, 32
# Batch size on a CPU where little is kept: 16 is up to a quarter faster than 8, and more is hardly faster.
LIGHT_BATCH = 16
# Maximum pixels of a batch's images, which are kept until maps are drawn over them: 288 MB. Where the user gives the
# batch size, or on a GPU, it is at least PHOTO_PIXELS for each image.
BATCH_PIXELS = 96_000_000
PHOTO_PIXELS = 12_000_000
# Seconds of a run's forward passes from which on compiling is tried by default: it takes up to 16 s, and saves 5 %
# (AVX-512) to 40 % (AMX, bf16) of the rest.
COMPILE_FROM_SECONDS = 300
ONE_DEVICE = "name one device: --device cuda:0, or --device cpu"


def default_batch_size(device: torch.device) -> int:
    """Return a batch size that is fast, and takes little memory where much is kept of each image."""
    if device.type != "cpu":
        return GPU_BATCH
    return CPU_BATCH if torch.get_num_threads() > 1 else ONE_THREAD_BATCH


def choose_batch_size(explainer: Explainer, device: torch.device, preferred: int, first: Sequence[Path]) -> int:
    """Return a batch size that is fast and takes little memory: smaller if the first images are large."""
    if device.type != "cpu":
        return preferred
    most = preferred if explainer.keeps_much else LIGHT_BATCH
    pixels = max(map(count_pixels, first), default=0)
    return max(1, min(most, BATCH_PIXELS // pixels)) if pixels else most


def limit_batch_pixels(batch_size: int, device: torch.device, given: bool) -> int:
    """Return the maximum pixels that the images of a batch have together.

    Args:
        batch_size: number of images in it.
        device: device that it runs on.
        given: the user gave the batch size.
    """
    return max(BATCH_PIXELS, batch_size * PHOTO_PIXELS if given or device.type != "cpu" else 0)


def limit_run_pixels(worker: Worker) -> int:
    """Return the maximum pixels of all images of a run that are held at a time."""
    # A batch is explained while the next is collected, and others are written; each of several devices has two.
    under_way = 2 * len(worker.devices) if len(worker.devices) > 1 else 1
    return (under_way + 1) * worker.max_batch_pixels + BATCH_PIXELS


def choose_linear_option(job: Job) -> Linear:
    """Return the library for linear layers that a job asks for: PyTorch's own where a compiler needs it."""
    return "torch" if job.linear == "auto" and job.compile == "on" else job.linear


def choose_linear(worker: Worker, trial: LinearTrial, repeats: float) -> LinearChoice:
    """Choose the library that computes linear layers, and log it if one was timed.

    Args:
        worker: the worker.
        trial: the trial in which the network's products were counted.
        repeats: how many times the images of the trial a batch has.
    """
    with worker.computing():
        choice = trial.choose(repeats)
    if choice.speedup is not None:
        LOGGER.info("linear layers by %s: oneDNN is %.2f times as fast here", choice.library, choice.speedup)
    return choice


def copy_explainer(worker: Worker, device: torch.device, noise: Tensor, features: Features | None) -> Explainer:
    """Copy the explainer, with its network, to another device.

    Raises:
        RequestError: the network cannot be copied, or fails there.
    """
    name = worker.network.name
    try:
        with worker.computing():
            return copy_to(worker.explainer, device, noise, features)
    except CamcliError as error:
        raise RequestError(f"{name} cannot be copied to {device}: {error.message}", ONE_DEVICE) from error
    except Exception as error:  # any error, since the network works on its own device
        raise RequestError(f"{name} cannot be copied to {device}: {first_line(error)}", ONE_DEVICE) from error


def compile_explainer(worker: Worker, total: int, trial_seconds: float, noun: str) -> list[str]:
    """Compile what can be, if it is asked for or the run is long; return notes for the user.

    Args:
        total: number of images; 0 if that is not known.
        trial_seconds: seconds that one image of noise took, which is longer than an image takes in a batch.
        noun: what the images are.
    """
    wanted = worker.job.compile == "on"
    if not wanted and total * trial_seconds < COMPILE_FROM_SECONDS:
        return []
    least = 0.0 if wanted else COMPILE_FROM_SECONDS * worker.batch_size / total
    noise = make_noise(worker.network, worker.batch_size)
    why = "the model takes extra features" if worker.extras else ""
    if worker.linear.library == "onednn":
        why = "oneDNN computes the linear layers, which a compiler would not see; --linear torch leaves them to it"
    if len(worker.devices) > 1:
        why = "whether it pays is measured on one device, and several devices must compute the same"
    with worker.computing():
        done = CompileReport(reason=why) if why else compile_prefix(worker.explainer, noise, least)
    if done.reason:
        return [f"nothing is compiled: {done.reason}"] if wanted else []
    pays = math.ceil(done.break_even_batches * worker.batch_size)
    before, after = (1000 * seconds / worker.batch_size for seconds in (done.seconds_before, done.seconds_after))
    return [
        f"compiled in {done.compile_seconds:.0f} s: {', '.join(done.parts)}; {before:.1f} ms per image became "
        f"{after:.1f}, which pays from {pays} {noun} on"
    ]


def make_noise(network: Network, count: int) -> Tensor:
    """Return images of noise, as the network takes them."""
    preprocess = network.preprocess
    return probe_image(preprocess.size, torch.float32, torch.device("cpu"), count, channels=preprocess.channels)
