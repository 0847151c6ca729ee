"""Prompts of a ``camcli prompts`` job, and checks of methods and scores that cannot compare them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from camcli.base.errors import RequestError
from camcli.base.words import shorten
from camcli.engine.explainer import Explainer
from camcli.models.adapters import templates
from camcli.runs.job import prompts
from camcli.runs.job.fingerprint import compute_fingerprint
from camcli.runs.job.job import Job
from camcli.runs.prompts import PromptJob
from camcli.runs.prompts.summary import Pairs, find_compared_pairs, has_several_texts


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts of a job that are compared.

    Attributes:
        texts: the texts that the prompts word.
        prompts: all prompts, in order.
        text_indices: for each prompt the index of its text.
        pairs: pairs of prompts that are compared.
    """

    texts: tuple[str, ...]
    prompts: tuple[str, ...]
    text_indices: tuple[int, ...]
    pairs: Pairs

    @classmethod
    def from_job(cls, prompt_job: PromptJob) -> PromptSet:
        """Return the prompts of a job.

        Raises:
            RequestError: there is one prompt alone, or each image has its own.
        """
        words = read_shared_prompts(prompt_job.job)
        worded = templates.fill_templates(words, templates.expand_templates(prompt_job.paraphrases))
        texts, all_prompts = tuple(number for number, _ in worded), tuple(prompt for _, prompt in worded)
        if len(all_prompts) < 2:
            raise RequestError(
                f"{all_prompts[0]!r} is the only prompt, so there is nothing to compare its map with",
                "give more: --text puppy; or paraphrases: --paraphrase 'a photo of a {}.'",
            )
        return cls(words, all_prompts, texts, find_compared_pairs(texts))

    @property
    def has_several_texts(self) -> bool:
        """True if there are pairs of different texts, which need not agree."""
        return has_several_texts(self.pairs)

    @property
    def pairs_across_texts(self) -> Pairs:
        """Pairs of different texts."""
        return np.asarray(~self.pairs & ~np.eye(len(self.pairs), dtype=bool))

    def compute_fingerprint(self, parts: Mapping[str, str]) -> str:
        """Return 16 hex digits that change with anything that could change an image's line or files."""
        content = [compute_fingerprint(parts), self.text_indices]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def read_shared_prompts(job: Job) -> tuple[str, ...]:
    """Read the prompts that a job names, the same for all images.

    Raises:
        RequestError: the job names none, or each image's own.
    """
    prompts.refuse_own_prompts(job)
    named = prompts.read_prompts(job)
    assert named is not None  # checked by PromptJob
    return named.explained


def check_one_map(explainer: Explainer) -> None:
    """Check that every prompt has one map of its own.

    Raises:
        RequestError: it has several, none, or that of every other.
    """
    if explainer.output_spec.task == "detect":
        raise RequestError(
            "the model finds boxes, of which a prompt has several or none, and maps of prompts cannot be compared",
            "explain its boxes: camcli explain, with the same prompts",
        )
    names = ", ".join(row.name for row in explainer.methods)
    if len(explainer.bound_methods) > 1:
        raise RequestError(
            f"maps are compared for one method, and {len(explainer.bound_methods)} are named: {names}",
            "name one, and run the command again for the others, each with its own --out",
        )
    if explainer.bound_methods[0].is_classless:
        raise RequestError(
            f"the method {names} does not depend on the class: its map is the same for every prompt, so there is "
            "nothing to compare",
            "choose one that does, such as gradcam",
        )
    layers = explainer.layers
    if len(layers) > 1 and explainer.fuse == "none":
        raise RequestError(
            f"maps are compared for one layer, and {len(layers)} are named: {shorten(layers, len(layers))}",
            "name one, or make one map of them: --fuse mean",
        )


def check_rivals(explainer: Explainer, prompts: Sequence[str]) -> None:
    """Check that no prompt is compared only with itself, since then no image could be done whole."""
    score, numbers = explainer.output_spec.score, set(range(len(prompts)))
    if score.has_rivals and len(score.fixed_rivals) == 1 and numbers.intersection(score.fixed_rivals):
        rival = prompts[score.fixed_rivals[0]]
        raise RequestError(
            f"a prompt's score is its margin over {rival!r}, which is one of the prompts: it has no margin over itself",
            "name another one by --versus; or leave it out, and each is compared with the strongest of the others",
        )
