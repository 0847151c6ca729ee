"""Prompts as the classes of a network: texts in templates, their embeddings, and pictures compared with these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.models import PLACE
from camcli.models.adapters.templates import filled
from camcli.models.spec import Request
from camcli.targets.labels import Labels
from camcli.targets.target import Activation

# From texts to their embeddings, not normalised.
Embed = Callable[[list[str]], Float[Tensor, "k d"]]

AT_ONCE = 64
# How the empty prompt is shown, which is none that can be seen.
EMPTY = '""'


def first(features: Tensor | tuple[Tensor, ...], images: int) -> Tensor:  # noqa: ARG001
    """The features among what an image tower gives: CoCa's gives its tokens too."""
    return features[0] if isinstance(features, tuple) else features


class Prompted(nn.Module):
    """Pictures to how well each prompt describes them.

    Attributes:
        visual: the image tower; layers are named from here, such as ``visual.transformer.resblocks.-1.ln_1``.
        projection: from its features to the space of the texts, if they are not in it.
        prompts: one unit vector for each prompt, ``(prompts, d)``.
        blank: the unit vector of the empty prompt, ``(d,)``; None if the text tower gives none.
        scale: what cosines are multiplied by.
        bias: what is then added; zero for models without one.
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
        read: Callable[[Any, int], Tensor] = first,
    ) -> None:
        super().__init__()
        self.visual, self.projection, self._read = visual, projection, read
        for name, value in (("prompts", prompts), ("blank", blank), ("scale", scale), ("bias", bias)):
            self.register_buffer(name, value)

    def forward(self, images: Float[Tensor, "n d h w"]) -> Float[Tensor, "n prompts"]:
        """Scaled cosines between pictures and prompts (Radford et al. 2021, arXiv:2103.00020, figure 3)."""
        features = self._read(self.visual(images), len(images))
        if self.projection is not None:
            features = self.projection(features)
        return self.scale * F.normalize(features, dim=-1) @ self.prompts.T + self.bias


def check(request: Request) -> None:
    """See that prompts can be classes.

    Raises:
        RequestError: one is empty, or given twice.
    """
    if not all(prompt.strip() for prompt in request.text):
        raise RequestError(
            "an empty prompt describes nothing", "write what may be in the picture; as a contrast it may be empty"
        )
    twice = [prompt for prompt in dict.fromkeys(request.text) if request.text.count(prompt) > 1]
    if twice:
        raise RequestError(f"the prompt {twice[0]!r} is given more than once", "each prompt is a class of its own")


def labels(request: Request) -> Labels:
    """The prompts as names of classes; those for contrast stand at the end, and cannot be explained."""
    names = (*request.text, *(prompt if prompt.strip() else EMPTY for prompt in request.contrast))
    return Labels(names, synonyms=False, noun="prompt", asked=len(request.text))


def activation(prompts: int, sigmoid: bool) -> Activation:
    """What makes probabilities of so many prompts' scores; a single one has nothing that it could compete with."""
    return "sigmoid" if sigmoid else "softmax" if prompts > 1 else "none"


@torch.no_grad()
def embedded(embed: Embed, prompts: Sequence[str], patterns: Sequence[str] = (PLACE,)) -> Float[Tensor, "k d"]:
    """A unit vector for each prompt: its embeddings in all templates, normalised, their mean, normalised again.

    Radford et al. 2021, arXiv:2103.00020, section 3.1.4 (its prompt ensembles).

    Raises:
        RequestError: a prompt's embeddings hold NaN or infinite values, or have no direction.
    """
    texts = filled(prompts, patterns)
    sums: Tensor | None = None
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        found = F.normalize(embed([text for _, text in some]).float(), dim=-1)
        if sums is None:
            sums = torch.zeros(len(prompts), found.shape[1])
        sums.index_add_(0, torch.tensor([number for number, _ in some]), found.cpu())
    assert sums is not None  # or there would be no prompts
    for prompt, row in zip(prompts, sums, strict=True):
        if not row.isfinite().all() or not row.any():
            what = "is zero" if row.isfinite().all() else "holds NaN or infinite values"
            raise RequestError(f"the embedding of the prompt {prompt!r} {what}", "try other words, or other weights")
    return F.normalize(sums, dim=-1)
