"""Resolution of a job: its network, and the targets and score that are explained of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from camcli import targets
from camcli.base.errors import PictureError, RequestError
from camcli.engine.devices import copy_to_module
from camcli.engine.maps.method import bind_methods
from camcli.engine.network import Network
from camcli.images.decode import decode_reduced, never_reduce
from camcli.images.features import Features
from camcli.models import load
from camcli.runs.job.job import Job
from camcli.runs.job.prompts import Prompts, read_prompts
from camcli.runs.worker.bands import choose_bands, make_input
from camcli.targets import AUTO, FEATURE_TARGETS, SIMILAR_PREFIX, TargetRule, parse_target
from camcli.targets.features import name_similarity
from camcli.targets.labels import Labels
from camcli.targets.named import TargetManifest
from camcli.targets.scores import SCORES

# Scores of a prompt that are relative to others; those of them that a softmax makes.
COMPETING_SCORES = ("probability", "logprob", "margin")
SOFTMAX_SCORES = ("probability", "logprob")
# More maps of each image than this are noted.
MANY_MAPS = 20


@dataclass(frozen=True, slots=True)
class ResolvedJob:
    """Job whose model and targets are resolved.

    Attributes:
        network: gives scores of classes, features, or similarity to other images, as the targets need.
        target_rule: maps an image's path and scores to the classes that are explained.
        target_words: words of the targets, with the default in place of ``auto``.
        score: name of the score that is explained.
        versus: classes that a margin is over.
        prompts: prompts that images are compared with, if any.
        top_channels: number of the layer's channels to explain for each class; 0 for the class itself.
        notes: notes for the user.
    """

    network: Network
    target_rule: TargetRule
    target_words: tuple[str, ...] = ()
    score: str = "logit"
    versus: tuple[int, ...] = ()
    prompts: Prompts | None = None
    top_channels: int = 0
    notes: tuple[str, ...] = ()


def resolve_job(
    job: Job, group: int = 0, extras: Features | None = None, loading: Mapping[str, Any] | None = None
) -> ResolvedJob:
    """Resolve a job: load its network and find its targets, score and rivals.

    With ``head="auto"`` the model's head is removed if a target names features, which a head hides.

    Args:
        job: the job.
        group: number of images that a wrapper takes as one group; 0 if it takes batches of any size.
        extras: features of as many images, to try the wrapper with.
        loading: arguments of :func:`camcli.load` in place of the job's: what no job can hold, as a model in memory.

    Raises:
        RequestError: the model, a target, a prompt or an image to compare with is not available, or they do not go
            together.
    """
    given = read_prompts(job)
    bound_methods = bind_methods(job.method, job.options)
    # Where all methods find concepts, which belong to no class, a target is not looked up: it may name none. But it
    # says to which classes they matter, if that is asked.
    classless = all(one.finds_concepts and not one.ranks_concepts for one in bound_methods)
    named = (AUTO,) if classless else job.target
    wanted = tuple(("all" if given else "predicted") if word == AUTO else word for word in named)
    rows = [parse_target(word)[0] for word in wanted]
    top_channels = targets.count_top_channels(wanted)
    channel_methods = [one.row.name for one in bound_methods if one.explains_channel]
    every = len(channel_methods) == len(bound_methods)
    similar_words = [word for word in (*job.target, *job.versus) if word.startswith(SIMILAR_PREFIX)]
    of_features = bool(similar_words) or ("channel" in rows and not every)
    notes: tuple[str, ...] = ()
    if of_features:
        _check_features(job, (*wanted, *similar_words), given)
    if job.text_tower and job.head == "keep":
        raise RequestError(
            f"{job.text_tower} is compared with the model's features, and --head keep keeps the classifier",
            "leave --head out",
        )
    head = "none" if job.head == "none" or (job.head == "auto" and of_features) else "keep"
    if job.head == "auto" and head == "none":
        notes = ("the model's head is removed, since the target is a feature (--head none)",)
    network = _load_network(job, head, given, group, extras, loading or {})
    if channel_methods and not top_channels and not network.headless and (job.targets or set(rows) != {"channel"}):
        raise RequestError(
            f"{channel_methods[0]} shows a channel of the layer, and the targets "
            f"({job.targets or ', '.join(wanted)}) name none",
            "use --target channel:12,99; or --target channels:top:5 for those that matter most to the predicted class",
        )
    if similar_words:
        if len(similar_words) < len(job.target) + len(job.versus):
            raise RequestError(
                f"{', '.join((*job.target, *job.versus))} cannot be combined in one run: similarity to an image is "
                "not a class",
                "use only similar:FILE, for --target and --versus",
            )
        network = make_similarity_network(network, [parse_target(word)[1] for word in similar_words], job)
    score = _choose_score(job, network, given)
    return ResolvedJob(
        network=network,
        target_rule=make_target_rule(job, wanted, network, given),
        target_words=wanted,
        score=score,
        versus=_find_versus(job, network, given) if SCORES.find(score).has_rivals or not given else (),
        prompts=given,
        top_channels=top_channels,
        notes=(*notes, *_note_many_maps(job, wanted, network, given)),
    )


def _check_features(job: Job, words: Sequence[str], given: Prompts | None) -> None:
    """Check that targets may name features.

    Args:
        job: the job.
        words: the targets, and those that they are compared with.
        given: the prompts, if any.

    Raises:
        RequestError: there are prompts, or the classifier is kept.
    """
    named = next(word for word in words if parse_target(word)[0] in FEATURE_TARGETS)
    if given:
        raise RequestError(
            f"the target {named!r} is a feature of the image, and prompts were given too",
            "leave out one of them",
        )
    if job.head == "keep":
        raise RequestError(
            f"the target {named!r} is a feature, and --head keep keeps the classifier",
            "leave --head out, or name a class",
        )


def _load_network(
    job: Job,
    head: str,
    given: Prompts | None,
    group: int,
    extras: Features | None,
    loading: Mapping[str, Any],
) -> Network:
    """Load the job's network, or the one in memory that ``loading`` names."""
    arguments: dict[str, Any] = {
        "model": job.model,
        "weights": job.weights,
        "labels": job.labels,
        "text": given.explained if given else (),
        "contrast": given.contrast if given else (),
        "template": job.template,
        "text_tower": job.text_tower,
        "trust_code": job.trust_code,
        "seed": job.seed,
        "size": job.size,
        "crop": job.crop,
        "preprocess": job.preprocess,
        "output": job.output,
        "min_score": job.min_score,
        "head": "none" if head == "none" else "keep",
        "pool": job.pool,
        "activation": job.activation,
        "wrap": job.wrap,
        "group": group,
        "extras": extras,
    }
    return load.load(**{**arguments, **loading})


