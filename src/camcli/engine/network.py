"""A model with everything that is needed to run it and to trace where it came from."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from camcli.base.deprecated import accept_old_arguments, with_old_names
from camcli.engine import stored
from camcli.engine.layers.layout import scale_grid
from camcli.images.transform import Preprocess
from camcli.targets.labels import Labels
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC, OutputSpec
from camcli.targets.target import Activation, Predictions

# Argument and attribute names of the last release.
RENAMED = {"outlet": "output_spec", "prepare": "preprocess", "wrapped": "wrapped_module"}


@with_old_names(RENAMED, RENAMED)
@dataclass(frozen=True)
class Network:
    """A model that predicts which classes are in images, and perhaps where.

    Attributes:
        name: full name, such as ``timm:resnet50.a1_in1k``.
        module: takes images ``(n, 3, h, w)``; its output is parsed by ``output_spec``; in evaluation mode.
        preprocess: from an upright image to the model's input.
        labels: names of the classes, in the order of the scores.
        weights: ``pretrained``, ``random`` or ``file``.
        origin: a sentence for users: where the weights came from.
        activation: the function that turns scores into probabilities; ``none`` if there is none, as in regression;
            ``probabilities`` if the scores are probabilities.
        prefix: number of tokens before the patch tokens, if the source knows it.
        grid: the patch grid ``(rows, columns)`` of an image of the size that ``preprocess`` gives, if the source knows
            it.
        notes: remarks for users of this model.
        output_spec: how the module's output is parsed; by default as one score per class.
        layer: the default layer, if the source knows one.
        headless: True if the model returns features instead of class scores: each "class" is then a channel.
        wrapped_module: the source's own module, if ``module`` wraps it; its layers can be named as if it stood alone.
        cosine: of a network that compares images with prompts, ``(scale, bias)``: a score is scale * cosine + bias.
        pyramid: of a detector, the module whose output are the feature maps that boxes are read from, if the source
            knows it.
        activation_asked: True if the user chose the activation, so that it is not detected.
        shared: reason why the module cannot be changed, if it is in use elsewhere; empty if it can.
        suffix: number of tokens behind the patch tokens, such as those of boxes; counts if prefix and grid are known.
        without_gradient: reason why its outputs have no gradient, if another library computes them; else empty.
    """

    name: str
    module: torch.nn.Module
    preprocess: Preprocess
    labels: Labels
    weights: Literal["pretrained", "random", "file"]
    origin: str
    activation: Activation = "softmax"
    prefix: int | None = None
    grid: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    output_spec: OutputSpec = DEFAULT_OUTPUT_SPEC
    layer: str = ""
    headless: bool = False
    wrapped_module: torch.nn.Module | None = None
    cosine: tuple[float, float] | None = None
    pyramid: str = ""
    activation_asked: bool = False
    shared: str = ""
    suffix: int = 0
    without_gradient: str = ""

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        about = f"{type(self.module).__name__}, {len(self.labels)} {self.labels.nouns}, input {height}x{width}"
        return f"Network({self.name}: {about}, weights {self.weights})"

    @accept_old_arguments({"seen": "picture_mask", "region": "region_mask"})
    def read(
        self,
        output: Any,
        images: int,
        picture_mask: torch.Tensor | None = None,
        region_mask: torch.Tensor | None = None,
    ) -> Predictions:
        """Parse the module's output for a batch: see :meth:`camcli.targets.readers.spec.OutputSpec.read`."""
        return self.output_spec.read(output, images, self.labels.names, self.activation, picture_mask, region_mask)

    def grid_at(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Return the patch grid of an image of any size ``(h, w)``, if it follows from that of the source."""
        return scale_grid(self.grid, self.preprocess.size, size)

    @property
    def untrained(self) -> bool:
        """True if the weights are random, so that no map of this model means anything."""
        return self.weights == "random"

    def sha256(self) -> str:
        """Compute the SHA-256 of all weights and stored buffers: names, types, shapes and bytes, in order of name.

        It is the same on every device, however the weights were loaded. What modules store beside tensors
        (``get_extra_state``, the quantisation) counts too.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            for piece in stored.iter_bytes(name, value):
                digest.update(piece)
        return digest.hexdigest()

    def unsaved_sha256(self) -> str:
        """Compute the SHA-256 of the buffers that no file of weights holds, though they affect the network's output."""
        digest, saved = hashlib.sha256(), self.module.state_dict().keys()
        for name, tensor in sorted(self.module.named_buffers()):
            if name not in saved:
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def is_two_sided(network: Network, names: Labels) -> bool:
    """Return whether the network has a single score that separates two classes, since two are named."""
    plain = network.output_spec.task == "classify" and network.output_spec.references is None
    return plain and len(names) == 2 and network.activation != "none" and not network.headless and not network.cosine


def make_two_sided(network: Network, names: Labels) -> Network:
    """Return the network with its single score as that of the second class, and its negative as that of the first."""
    note = (
        f"the model's single score separates two classes: raising it is evidence for {names.short(1)!r}, lowering it "
        f"for {names.short(0)!r}"
    )
    given: Activation = "probabilities" if network.activation == "probabilities" else "sigmoid"
    output_spec = replace(network.output_spec, two_sided=True)
    return replace(network, labels=names, activation=given, output_spec=output_spec, notes=(*network.notes, note))
