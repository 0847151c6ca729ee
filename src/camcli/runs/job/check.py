"""Checks of a job's options that need neither its images nor its model."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from camcli.base.errors import RequestError
from camcli.engine import FLIPS, LAYOUT, LAYOUTS, factors
from camcli.images import BY_FOLDER, GROUP_PATTERN, parse_bands, parse_every, parse_page_ranges, parse_value_range
from camcli.models import TEXT_TOWER_USAGE, WRAPPER_USAGE, check_templates, parse_size
from camcli.models.preprocess_words import parse_preprocess
from camcli.outputs import MAX_PANEL_SIZE, MIN_PANEL_SIZE
from camcli.runs.job.shard import parse_shard
from camcli.targets import AUTO

if TYPE_CHECKING:
    from camcli.runs.job.job import Job


def check_options(job: Job) -> None:
    """Check a job's options, except what depends on libraries or files.

    Raises:
        RequestError: an option is invalid, or two exclude each other.
    """
    owner: Any = type(job)
    for name, choices in _find_choices(owner).items():
        if getattr(job, name) not in choices:
            raise RequestError(f"{name} cannot be {getattr(job, name)!r}", f"there are: {', '.join(choices)}")
    if job.layout and not LAYOUT.fullmatch(job.layout):
        raise RequestError(f"layout cannot be {job.layout!r}", f"there are: {LAYOUTS}")
    for name in ("batch_size", "workers", "call", "limit"):
        if getattr(job, name) < 0:
            raise RequestError(
                f"{name} cannot be {getattr(job, name)}", "give a number from 1 on, or 0 for the default"
            )
    if not 0 <= job.timeout < math.inf:
        raise RequestError(f"timeout cannot be {job.timeout}", "give seconds, or 0 for no limit")
    parse_size(job.size)
    parse_preprocess(job.preprocess)
    factors(job.scales)
    parse_value_range(job.range)
    parse_bands(job.bands, job.rgb)
    parse_page_ranges(job.pages)
    parse_every(job.every)
    for flip in job.augment:
        if flip not in FLIPS:
            raise RequestError(f"augment cannot be {flip!r}", f"there are: {', '.join(FLIPS)}")
    if not 0 <= job.alpha <= 1:
        raise RequestError(f"alpha cannot be {job.alpha}", "it is an opacity, from 0 to 1")
    if not 0 <= job.min_score <= 1:
        raise RequestError(f"min_score cannot be {job.min_score}", "it is a box's score, from 0 to 1")
    check_panel_size(job.panel_size)
    if not job.target and not job.targets:
        raise RequestError("no target is given", "name the class to explain: predicted, top:5, rank:2, or a class")
    if not job.save:
        raise RequestError("no output format is given", "give at least one: --save overlay")
    _check_user_code(job)
    _check_shard(job)
    _check_true_boxes(job)
    if job.targets and job.target != (AUTO,):
        raise RequestError(
            f"both a target ({', '.join(job.target)}) and a file of targets ({job.targets}) were given",
            "leave one out",
        )


def _check_true_boxes(job: Job) -> None:
    if job.true_boxes and (job.targets or job.target != (AUTO,)):
        raise RequestError(
            "--boxes says which boxes are explained, and a target was given too",
            "leave out --boxes or the target",
        )


def check_panel_size(size: int) -> None:
    """Check the longer side of a panel's images.

    Raises:
        RequestError: panels are not drawn at it.
    """
    if size and not MIN_PANEL_SIZE <= size <= MAX_PANEL_SIZE:
        raise RequestError(
            f"panel_size cannot be {size}", f"give {MIN_PANEL_SIZE} to {MAX_PANEL_SIZE} pixels, or 0 for the default"
        )


def _check_user_code(job: Job) -> None:
    check_templates(job.template)
    if job.text_tower and not all(job.text_tower.rpartition(":")[::2]):
        raise RequestError(f"text_tower cannot be {job.text_tower!r}", TEXT_TOWER_USAGE)
    place, _, name = job.wrap.rpartition(":")
    if job.wrap and not (place and name):
        raise RequestError(f"wrap cannot be {job.wrap!r}", WRAPPER_USAGE)
    if job.group == BY_FOLDER and job.limit:
        raise RequestError("--limit would leave out a part of a group", "name fewer folders instead")
    if job.group and not GROUP_PATTERN.fullmatch(job.group):
        raise RequestError(
            f"group cannot be {job.group!r}",
            f"give the number of images that belong together, or {BY_FOLDER} for those of one folder",
        )


def _check_shard(job: Job) -> None:
    """Check that a shard gives its images the same files as a run of all would."""
    if parse_shard(job.shard) is None:
        return
    if job.group and job.group != BY_FOLDER:
        raise RequestError(
            f"--shard would change which {job.group} images are a group", "group those of a folder: --group folder"
        )
    if job.normalize == "run":
        raise RequestError(
            "--normalize run needs the maps of all images, and a shard has a part of them",
            "save arrays with --save array, merge the shards, and draw with --normalize run without --shard",
        )
    if job.drop_others:
        raise RequestError("--drop-others would delete what other shards wrote", "leave --shard or --drop-others out")


@cache
def _find_choices(owner: Any) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values of each ``Literal`` field, by name."""
    return {name: get_args(kind) for name, kind in get_type_hints(owner).items() if get_origin(kind) is Literal}