def resolve_target_rule(job: Job, resolved: ResolvedJob, network: Network) -> TargetRule:
    """Return the target rule for a network whose kind of scores has been found out by now."""
    return make_target_rule(job, resolved.target_words, network, resolved.prompts)


def make_own_rule(job: Job, word: str, network: Network, prompts: Prompts | None) -> TargetRule:
    """Return the target rule of a single picture, which names a class of its own.

    Raises:
        RequestError: the word is not about classes.
    """
    row = parse_target(word)[0]
    if row in (*FEATURE_TARGETS, "channels"):
        raise RequestError(
            f"{word!r} is no class, and each image's own target is one", f"target={word!r} holds for all images"
        )
    return make_target_rule(replace(job, target=(word,), targets=""), (word,), network, prompts)


def _choose_score(job: Job, network: Network, given: Prompts | None) -> str:
    """Choose the score that is explained, and check that the prompts can compete for it.

    For prompts under a softmax with ``versus`` the default is the probability, as in CLIP-ES (Lin et al. 2023,
    arXiv:2212.09506).
    """
    name = job.score
    if name == AUTO:
        softmax = given and network.activation == "softmax"
        name = "logit" if not job.versus else "probability" if softmax else "margin"
    if given is None:
        return name
    if job.versus and name not in COMPETING_SCORES:
        raise RequestError(
            f"the score {name!r} does not compare prompts, so --versus cannot be used with it",
            f"leave it out, or choose --score {', '.join(COMPETING_SCORES)}",
        )
    if job.versus and name in SOFTMAX_SCORES and network.activation == "sigmoid":
        raise RequestError(
            f"{network.name} gives each prompt its own probability (sigmoid), so contrast prompts "
            f"({', '.join(map(repr, job.versus))}) have no effect",
            "compare them by --score margin, or let them compete: --activation softmax",
        )
    has_no_rival = given.min_competing == 1 and (
        name == "margin" or (name in SOFTMAX_SCORES and network.activation != "sigmoid")
    )
    if has_no_rival:
        whose = f"an image in {job.texts}" if given.per_picture else "the job"
        raise RequestError(
            f"{whose} has a single prompt, and the score {name} compares it with others",
            "give more prompts, or a contrast: --versus 'a background'",
        )
    return name


