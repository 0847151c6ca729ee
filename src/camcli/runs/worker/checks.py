"""A job against its pictures, its files and its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from camcli.base.errors import PictureError, RequestError
from camcli.base.words import several
from camcli.engine import devices
from camcli.engine.choose import ONE_TARGET, disagreement
from camcli.engine.explainer import Explainer
from camcli.engine.input_channels import channels_in_words
from camcli.engine.network import Network
from camcli.engine.precision import DTYPES
from camcli.images.decode import decode
from camcli.images.find import grouped
from camcli.images.region import Region, rectangle
from camcli.images.source import Source
from camcli.images.transform import PICTURES
from camcli.runs.job.job import Job
from camcli.runs.job.prompts import Prompts
from camcli.runs.worker.item import Pictures
from camcli.targets import Target, parsed
from camcli.targets.named import Listed


def check_wrapping(job: Job) -> None:
    """See that options go together, before the network is loaded."""
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


def read_region(job: Job) -> Region | None:
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


def check_fits(job: Job, network: Network) -> None:
    """See that the model gives a meaning to options that only some models do."""
    if job.region and network.outlet.task != "segment":
        raise RequestError(
            f"{network.name} does not score every pixel, so a region means nothing to it", "leave --region out"
        )
    if job.min_score != Job().min_score and network.outlet.task != "detect":
        raise RequestError(
            f"{network.name} finds no boxes, so a least score means nothing to it", "leave --min-score out"
        )


def check_image_channels(job: Job, network: Network) -> None:
    """See that the model takes pictures, which are grey or of three colours; one of other channels takes arrays."""
    count = network.prepare.channels
    if job.inputs and count not in PICTURES:
        raise RequestError(
            f"{network.name} takes images of {channels_in_words(count)}, and pictures have 3, or 1 where they are grey",
            f"give it arrays (height, width, {count}) from Python: camcli.explain(arrays, model=...); or batches "
            f"(n, {count}, h, w): camcli.Explainer(network)(images)",
        )


def check_shared(job: Job, network: Network, device: torch.device) -> None:
    """See that a network that must stay as it is can be used so."""
    own = devices.like(network.module)
    rounded = job.precision not in ("fp32", "tf32") and own.dtype != DTYPES[job.precision]
    if network.shared and (own.device != device or rounded):
        raise RequestError(
            f"{network.name} hands out the same network each time, which must stay as it is (on {own.device}, in "
            f"{own.dtype}), and {network.shared}",
            f"build a new one in each call; or --device {own.device} --precision fp32",
        )


def check_layer_channels(job: Job, explainer: Explainer) -> None:
    """See that the layer has the channels asked for, before the first picture."""
    if any(recipe.of_channel for recipe in explainer.recipes) and not explainer.strongest:
        for word in job.target:
            row, argument = parsed(word)
            for number in argument.split(",") if row == "channel" else ():
                explainer.check_channel(int(number))


def check_prompts(prompts: Prompts | None, explainer: Explainer, pictures: Pictures | None) -> None:
    """See that every picture has prompts of its own, if these are known, and that the methods can do with them."""
    own = prompts.own if prompts else None
    if own is None:
        return
    if named := [recipe.row.name for recipe in explainer.recipes if "logits" in recipe.wants]:
        raise RequestError(
            f"{' and '.join(named)} finds rivals among all prompts, and {own.file} gives each picture its own",
            "choose another method, such as gradcam; or give all pictures the same prompts",
        )
    if pictures is not None:
        own.check(source.path for source in pictures() if not source.error)


def check_targets(job: Job, target: Target, explainer: Explainer, pictures: Pictures | None) -> None:
    """See that the file of targets fits the pictures, if these are known.

    Raises:
        RequestError: it lacks some; or lists others too, where pictures are grouped; or the pictures of a group
            with one prediction do not agree, or none of them is listed.
    """
    if not isinstance(target, Listed) or pictures is None:
        return
    if not (job.group and explainer.shared):
        target.check(source.path for source in pictures() if not source.error)
        unused = target.unused(source.path for source in pictures()) if job.group else []
        if unused:
            total = sum(1 for _ in pictures())
            raise RequestError(
                f"{target.file} lists targets of {total + len(unused)} pictures, and there are {total}: not among "
                f"them {'is' if len(unused) == 1 else 'are'} {several(unused, len(unused))}",
                "give one target for each picture of the groups",
            )
        return
    for number, group in enumerate(grouped(pictures(), job.group, lambda one: one.path), start=1):
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


def _names(group: Sequence[Source]) -> str:
    first, last = str(group[0].path), str(group[-1].path)
    return first if len(group) == 1 else f"{first} to {last}"
