"""What a job asks of its model: the network that can answer, and what it is asked about each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from camcli import models, targets
from camcli.errors import PictureError, RequestError
from camcli.extras import Features
from camcli.geometry import Prepare
from camcli.job import LIKE, Job
from camcli.labels import Labels
from camcli.network import Network
from camcli.pictures import decode
from camcli.recipe import recipes
from camcli.targets import FEATURES, Target, parsed
from camcli.targets.features import likeness
from camcli.targets.named import Listed


@dataclass(frozen=True, slots=True)
class Question:
    """A job, resolved as far as its model and its targets go.

    Attributes:
        network: gives classes, features, or likeness to other pictures: whatever the targets name.
        target: from a picture's path and scores to what is explained.
        versus: the classes that a margin is over.
        strongest: how many of the layer's channels are asked for, of each class; 0 for the class itself.
        notes: what the user must know.
    """

    network: Network
    target: Target
    versus: tuple[int, ...] = ()
    strongest: int = 0
    notes: tuple[str, ...] = ()


def asked(job: Job, group: int = 0, extras: Features | None = None) -> Question:
    """The job's question.

    Args:
        job: what is asked.
        group: how many pictures a wrapper is handed as one group; 0 if it takes batches of any size.
        extras: features of as many pictures, to try the wrapper with.

    The model's head is left out (``head`` being ``auto``) where a target asks about features, which a head hides.

    Raises:
        RequestError: the model, a target or a picture to compare with cannot be had, or they do not go together.
    """
    rows = [parsed(word)[0] for word in job.target]
    strongest = targets.strongest(job.target)
    shown = [one.row.name for one in recipes(job.method, job.options) if one.of_channel]
    every = len(shown) == len(recipes(job.method, job.options))
    alike = [word for word in (*job.target, *job.versus) if word.startswith(LIKE)]
    of_features = bool(alike) or ("channel" in rows and not every)
    notes: tuple[str, ...] = ()
    if of_features and job.head == "keep":
        named = next(word for word in (*job.target, *alike) if parsed(word)[0] in FEATURES)
        raise RequestError(
            f"the target {named!r} asks about features, and --head keep leaves the classifier on them",
            "leave --head out, or name a class",
        )
    head = "none" if job.head == "none" or (job.head == "auto" and of_features) else "keep"
    if job.head == "auto" and head == "none":
        notes = ("the model's head is left out, since the target asks about features (--head none)",)
    network = models.load(
        job.model,
        weights=job.weights,
        labels=job.labels,
        text=job.text,
        seed=job.seed,
        size=job.size,
        crop=job.crop,
        output=job.output,
        min_score=job.min_score,
        head="none" if head == "none" else "keep",
        pool=job.pool,
        activation=job.activation,
        wrap=job.wrap,
        group=group,
        extras=extras,
    )
    if shown and not strongest and not network.headless and (job.targets or set(rows) != {"channel"}):
        raise RequestError(
            f"{shown[0]} shows a channel of the layer, and the targets ({job.targets or ', '.join(job.target)}) name "
            "none",
            "say --target channel:12,99; or --target channels:top:5 for those that matter most to the predicted class",
        )
    if alike:
        if len(alike) < len(job.target) + len(job.versus):
            raise RequestError(
                f"{', '.join((*job.target, *job.versus))} cannot be had in one run: likeness to a picture is no class",
                "give similar:FILE alone, as --target and as --versus",
            )
        network = _compared(network, [parsed(word)[1] for word in alike], job.background)
    return Question(network, _target(job, network), _versus(job, network), strongest, notes)


def _target(job: Job, network: Network) -> Target:
    if job.targets:
        folders = [Path(given) for given in job.inputs if Path(given).is_dir()]
        return Listed(Path(job.targets), network.labels, folders)
    # What a detector predicts is every box that it finds.
    every = {"predicted": f"top:{len(network.labels)}"} if network.outlet.task == "detect" else {}
    return targets.resolve([every.get(word, word) for word in job.target], network)


def _versus(job: Job, network: Network) -> tuple[int, ...]:
    named = [(word, *parsed(word)) for word in job.versus]
    words = [f"name:{likeness(argument)}" if row == "similar" else word for word, row, argument in named]
    return tuple(dict.fromkeys(map(network.labels.find, words)))


def _compared(network: Network, references: Sequence[str], background: str) -> Network:
    """The network as one that says how like its picture is to each of these."""
    files = list(dict.fromkeys(references))
    images = torch.stack([_prepared(network.prepare, file, background) for file in files])
    with torch.inference_mode():
        reading = network.read(network.module(images), len(images))
        features = torch.stack([reading.scores(row) for row in range(len(images))]).clone()
    silent = [file for file, one in zip(files, features, strict=True) if not one.any()]
    if silent:
        raise RequestError(f"no feature of {silent[0]!r} is active, so nothing is like it", "name another picture")
    return replace(
        network,
        labels=Labels(tuple(map(likeness, files)), synonyms=False),
        activation="none",
        outlet=replace(network.outlet, references=features),
        headless=False,
    )


def _prepared(prepare: Prepare, file: str, background: str) -> torch.Tensor:
    if not file:
        raise RequestError("the target 'similar:' names no picture", "say similar:path/to/picture.jpg")
    try:
        image, _ = prepare(decode(Path(file), background))
    except PictureError as error:
        raise RequestError(
            f"the picture {file!r} of the target similar: cannot be read: {error.message}", error.hint
        ) from error
    return image
