"""Volumes and clips as inputs of a model, and as pictures of their slices side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from camcli.base.errors import PictureError, RequestError
from camcli.engine.network import Network
from camcli.images.source import Picture, PictureSource
from camcli.images.stacks import read_stack
from camcli.images.volumes import VolumePreprocess, lay_out
from camcli.outputs import OF_VOLUMES
from camcli.runs.job.job import Job
from camcli.runs.worker.bands import make_input


def takes_volumes(network: Network) -> bool:
    """Return whether a network takes volumes or clips of videos."""
    return isinstance(network.preprocess, VolumePreprocess)


def prepare_volume(
    network: Network, job: Job, source: PictureSource, admit: Callable[[int], object]
) -> tuple[Tensor, Picture, tuple[str, ...]]:
    """Return a volume as the model's input, ``(c, d * h, w)``, and the picture of its slices, with notes.

    Raises:
        PictureError: it cannot be read, or does not have the model's channels.
    """
    preprocess = network.preprocess
    assert isinstance(preprocess, VolumePreprocess)
    assert preprocess.each is not None
    slices = read_stack(source.path, preprocess, job.background, job.range, source.page, admit)
    if len({one.size for one in slices}) > 1:
        raise PictureError("has slices of several sizes")
    inputs = [make_input(one, preprocess.each, network.name)[0] for one in slices]
    pixels, view = lay_out([np.asarray(one.image) for one in slices], preprocess)
    notes = tuple(dict.fromkeys(note for one in slices for note in one.notes))
    return torch.cat(inputs, 1), Picture(source, pixels, view, slices[0].info), notes


def check_volumes(job: Job, network: Network, explains: bool) -> None:
    """Check that what is asked for goes with volumes, or with images.

    Args:
        job: the job.
        network: the network.
        explains: True for ``camcli explain``.

    Raises:
        RequestError: it does not.
    """
    if not takes_volumes(network):
        if wrong := [name for name in job.save if name in OF_VOLUMES]:
            raise RequestError(
                f"--save {wrong[0]} shows the slices of volumes and videos, and {network.name} takes images",
                "choose another format, such as overlay",
            )
        return
    if not explains:
        raise RequestError(
            f"{network.name} takes volumes, of which maps are made by camcli explain alone",
            "camcli explain -m MODEL FILES",
        )
    around = {
        "--normalize run": job.normalize == "run",
        "--bands and --rgb": bool(job.bands or job.rgb),
        "--extras": bool(job.extras),
        "--wrap": bool(job.wrap),
        "--target similar:": network.output_spec.references is not None,
    }
    if asked := next((words for words, is_asked in around.items() if is_asked), ""):
        raise RequestError(f"{asked} is of images, and {network.name} takes volumes", f"leave {asked} out")