def _note_many_maps(job: Job, wanted: Sequence[str], network: Network, given: Prompts | None) -> list[str]:
    """Return a note if each image has many maps, one for every class or prompt."""
    count, each = network.labels.explainable_count, given is None or given.per_picture is None
    if job.targets or "all" not in wanted or count <= MANY_MAPS or not each or network.output_spec.task == "detect":
        return []
    nouns = network.labels.nouns
    return [f"{count} {nouns} are explained for every image, one map each; for the best one only: --target predicted"]


def make_target_rule(job: Job, wanted: Sequence[str], network: Network, given: Prompts | None) -> TargetRule:
    """Return the rule for target words, or for the job's file of targets."""
    if job.targets:
        folders = [Path(given) for given in job.inputs if Path(given).is_dir()]
        return TargetManifest(Path(job.targets), network.labels, folders)
    # A detector predicts all boxes that it finds.
    every = {"predicted": f"top:{len(network.labels)}"} if network.output_spec.task == "detect" else {}
    target = targets.resolve([every.get(word, word) for word in wanted], network)
    if given is None or job.target != (AUTO,):
        return target
    # Prompts that others are compared with are not explained unless they are named as targets.
    compared = frozenset(given.versus)
    if compared >= frozenset(range(network.labels.explainable_count)):
        raise RequestError(
            f"every prompt is also a contrast prompt: {', '.join(map(repr, job.versus))}",
            "give one more by --text, or name fewer by --versus",
        )
    return lambda path, scores: [index for index in target(path, scores) if index not in compared]


def _find_versus(job: Job, network: Network, given: Prompts | None) -> tuple[int, ...]:
    if given is not None:
        return given.versus
    named = [(word, *parse_target(word)) for word in job.versus]
    words = [f"name:{name_similarity(argument)}" if row == "similar" else word for word, row, argument in named]
    return tuple(dict.fromkeys(map(network.labels.find, words)))


def make_similarity_network(network: Network, references: Sequence[str], job: Job) -> Network:
    """Return the network with similarity to each of these images as its scores.

    Args:
        network: the network without its head, whose scores are features.
        references: files of images.
        job: says how they are decoded.

    Raises:
        RequestError: an image cannot be read, does not fit the network, or has no active feature.
    """
    files = list(dict.fromkeys(references))
    images = torch.stack([_load_reference(network, file, job) for file in files])
    with torch.inference_mode():
        predictions = network.read(network.module(copy_to_module(network.module, images)), len(images))
        features = torch.stack([predictions.scores(row) for row in range(len(images))]).clone()
    silent = [file for file, one in zip(files, features, strict=True) if not one.any()]
    if silent:
        raise RequestError(f"no feature of {silent[0]!r} is active, so nothing is similar to it", "name another image")
    return replace(
        network,
        labels=Labels(tuple(map(name_similarity, files)), synonyms=False),
        activation="none",
        output_spec=replace(network.output_spec, references=features),
        headless=False,
    )


def _load_reference(network: Network, file: str, job: Job) -> torch.Tensor:
    if not file:
        raise RequestError("the target 'similar:' names no image", "write similar:path/to/image.jpg")
    try:
        bands = choose_bands(job, network)
        decoded = decode_reduced(Path(file), never_reduce, job.background, job.range, bands=bands)
        image, _ = make_input(decoded, network.preprocess, network.name)
    except PictureError as error:
        raise RequestError(
            f"the image {file!r} of the target similar: cannot be read: {error.message}", error.hint
        ) from error
    except ValueError as error:  # it has other channels than the model's images
        raise RequestError(f"the image {file!r} cannot be compared with: {error}", "name a class") from error
    return image
