"""The head of a network in a file of weights, where it has another name or form than the model's own."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Sources whose models can be built without their weights.
LIBRARIES = ("bundled", "timm", "torchvision", "open_clip")
# What has the width of a head and is none: it is used in training alone.
TRAINING = re.compile(r"loss|criterion|metric", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Head:
    """One linear layer of a file.

    Attributes:
        stem: its name there, without ``.weight``.
        weight: ``(classes, features)``, or of a 1 x 1 convolution ``(classes, features, 1, 1)``.
        bias: ``(classes,)``, if it has one.
        others: the names of all that is left out beside it.
    """

    stem: str
    weight: Tensor
    bias: Tensor | None
    others: tuple[str, ...]

    @property
    def classes(self) -> int:
        """How many it scores."""
        return len(self.weight)

    @property
    def features(self) -> int:
        """Of how many features."""
        return self.weight.shape[1]


def found(state: Mapping[str, Tensor], prefix: str, module: nn.Module) -> Head | None:
    """The one linear layer among what a model has no place for; None if there are several, or what belongs to it.

    Args:
        state: all that the file has.
        prefix: what stands there before the names that the model knows.
        module: the model.
    """
    rest = _rest(state, prefix, module)
    linear = [name for name, value in rest.items() if name.endswith("weight") and _is_linear(value)]
    linear = [name for name in linear if not TRAINING.search(name)]
    if len(linear) != 1:
        return None
    stem = linear[0].removesuffix("weight").removesuffix(".")
    weight, bias = rest.pop(linear[0]), rest.pop(f"{stem}.bias" if stem else "bias", None)
    widths = set(weight.shape[:2])
    # A norm beside it, or another layer, belongs to what it is given or to what comes of it.
    doubtful = [name for name, value in rest.items() if widths & set(value.shape) and not TRAINING.search(name)]
    if doubtful or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return Head(stem, weight, bias, tuple(rest))


def said(head: Head) -> tuple[str, ...]:
    """What is to be told of a head that was taken."""
    words = (
        f"the head is {head.stem!r} in the weights file, its one linear layer that fits: {head.features} features to "
        f"{head.classes} classes",
    )
    return (*words, f"not taken from the weights file: {', '.join(head.others[:8])}") if head.others else words


def place(module: nn.Module, lacking: Iterable[str]) -> str | None:
    """Where a model's head is, if weights for it are all that it lacks: its last linear layer. Else None."""
    stems = {name.rpartition(".")[0] for name in lacking}
    if len(stems) != 1:
        return None
    [stem] = stems
    part = module.get_submodule(stem)
    linear = [one for one in module.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    classifier: Any = getattr(module, "get_classifier", lambda: linear[-1] if linear else None)()
    if part is not classifier:
        return None
    return stem if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)) else None


def put(module: nn.Module, place: str, head: Head) -> bool:
    """Put a head into a model's own; whether it fits. A bias that it lacks is zero."""
    own: Any = module.get_submodule(place)
    if own.weight.shape[:2] != head.weight.shape[:2] or (own.bias is None and head.bias is not None):
        return False
    with torch.no_grad():
        own.weight.copy_(head.weight.reshape(own.weight.shape))
        if own.bias is not None:
            own.bias.copy_(head.bias) if head.bias is not None else own.bias.zero_()
    return True


def program(state: Mapping[str, Tensor], prefix: str, place: str, path: str, name: str, module: nn.Module) -> str:
    """The Python by which this file's body and head make up the model: what a user puts into a file and names.

    Args:
        state: all that the file has.
        prefix: what stands there before the names of the body.
        place: where the model's head is.
        path: the file.
        name: what the model is called.
        module: the model.
    """
    rest = _rest(state, prefix, module) | {
        one: value for one, value in state.items() if one.startswith(f"{prefix}{place}.")
    }
    body = (
        f"{{n.removeprefix({prefix!r}): v for n, v in state.items() if n.startswith({prefix!r})}}",
        f"{{n: v for n, v in body.items() if n in net.state_dict() and not n.startswith('{place}.')}}",
    )
    return _program(rest, body, place, path, name)


