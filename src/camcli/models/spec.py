"""What is asked of a source of models, and what a source must offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from camcli.models import RANDOM_WEIGHTS, Pool

if TYPE_CHECKING:
    from camcli.engine.network import Network


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a source.

    Attributes:
        name: the model's name within its source.
        weights: empty for the model's own, ``random``, or a file.
        labels: a file with the names of the classes, or empty.
        text: prompts that are the classes.
        contrast: prompts that only compete with these.
        template: what each prompt is put into.
        text_tower: a function of the user's own that embeds prompts, or empty.
        seed: of random weights.
        size: height and width of the input; None for the model's own.
        output: where in what the model returns its scores are, if that is not plain.
        min_score: boxes of a detector below it are left out.
        head: ``none`` for the model without its classifier, which gives features.
        pool: ``none`` for its features before they are pooled.
        wrapped: whether a module of the user's own comes around it, so that its own inputs and outputs may be any.
    """

    name: str
    weights: str = ""
    labels: str = ""
    text: tuple[str, ...] = ()
    contrast: tuple[str, ...] = ()
    template: tuple[str, ...] = ()
    text_tower: str = ""
    seed: int = 0
    size: tuple[int, int] | None = None
    output: str = ""
    min_score: float = 0.5
    head: Literal["keep", "none"] = "keep"
    pool: Pool = "keep"
    wrapped: bool = False

    @property
    def headless(self) -> bool:
        """Whether the model is asked for without its classifier."""
        return self.head == "none"

    @property
    def random(self) -> bool:
        """Whether untrained weights are asked for."""
        return self.weights == RANDOM_WEIGHTS

    @property
    def file(self) -> str:
        """The file of weights, or empty."""
        return "" if self.random else self.weights

    @property
    def kind(self) -> Literal["pretrained", "random", "file"]:
        """Where the weights come from, in the word that ``Network.weights`` has for it."""
        return "random" if self.random else "file" if self.file else "pretrained"


@runtime_checkable
class Source(Protocol):
    """What a source's file offers."""

    def load(self, request: Request) -> Network:
        """The model of this name."""

    def names(self) -> list[str]:
        """Every name that can be loaded."""

    def has(self, name: str) -> bool:
        """Whether a name is one of this source's, perhaps with a tag it does not have."""

    def cached(self, name: str) -> bool:
        """Whether the model's weights are at hand."""
