"""What a job asks of its model: the network that can answer, and what it is asked about each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from camcli import targets
from camcli.base.errors import PictureError, RequestError
from camcli.engine.devices import copied_to
from camcli.engine.maps.method import recipes
from camcli.engine.network import Network
from camcli.images.decode import decode
from camcli.images.features import Features
from camcli.images.transform import Prepare
from camcli.models import load
from camcli.runs.job.job import Job
from camcli.runs.job.prompts import Prompts, prompts
from camcli.targets import AUTO, FEATURES, LIKE, Target, parsed
from camcli.targets.features import likeness
from camcli.targets.labels import Labels
from camcli.targets.named import Listed
from camcli.targets.scores import SCORES

# Scores that a prompt has over others; of these those that a softmax makes.
COMPETING = ("probability", "logprob", "margin")
SOFT = ("probability", "logprob")
# So many maps of each picture are worth a word.
MANY = 20


@dataclass(frozen=True, slots=True)
class Question:
    """A job, resolved as far as its model and its targets go.

    Attributes:
        network: gives classes, features, or likeness to other pictures: whatever the targets name.
        target: from a picture's path and scores to what is explained.
        wanted: the words of the targets, as they are meant where nobody named any.
        score: which number of a class's is explained.
        versus: the classes that a margin is over.
        prompts: what pictures are compared with, if that is texts.
        strongest: how many of the layer's channels are asked for, of each class; 0 for the class itself.
        notes: what the user must know.
    """

    network: Network
    target: Target
    wanted: tuple[str, ...] = ()
    score: str = "logit"
    versus: tuple[int, ...] = ()
    prompts: Prompts | None = None
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
        RequestError: the model, a target, a prompt or a picture to compare with cannot be had, or they do not go
            together.
    """
    given = prompts(job)
    wanted = tuple(("all" if given else "predicted") if word == AUTO else word for word in job.target)
    rows = [parsed(word)[0] for word in wanted]
    strongest = targets.strongest(wanted)
    shown = [one.row.name for one in recipes(job.method, job.options) if one.of_channel]
    every = len(shown) == len(recipes(job.method, job.options))
    alike = [word for word in (*job.target, *job.versus) if word.startswith(LIKE)]
    of_features = bool(alike) or ("channel" in rows and not every)
    notes: tuple[str, ...] = ()
    if of_features:
        _check_features(job, (*wanted, *alike), given)
    if job.text_tower and job.head == "keep":
        raise RequestError(
            f"{job.text_tower} is compared with the model's features, and --head keep leaves the classifier on them",
            "leave --head out",
        )
    head = "none" if job.head == "none" or (job.head == "auto" and of_features) else "keep"
    if job.head == "auto" and head == "none":
        notes = ("the model's head is left out, since the target asks about features (--head none)",)
    network = _load(job, head, given, group, extras)
    if shown and not strongest and not network.headless and (job.targets or set(rows) != {"channel"}):
        raise RequestError(
            f"{shown[0]} shows a channel of the layer, and the targets ({job.targets or ', '.join(wanted)}) name none",
            "say --target channel:12,99; or --target channels:top:5 for those that matter most to the predicted class",
        )
    if alike:
        if len(alike) < len(job.target) + len(job.versus):
            raise RequestError(
                f"{', '.join((*job.target, *job.versus))} cannot be had in one run: likeness to a picture is no class",
                "give similar:FILE alone, as --target and as --versus",
            )
        network = _compared(network, [parsed(word)[1] for word in alike], job)
    score = _score(job, network, given)
    return Question(
        network=network,
        target=_target(job, wanted, network, given),
        wanted=wanted,
        score=score,
        versus=_versus(job, network, given) if SCORES.find(score).against or not given else (),
        prompts=given,
        strongest=strongest,
        notes=(*notes, *_many(job, wanted, network, given)),
    )


def _check_features(job: Job, words: Sequence[str], given: Prompts | None) -> None:
    """See that targets can ask about features.

    Args:
        job: what is asked.
        words: the targets, and what they are compared with.
        given: the prompts, if there are some.

    Raises:
        RequestError: there are prompts, or the classifier is kept.
    """
    named = next(word for word in words if parsed(word)[0] in FEATURES)
    if given:
        raise RequestError(
            f"{named!r} asks about features of a picture, and there are prompts to compare it with",
            "leave out the one or the other",
        )
    if job.head == "keep":
        raise RequestError(
            f"the target {named!r} asks about features, and --head keep leaves the classifier on them",
            "leave --head out, or name a class",
        )


