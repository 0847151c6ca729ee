"""A model with everything that is needed to use it and to say where it came from."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch

from camcli.geometry import Prepare
from camcli.labels import Labels


@dataclass(frozen=True)
class Network:
    """A classifier of pictures.

    Attributes:
        name: its full name, such as ``timm:resnet50.a1_in1k``.
        module: takes images ``(n, 3, h, w)`` to scores ``(n, classes)``; in evaluation mode.
        prepare: from an upright picture to one image.
        labels: the names of the classes, in the order of the scores.
        weights: ``pretrained``, ``random`` or ``file``.
        origin: a sentence for people: where the weights came from.
        activation: what makes probabilities of the scores.
        prefix: how many tokens stand in front of the patch tokens, if the source says so.
        grid: the patch grid ``(rows, columns)``, if the source says so.
        notes: what a user of this model must know.
    """

    name: str
    module: torch.nn.Module
    prepare: Prepare
    labels: Labels
    weights: Literal["pretrained", "random", "file"]
    origin: str
    activation: Literal["softmax", "sigmoid"] = "softmax"
    prefix: int | None = None
    grid: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def untrained(self) -> bool:
        """Whether the weights are random, so that no map of this model means anything."""
        return self.weights == "random"

    def sha256(self) -> str:
        """The SHA-256 of all weights and stored buffers: their names, types, shapes and bytes, in order of name.

        Equal on every device and for every way the same weights were loaded.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            # NumPy has no bfloat16, so the bytes are looked at as bytes.
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
