"""Zero-shot classification: embeddings of prompts, and a module that compares images with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.models import PLACEHOLDER
from camcli.models.adapters.templates import fill_templates
from camcli.models.spec import ModelSpec
from camcli.targets.labels import Labels
from camcli.targets.target import Activation

# A function from texts to their embeddings, not normalised.
EmbedTexts = Callable[[list[str]], Float[Tensor, "k d"]]

BATCH_SIZE = 64
# The label of the empty prompt, which would be invisible.
EMPTY_PROMPT = '""'


def take_features(features: Tensor | tuple[Tensor, ...], images: int) -> Tensor:  # noqa: ARG001
    """Return the features in an image tower's output: CoCa's also returns its tokens."""
    return features[0] if isinstance(features, tuple) else features


class ZeroShotClassifier(nn.Module):
    """Classifier whose scores are scaled cosines between images and prompts.

    Attributes:
        visual: the image tower; layers are named from here, such as ``visual.transformer.resblocks.-1.ln_1``.
        projection: maps its features into the text embedding space; None if they are in it already.
        prompts: one unit vector for each prompt, ``(prompts, d)``.
        blank: the unit vector of the empty prompt, ``(d,)``; None if the text tower has none.
        scale: the factor of the cosines.
        bias: the term added to them; zero for models without one.
    """

    prompts: Tensor
    blank: Tensor | None
    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        visual: nn.Module,
        prompts: Tensor,
        scale: Tensor,
        bias: Tensor,
        blank: Tensor | None = None,
        projection: nn.Module | None = None,
        read_features: Callable[[Any, int], Tensor] = take_features,
    ) -> None:
        super().__init__()
        self.visual, self.projection, self._read_features = visual, projection, read_features
        for name, value in (("prompts", prompts), ("blank", blank), ("scale", scale), ("bias", bias)):
            self.register_buffer(name, value)

    def forward(self, images: Float[Tensor, "n d h w"]) -> Float[Tensor, "n prompts"]:
        """Compute scaled cosines between images and prompts (Radford et al. 2021, arXiv:2103.00020, figure 3)."""
        features = self._read_features(self.visual(images), len(images))
        if self.projection is not None:
            features = self.projection(features)
        return self.scale * F.normalize(features, dim=-1) @ self.prompts.T + self.bias


def check_wanted_prompts(spec: ModelSpec, name: str) -> None:
    """Check the prompts of a model whose only classes they are; an untrained or headless one needs none.

    Raises:
        RequestError: there are none, or as :func:`check_prompts`.
    """
    if not spec.text and not spec.is_random and not spec.headless:
        raise RequestError(
            f"{name} has no classes of its own",
            "name some with --text, once for each: --text 'a photo of a cat' --text 'a photo of a dog'; or explain the "
            "features of its image tower: --head none",
        )
    check_prompts(spec)


def check_prompts(spec: ModelSpec) -> None:
    """Check that the prompts can be classes.

    Raises:
        RequestError: a prompt is empty, or given twice.
    """
    if not all(prompt.strip() for prompt in spec.text):
        raise RequestError(
            "an empty prompt describes nothing", "write what may be in the image; as a contrast it may be empty"
        )
    twice = [prompt for prompt in dict.fromkeys(spec.text) if spec.text.count(prompt) > 1]
    if twice:
        raise RequestError(f"the prompt {twice[0]!r} is given more than once", "each prompt is a class of its own")


def make_labels(spec: ModelSpec) -> Labels:
    """Make class names of the prompts; contrast prompts come last, and cannot be explained."""
    names = (*spec.text, *(prompt if prompt.strip() else EMPTY_PROMPT for prompt in spec.contrast))
    return Labels(names, synonyms=False, noun="prompt", asked=len(spec.text))


def choose_activation(prompts: int, sigmoid: bool) -> Activation:
    """Choose the activation for a number of prompts; a softmax over a single one would be constant."""
    return "sigmoid" if sigmoid else "softmax" if prompts > 1 else "none"


@torch.no_grad()
def embed_prompts(
    embed: EmbedTexts, prompts: Sequence[str], templates: Sequence[str] = (PLACEHOLDER,)
) -> Float[Tensor, "k d"]:
    """Compute a unit vector for each prompt: the normalised mean of its normalised embeddings in all templates.

    Prompt ensembles of Radford et al. 2021, arXiv:2103.00020, section 3.1.4.

    Raises:
        RequestError: a prompt's embeddings hold NaN or infinite values, or have no direction.
    """
    texts = fill_templates(prompts, templates)
    sums: Tensor | None = None
    for start in range(0, len(texts), BATCH_SIZE):
        some = texts[start : start + BATCH_SIZE]
        found = F.normalize(embed([text for _, text in some]).float(), dim=-1)
        if sums is None:
            sums = torch.zeros(len(prompts), found.shape[1])
        sums.index_add_(0, torch.tensor([number for number, _ in some]), found.cpu())
    assert sums is not None  # there is at least one prompt
    for prompt, row in zip(prompts, sums, strict=True):
        if not row.isfinite().all() or not row.any():
            what = "is zero" if row.isfinite().all() else "contains NaN or infinite values"
            raise RequestError(f"the embedding of the prompt {prompt!r} {what}", "try other words, or other weights")
    return F.normalize(sums, dim=-1)
