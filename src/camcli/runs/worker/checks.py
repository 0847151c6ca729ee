"""Checks of a job against its images, its files and its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from camcli.base.errors import PictureError, RequestError
from camcli.base.words import shorten
from camcli.engine import devices
from camcli.engine.choose import ONE_TARGET_HINT, describe_disagreement
from camcli.engine.explainer import Explainer
from camcli.engine.network import Network
from camcli.engine.precision import DTYPES
from camcli.images.grouping import group_items
from camcli.images.objects import masks
from camcli.images.region import Region, parse_rectangle
from camcli.images.source import PictureSource
from camcli.runs.job.job import Job
from camcli.runs.job.prompts import Prompts
from camcli.runs.worker.item import SourceFactory
from camcli.runs.worker.volumes import check_volumes
from camcli.targets import TargetRule, parse_target
from camcli.targets.named import TargetManifest


def check_wrapping(job: Job) -> None:
    """Check that options go together, before the network is loaded."""
    if job.group and job.batch_size:
        raise RequestError(
            f"both a group ({job.group}) and a batch size ({job.batch_size}) were given",
            "a group is a batch: leave --batch-size out",
        )
    if job.extras and not job.wrap:
        raise RequestError(
            f"features of the images ({job.extras}) were given, but no wrapper takes them",
            "name a wrapper that does: --wrap path/to/file.py:Class, whose forward takes (images, features)",
        )


def read_region(job: Job) -> Region | None:
    """Read the region that the job names, if any.

    Raises:
        RequestError: it is neither a rectangle nor a readable mask.
    """
    if not job.region:
        return None
    found = parse_rectangle(job.region)
    if found:
        return found
    try:
        return masks.read_region(Path(job.region))
    except PictureError as error:
        raise RequestError(
            f"the region {job.region!r} is neither x0,y0,x1,y1 nor an image that can be read: {error.message}",
            "give a rectangle in pixels, or a mask that is black outside the region",
        ) from error


def check_fits(job: Job, network: Network, volumes: bool) -> None:
    """Check that the model supports the options that only some models do, and volumes only if the command does."""
    if job.region and network.output_spec.task != "segment":
        raise RequestError(
            f"{network.name} does not score every pixel, so --region cannot be used", "leave --region out"
        )
    if job.min_score != Job().min_score and network.output_spec.task != "detect":
        raise RequestError(f"{network.name} finds no boxes, so --min-score cannot be used", "leave --min-score out")
    check_volumes(job, network, volumes)


def check_shared(job: Job, network: Network, device: torch.device) -> None:
    """Check that a network that must not be changed can be used on this device and in this precision."""
    reference = devices.reference_tensor(network.module)
    rounded = job.precision not in ("fp32", "tf32") and reference.dtype != DTYPES[job.precision]
    if network.shared and (reference.device != device or rounded):
        raise RequestError(
            f"{network.name} returns the same network in each call, which must not be changed (on {reference.device}, "
            f"in {reference.dtype}), and {network.shared}",
            f"build a new one in each call; or --device {reference.device} --precision fp32",
        )


def check_layer_channels(job: Job, explainer: Explainer) -> None:
    """Check that the layer has the channels named, before the first image."""
    if any(method.explains_channel for method in explainer.bound_methods) and not explainer.top_channels:
        for word in job.target:
            row, argument = parse_target(word)
            for number in argument.split(",") if row == "channel" else ():
                explainer.check_channel(int(number))


def check_prompts(prompts: Prompts | None, explainer: Explainer, pictures: SourceFactory | None) -> None:
    """Check that every image has its own prompts, if a file lists them, and that the methods support this."""
    manifest = prompts.per_picture if prompts else None
    if manifest is None:
        return
    if named := [method.row.name for method in explainer.bound_methods if "logits" in method.signal_names]:
        raise RequestError(
            f"{' and '.join(named)} finds rivals among all prompts, and {manifest.file} gives each image its own",
            "choose another method, such as gradcam; or give all images the same prompts",
        )
    if pictures is not None:
        manifest.check(source.path for source in pictures() if not source.error)


def check_targets(job: Job, target: TargetRule, explainer: Explainer, pictures: SourceFactory | None) -> None:
    """Check that the file of targets fits the images, if these are known.

    Raises:
        RequestError: it lacks some; or lists others too, where images are grouped; or the images of a group
            with one prediction do not agree, or none of them is listed.
    """
    if not isinstance(target, TargetManifest) or pictures is None:
        return
    if not (job.group and explainer.shares_prediction):
        target.check(source.path for source in pictures() if not source.error)
        unused = target.find_unused(source.path for source in pictures()) if job.group else []
        if unused:
            total = sum(1 for _ in pictures())
            raise RequestError(
                f"{target.file} lists targets of {total + len(unused)} images, and there are {total}: not among "
                f"them {'is' if len(unused) == 1 else 'are'} {shorten(unused, len(unused))}",
                "give one target for each image of the groups",
            )
        return
    for number, group in enumerate(group_items(pictures(), job.group, lambda one: one.path), start=1):
        choices = [found for one in group if (found := target.get(one.path))]
        if not choices:
            raise RequestError(
                f"{target.file} lists no target for group {number}, {_format_range(group)}", "list one of its images"
            )
        if len(set(choices)) > 1:
            raise RequestError(
                f"the model returns one prediction for a group, and of group {number}, {_format_range(group)}, in "
                f"{target.file} {describe_disagreement(choices)}",
                ONE_TARGET_HINT,
            )


def _format_range(group: Sequence[PictureSource]) -> str:
    first, last = str(group[0].path), str(group[-1].path)
    return first if len(group) == 1 else f"{first} to {last}"