def _load(job: Job, head: str, given: Prompts | None, group: int, extras: Features | None) -> Network:
    """The job's network."""
    return load.load(
        job.model,
        weights=job.weights,
        labels=job.labels,
        text=given.words if given else (),
        contrast=given.contrast if given else (),
        template=job.template,
        text_tower=job.text_tower,
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


def aimed(job: Job, question: Question, network: Network) -> Target:
    """The question's target, where it has been found out what the network's scores are."""
    return _target(job, question.wanted, network, question.prompts)


def _score(job: Job, network: Network, given: Prompts | None) -> str:
    """Which number is explained, and whether the prompts can compete for it.

    Of prompts under a softmax that stand against others it is the probability, as CLIP-ES has it (Lin et al. 2023,
    arXiv:2212.09506).
    """
    name = job.score
    if name == AUTO:
        softmax = given and network.activation == "softmax"
        name = "logit" if not job.versus else "probability" if softmax else "margin"
    if given is None:
        return name
    if job.versus and name not in COMPETING:
        raise RequestError(
            f"the score {name!r} compares a prompt with no other, so --versus means nothing to it",
            f"leave it out, or choose --score {', '.join(COMPETING)}",
        )
    if job.versus and name in SOFT and network.activation == "sigmoid":
        raise RequestError(
            f"{network.name} gives each prompt a probability of its own, a sigmoid, which contrast prompts "
            f"({', '.join(map(repr, job.versus))}) do not enter",
            "compare them by --score margin, or let them compete: --activation softmax",
        )
    alone = given.fewest == 1 and (name == "margin" or (name in SOFT and network.activation != "sigmoid"))
    if alone:
        whose = f"a picture in {job.texts}" if given.own else "the job"
        raise RequestError(
            f"{whose} has a single prompt, and {name} is what a prompt has over others",
            "give more prompts, or what it shall be compared with: --versus 'a background'",
        )
    return name


def _many(job: Job, wanted: Sequence[str], network: Network, given: Prompts | None) -> list[str]:
    """That there are many maps of each picture, if nobody but the defaults asked for that."""
    count, each = network.labels.open, given is None or given.own is None
    if job.targets or "all" not in wanted or count <= MANY or not each or network.outlet.task == "detect":
        return []
    nouns = network.labels.nouns
    return [f"{count} {nouns} are explained in every picture, a map each; the best one alone: --target predicted"]


def _target(job: Job, wanted: Sequence[str], network: Network, given: Prompts | None) -> Target:
    if job.targets:
        folders = [Path(given) for given in job.inputs if Path(given).is_dir()]
        return Listed(Path(job.targets), network.labels, folders)
    # What a detector predicts is every box that it finds.
    every = {"predicted": f"top:{len(network.labels)}"} if network.outlet.task == "detect" else {}
    target = targets.resolve([every.get(word, word) for word in wanted], network)
    if given is None or job.target != (AUTO,):
        return target
    # What others are compared with is not explained unless that is asked for.
    compared = frozenset(given.versus)
    if compared >= frozenset(range(network.labels.open)):
        raise RequestError(
            f"every prompt is one that others are compared with: {', '.join(map(repr, job.versus))}",
            "give one more by --text, or name fewer by --versus",
        )
    return lambda path, scores: [index for index in target(path, scores) if index not in compared]


def _versus(job: Job, network: Network, given: Prompts | None) -> tuple[int, ...]:
    if given is not None:
        return given.versus
    named = [(word, *parsed(word)) for word in job.versus]
    words = [f"name:{likeness(argument)}" if row == "similar" else word for word, row, argument in named]
    return tuple(dict.fromkeys(map(network.labels.find, words)))


def _compared(network: Network, references: Sequence[str], job: Job) -> Network:
    """The network as one that says how like its picture is to each of these."""
    files = list(dict.fromkeys(references))
    images = torch.stack([_prepared(network.prepare, file, job) for file in files])
    with torch.inference_mode():
        reading = network.read(network.module(copied_to(network.module, images)), len(images))
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


def _prepared(prepare: Prepare, file: str, job: Job) -> torch.Tensor:
    if not file:
        raise RequestError("the target 'similar:' names no picture", "say similar:path/to/picture.jpg")
    try:
        image, _ = prepare(decode(Path(file), job.background, job.range))
    except PictureError as error:
        raise RequestError(
            f"the picture {file!r} of the target similar: cannot be read: {error.message}", error.hint
        ) from error
    except ValueError as error:  # it has other channels than the model's images
        raise RequestError(f"the picture {file!r} cannot be compared with: {error}", "name a class") from error
    return image