def in_order(state: Mapping[str, Tensor], path: str, name: str, module: nn.Module) -> str:
    """Likewise, where the names of the body are others but its tensors are the model's, in order and by shape.

    So they are where a body was put together of a model's children. Empty if they are not.
    """
    linear = [one for one, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    place = linear[-1] if linear else ""
    own = [(one, value) for one, value in module.state_dict().items() if not one.startswith(f"{place}.")]
    there = list(state.items())
    ends = [(one.rpartition(".")[2], getattr(value, "shape", None)) for one, value in own]
    if not own or ends != [(one.rpartition(".")[2], value.shape) for one, value in there[: len(own)]]:
        return ""
    body = (f"zip([n for n in net.state_dict() if not n.startswith('{place}.')], state.values())", "dict(body)")
    return _program(dict(there[len(own) :]), body, place, path, name)


def _program(rest: Mapping[str, Tensor], body: tuple[str, str], place: str, path: str, name: str) -> str:
    rest = {one: value for one, value in rest.items() if not TRAINING.search(one)}
    if not rest:
        return "the file has no head: give one that has, or put what makes scores on it in a function of yours"
    root = _root(rest)
    inside = {one.removeprefix(root): value for one, value in rest.items()}
    shapes = ", ".join(f"{one} {tuple(value.shape)}" for one, value in inside.items())
    weights = ", weights='random'" if name.partition(":")[0] in LIBRARIES else ""
    which = f"n.startswith({root!r})" if root else f"n in {[*rest]}"
    return "\n".join(
        (
            f"its head is another one ({shapes}): build that as your training code does, and name the function",
            "that does it, -m my_model.py:make, without --weights:",
            "  import camcli",
            "  from collections import OrderedDict",
            "  from torch import nn",
            "  from camcli.models.weights.checkpoint import read",
            "  def make():",
            f"      network = camcli.load({name!r}{weights})",
            f"      net, state = network.module, read({path!r}).state",
            f"      body = {body[0]}",
            f"      body = {body[1]}",
            f"      head = {{{place!r} + '.' + n.removeprefix({root!r}): v for n, v in state.items() if {which}}}",
            f"      net.set_submodule({place!r}, nn.Sequential(OrderedDict({_layers(inside)})))  # and what is between",
            "      net.load_state_dict({**body, **head})",
            "      return net.eval(), network.prepare",
        )
    )


def _rest(state: Mapping[str, Tensor], prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """What a file has that a model has no place for, of any shape; numbers alone, such as counters, aside."""
    own = module.state_dict()

    def fits(name: str, value: Tensor) -> bool:
        there = own.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        return isinstance(there, Tensor) and there.shape == value.shape

    return {name: value for name, value in state.items() if value.ndim and not fits(name, value)}


def _is_linear(value: Tensor) -> bool:
    return value.ndim == 2 or (value.ndim == 4 and value.shape[2:] == (1, 1))


def _root(names: Iterable[str]) -> str:
    """The dotted beginning that all names share, their own last parts aside."""
    parts = [name.split(".")[:-2] for name in names]
    shared = []
    for some in zip(*parts, strict=False):
        if len(set(some)) > 1:
            break
        shared.append(some[0])
    return "".join(f"{one}." for one in shared)


def _layers(inside: Mapping[str, Tensor]) -> str:
    """The layers of a head by their weights, in the order of the file, with what stands between them left to check."""
    stems = list(dict.fromkeys(name.rpartition(".")[0] for name in inside))
    layers: list[tuple[str, str]] = []
    for stem in stems:
        if stem.isdigit():
            for gap in range(len(layers), int(stem)):
                after = bool(layers) and layers[-1][1].startswith(("nn.Linear", "nn.BatchNorm", "nn.LayerNorm"))
                layers.append((str(gap), "nn.ReLU()" if after else "nn.Identity()"))
        elif layers:
            layers.append((f"between{len(layers)}", "nn.ReLU()"))
        layers.append((stem or "0", _layer(stem, inside)))
    return f"[{', '.join(f'({name!r}, {layer})' for name, layer in layers)}]"


def _layer(stem: str, inside: Mapping[str, Tensor]) -> str:
    dot = f"{stem}." if stem else ""
    weight, bias = inside.get(f"{dot}weight"), f"{dot}bias" in inside
    if weight is not None and weight.ndim == 2:
        return f"nn.Linear({weight.shape[1]}, {weight.shape[0]}{'' if bias else ', bias=False'})"
    if weight is not None and weight.ndim == 1:
        return f"nn.{'BatchNorm1d' if f'{dot}running_mean' in inside else 'LayerNorm'}({len(weight)})"
    return "..."
