"""The prompts of an inquiry, and what they cannot be asked with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camcli.base.errors import RequestError
from camcli.base.words import several
from camcli.engine.explainer import Explainer
from camcli.models.adapters import templates
from camcli.runs.job import prompts
from camcli.runs.job.fingerprint import fingerprint
from camcli.runs.job.job import Job
from camcli.runs.prompts import Inquiry
from camcli.runs.prompts.summary import Pairs, compared_pairs, several_texts


@dataclass(frozen=True, slots=True)
class Wording:
    """All prompts of an inquiry.

    Attributes:
        words: the texts asked about.
        prompts: all prompts, in order.
        texts: for each of them which of the texts it says.
        pairs: of prompts that are compared.
    """

    words: tuple[str, ...]
    prompts: tuple[str, ...]
    texts: tuple[int, ...]
    pairs: Pairs

    @classmethod
    def of(cls, inquiry: Inquiry) -> Wording:
        """Those of an inquiry.

        Raises:
            RequestError: there is one prompt alone, or each picture has its own.
        """
        words = asked_about(inquiry.job)
        worded = templates.filled(words, templates.templates(inquiry.paraphrases))
        texts, all_prompts = tuple(number for number, _ in worded), tuple(prompt for _, prompt in worded)
        if len(all_prompts) < 2:
            raise RequestError(
                f"{all_prompts[0]!r} is one prompt, and its map has nothing to be compared with",
                "give more: --text puppy; or ways to say it: --paraphrase 'a photo of a {}.'",
            )
        return cls(words, all_prompts, texts, compared_pairs(texts))

    @property
    def grouped(self) -> bool:
        """Whether there are pairs that need not agree, being of different texts."""
        return several_texts(self.pairs)

    @property
    def apart(self) -> Pairs:
        """The pairs of different texts."""
        return np.asarray(~self.pairs & ~np.eye(len(self.pairs), dtype=bool))

    def fingerprint(self, counted: Mapping[str, str]) -> str:
        """16 hex digits that change with anything that is asked for and could change a picture's line or files."""
        asked = [fingerprint(counted), self.texts]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def asked_about(job: Job) -> tuple[str, ...]:
    """The prompts that a job names, the same for all pictures.

    Raises:
        RequestError: it names none, or each picture's own.
    """
    if Path(job.texts).suffix.lower() in prompts.PICTURE_BY_PICTURE:
        raise RequestError(
            f"the prompts of all pictures are compared, and {job.texts} lists each picture's own",
            "give a plain file with one prompt a line, or --text",
        )
    named = prompts.prompts(job)
    assert named is not None  # or there would be no inquiry
    return named.words


def check_one_map(explainer: Explainer) -> None:
    """See that every prompt has one map of its own."""
    names = ", ".join(row.name for row in explainer.methods)
    if len(explainer.recipes) > 1:
        raise RequestError(
            f"the maps of one method are compared, and {len(explainer.recipes)} are named: {names}",
            "name one, and give the command again for the others, each with a folder of its own: --out",
        )
    if explainer.recipes[0].classless:
        raise RequestError(
            f"the method {names} asks for no class: its map is the same for every prompt, so there is nothing to "
            "compare",
            "choose one that does, such as gradcam",
        )
    layers = explainer.layers
    if len(layers) > 1 and explainer.fuse == "none":
        raise RequestError(
            f"the maps of one layer are compared, and {len(layers)} are named: {several(layers, len(layers))}",
            "name one, or make one map of them: --fuse mean",
        )


def check_rivals(explainer: Explainer, prompts: Sequence[str]) -> None:
    """See that no prompt is compared with itself alone, by which none of the pictures could be done whole."""
    score, numbers = explainer.outlet.score, set(range(len(prompts)))
    if score.against and len(score.versus) == 1 and numbers.intersection(score.versus):
        own = prompts[score.versus[0]]
        raise RequestError(
            f"a prompt's score is its margin over {own!r}, which is one of the prompts: it has none over itself",
            "name another one by --versus; or leave it out, and each is compared with the strongest of the others",
        )
