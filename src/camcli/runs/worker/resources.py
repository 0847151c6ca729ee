"""What a job uses of the machine: batch size, memory for pixels, devices, compiling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from camcli.base.errors import CamcliError, RequestError
from camcli.base.words import first_line
from camcli.engine.explainer import Explainer
from camcli.engine.layers.probe import probe_image
from camcli.engine.network import Network
from camcli.engine.speed.compiling import Compilation
from camcli.images.decode import pixels_of
from camcli.images.features import Features

if TYPE_CHECKING:
    from camcli.runs.worker.worker import Worker

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


def default_rows(device: torch.device) -> int:
    """How many images at once are fast, for little memory where much is kept of each."""
    if device.type != "cpu":
        return GPU_ROWS
    return CPU_ROWS if torch.get_num_threads() > 1 else ONE_THREAD_ROWS


def choose_batch_size(explainer: Explainer, device: torch.device, rows: int, first: Sequence[Path]) -> int:
    """How many pictures in one forward are fast, for little memory: fewer if the first is large."""
    if device.type != "cpu":
        return rows
    most = rows if explainer.keeps_much else LIGHT_BATCH
    pixels = max(map(pixels_of, first), default=0)
    return max(1, min(most, PIXELS // pixels)) if pixels else most


def most_pixels(batch_size: int, device: torch.device, given: bool) -> int:
    """Pixels that the pictures of a batch have together at most.

    Args:
        batch_size: pictures in it.
        device: where it goes.
        given: its size is somebody's word.
    """
    return max(PIXELS, batch_size * PHOTOGRAPH if given or device.type != "cpu" else 0)


def pixels_under_way(worker: Worker) -> int:
    """Pixels of all pictures of a run that are held at a time, at most."""
    # A batch is explained while the next is collected, and others are written; of several devices each has two.
    under_way = 2 * len(worker.devices) if len(worker.devices) > 1 else 1
    return (under_way + 1) * worker.most_pixels + PIXELS


def copy_explainer(worker: Worker, device: torch.device, noise: Tensor, features: Features | None) -> Explainer:
    """An explainer with a network of its own on another device.

    Raises:
        RequestError: the network cannot be copied, or fails there.
    """
    name = worker.network.name
    try:
        with worker.computing():
            return worker.explainer.on(device, noise, features)
    except CamcliError as error:
        raise RequestError(f"{name} cannot be copied to {device}: {error.message}", ONE_DEVICE) from error
    except Exception as error:  # whatever it is, the network works where it is
        raise RequestError(f"{name} cannot be copied to {device}: {first_line(error)}", ONE_DEVICE) from error


def compile_explainer(worker: Worker, total: int, tried: float) -> list[str]:
    """Compile what can be, if it is asked for or the run is long; what the user must know of it.

    Args:
        total: how many pictures there are; 0 if that is not known.
        tried: seconds that noise took, alone, which is longer than a picture takes in a batch.
    """
    wanted = worker.job.compile == "on"
    if not wanted and total * tried < COMPILED_FROM:
        return []
    least = 0.0 if wanted else COMPILED_FROM * worker.batch_size / total
    noise = make_noise(worker.network, worker.batch_size)
    why = "features come with the pictures" if worker.extras else ""
    if len(worker.devices) > 1:
        why = "whether it pays is measured on one device, and several are named, which must say the same"
    with worker.computing():
        done = Compilation(reason=why) if why else worker.explainer.compile(noise, least)
    if done.reason:
        return [f"nothing is compiled: {done.reason}"] if wanted else []
    pays = math.ceil(done.pays_after * worker.batch_size)
    before, after = (1000 * seconds / worker.batch_size for seconds in (done.before, done.after))
    return [
        f"compiled in {done.seconds:.0f} s: {', '.join(done.parts)}; {before:.1f} ms a picture became {after:.1f}, "
        f"which pays from {pays} pictures on"
    ]


def make_noise(network: Network, count: int) -> Tensor:
    """Images of noise, as the network takes them."""
    prepare = network.prepare
    return probe_image(prepare.size, torch.float32, torch.device("cpu"), count, channels=prepare.channels)
