"""A model with everything that is needed to use it and to say where it came from."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from camcli.engine import stored
from camcli.engine.layers.layout import scaled
from camcli.images.transform import Prepare
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import PLAIN, Outlet
from camcli.targets.target import Activation, Reading


@dataclass(frozen=True)
class Network:
    """A model that says which classes are in pictures, and perhaps where.

    Attributes:
        name: its full name, such as ``timm:resnet50.a1_in1k``.
        module: takes images ``(n, 3, h, w)`` to what ``outlet`` reads; in evaluation mode.
        prepare: from an upright picture to one image.
        labels: the names of the classes, in the order of the scores.
        weights: ``pretrained``, ``random`` or ``file``.
        origin: a sentence for people: where the weights came from.
        activation: what makes probabilities of the scores; ``none`` if nothing does, as in regression;
            ``probabilities`` if they are some.
        prefix: how many tokens stand in front of the patch tokens, if the source says so.
        grid: the patch grid ``(rows, columns)`` of an image of the size that ``prepare`` gives, if the source says so.
        notes: what a user of this model must know.
        outlet: how what the module returns is read; by default as one score for each class.
        layer: the layer that is explained when none is named, if the source knows one.
        pyramid: of a detector the module that gives the maps of several grids that boxes are read from, likewise.
        headless: whether it gives features and not scores of classes: each "class" is then a channel.
        wrapped: the source's own module, where ``module`` is another around it; its layers can be named as if it stood
            alone.
        activation_asked: whether a person said what makes probabilities, so that it is not looked for.
        cosine: of a network that compares pictures with prompts, ``(scale, bias)``: a score is scale * cosine + bias.
        shared: why the module cannot be changed, where somebody else holds it too; empty if it can.
    """

    name: str
    module: torch.nn.Module
    prepare: Prepare
    labels: Labels
    weights: Literal["pretrained", "random", "file"]
    origin: str
    activation: Activation = "softmax"
    prefix: int | None = None
    grid: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    outlet: Outlet = PLAIN
    layer: str = ""
    headless: bool = False
    wrapped: torch.nn.Module | None = None
    cosine: tuple[float, float] | None = None
    pyramid: str = ""
    activation_asked: bool = False
    shared: str = ""

    def read(
        self, output: Any, images: int, seen: torch.Tensor | None = None, region: torch.Tensor | None = None
    ) -> Reading:
        """What the module returned for a batch, read: see :meth:`camcli.targets.readers.spec.Outlet.read`."""
        return self.outlet.read(output, images, self.labels.names, self.activation, seen, region)

    def grid_at(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """The patch grid of an image of any size ``(h, w)``, if it follows from what the source says."""
        return scaled(self.grid, self.prepare.size, size)

    @property
    def untrained(self) -> bool:
        """Whether the weights are random, so that no map of this model means anything."""
        return self.weights == "random"

    def sha256(self) -> str:
        """The SHA-256 of all weights and stored buffers: their names, types, shapes and bytes, in order of name.

        Equal on every device and for every way the same weights were loaded. What modules store beside tensors
        (``get_extra_state``, how they are quantised) counts too.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            for piece in stored.pieces(name, value):
                digest.update(piece)
        return digest.hexdigest()

    def unsaved_sha256(self) -> str:
        """The same of the buffers that no file of weights holds, and that change what the network says all the same."""
        digest, saved = hashlib.sha256(), self.module.state_dict().keys()
        for name, tensor in sorted(self.module.named_buffers()):
            if name not in saved:
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def tells_apart(network: Network, names: Labels) -> bool:
    """Whether the single score of a network tells two classes apart, since so many are named."""
    plain = network.outlet.task == "classify" and network.outlet.references is None
    return plain and len(names) == 2 and network.activation != "none" and not network.headless and not network.cosine


def two_sided(network: Network, names: Labels) -> Network:
    """The network as one whose single score is that of the second class, and turned round that of the first."""
    note = (
        f"the model's one score tells two classes apart: what raises it speaks for {names.short(1)!r}, what lowers it "
        f"for {names.short(0)!r}"
    )
    given: Activation = "probabilities" if network.activation == "probabilities" else "sigmoid"
    outlet = replace(network.outlet, two_sided=True)
    return replace(network, labels=names, activation=given, outlet=outlet, notes=(*network.notes, note))
