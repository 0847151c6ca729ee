"""Description of a requested model, and the interface that a model source implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from camcli.base.deprecated import with_old_names
from camcli.models import RANDOM_WEIGHTS, PoolOption

if TYPE_CHECKING:
    from camcli.engine.network import Network


# Names of the last release.
OLD_NAMES = {"random": "is_random", "file": "weights_file", "kind": "weights_kind", "wrapped": "has_wrapper"}


@with_old_names(attributes=OLD_NAMES)
@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Request for a model, as its source gets it.

    Attributes:
        name: the model's name within its source.
        weights: empty for the model's own, ``random``, or the path of a weights file.
        labels: the path of a file with the class names, or empty.
        text: prompts that are the classes.
        contrast: prompts that only compete with those of ``text``.
        template: templates that each prompt is put into.
        text_tower: a function of the user's own that embeds prompts, or empty.
        trust_code: whether code that a model's repository brings along may run.
        seed: seed of random weights.
        size: height and width of the input; None for the model's own.
        output: path to the scores in the model's output, or empty to find them automatically.
        min_score: threshold below which a detector's boxes are dropped.
        head: ``none`` for the model without its classifier, whose output is features.
        pool: ``none`` for the features before pooling.
        has_wrapper: whether a module of the user's own wraps it, so that its own inputs and outputs are unconstrained.
        preprocess: how images are prepared, for a model that does not say it: words, a :class:`Preprocess`, or a
            torchvision transform; or None.
    """

    name: str
    weights: str = ""
    labels: str = ""
    text: tuple[str, ...] = ()
    contrast: tuple[str, ...] = ()
    template: tuple[str, ...] = ()
    text_tower: str = ""
    trust_code: bool = False
    seed: int = 0
    size: tuple[int, int] | None = None
    output: str = ""
    min_score: float = 0.5
    head: Literal["keep", "none"] = "keep"
    pool: PoolOption = "keep"
    has_wrapper: bool = False
    preprocess: Any = None

    @property
    def headless(self) -> bool:
        """True if the model is requested without its classifier."""
        return self.head == "none"

    @property
    def is_random(self) -> bool:
        """True if untrained weights are requested."""
        return self.weights == RANDOM_WEIGHTS

    @property
    def weights_file(self) -> str:
        """The path of the weights file, or empty."""
        return "" if self.is_random else self.weights

    @property
    def weights_kind(self) -> Literal["pretrained", "random", "file"]:
        """The kind of weights, as in ``Network.weights``."""
        return "random" if self.is_random else "file" if self.weights_file else "pretrained"


@runtime_checkable
class ModelSource(Protocol):
    """Interface of a model source's module."""

    def load(self, spec: ModelSpec) -> Network:
        """Load the requested model."""

    def names(self) -> list[str]:
        """List every name that can be loaded."""

    def has(self, name: str) -> bool:
        """Return whether this source has the model, whatever the tag."""

    def cached(self, name: str) -> bool:
        """Return whether the model's weights are on this machine."""
