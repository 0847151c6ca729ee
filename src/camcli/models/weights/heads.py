"""Heads in weights files whose name or structure differs from the model's own head."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Sources whose models can be built without their weights.
LIBRARY_SOURCES = ("bundled", "timm", "torchvision", "open_clip")
# Layers as wide as a head that are none, since they are used in training only.
TRAINING_ONLY = re.compile(r"loss|criterion|metric", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Linear layer in a weights file that serves as the head.

    Attributes:
        name: its name in the file, without ``.weight``.
        weight: ``(classes, features)``, or for a 1 x 1 convolution ``(classes, features, 1, 1)``.
        bias: ``(classes,)``; None without one.
        unused_names: names of the file's other tensors that are not used.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    unused_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes that it scores."""
        return len(self.weight)

    @property
    def num_features(self) -> int:
        """The number of input features."""
        return self.weight.shape[1]


def find_head(state: Mapping[str, Tensor], prefix: str, module: nn.Module) -> LinearHead | None:
    """Find the only linear layer among the tensors that a model does not have.

    Args:
        state: all tensors of the file.
        prefix: the prefix in the file of the names that the model has.
        module: the model.

    Returns:
        The layer; None if there are several, or other tensors that may belong to it.
    """
    rest = _find_unmatched(state, prefix, module)
    linear = [name for name, value in rest.items() if name.endswith("weight") and _is_linear(value)]
    linear = [name for name in linear if not TRAINING_ONLY.search(name)]
    if len(linear) != 1:
        return None
    stem = linear[0].removesuffix("weight").removesuffix(".")
    weight, bias = rest.pop(linear[0]), rest.pop(f"{stem}.bias" if stem else "bias", None)
    widths = set(weight.shape[:2])
    # A norm or another layer of its width may process its input or its output.
    doubtful = [name for name, value in rest.items() if widths & set(value.shape) and not TRAINING_ONLY.search(name)]
    if doubtful or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return LinearHead(stem, weight, bias, tuple(rest))


def describe_head(head: LinearHead) -> tuple[str, ...]:
    """Describe a head taken from the file, as notes for the user."""
    notes = (
        f"the head is {head.name!r} in the weights file, its only linear layer that fits: {head.num_features} "
        f"features to {head.num_classes} classes",
    )
    return (
        (*notes, f"not loaded from the weights file: {', '.join(head.unused_names[:8])}")
        if head.unused_names
        else notes
    )


def locate_head(module: nn.Module, missing: Iterable[str]) -> str | None:
    """Return the name of a model's head, its last linear layer, if only weights of the head are missing; else None."""
    stems = {name.rpartition(".")[0] for name in missing}
    if len(stems) != 1:
        return None
    [stem] = stems
    part = module.get_submodule(stem)
    linear = [one for one in module.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    classifier: Any = getattr(module, "get_classifier", lambda: linear[-1] if linear else None)()
    if part is not classifier:
        return None
    return stem if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)) else None


def copy_head(module: nn.Module, head_name: str, head: LinearHead) -> bool:
    """Copy a head into a model's own, a missing bias as zero; return False if it does not fit."""
    layer: Any = module.get_submodule(head_name)
    if layer.weight.shape[:2] != head.weight.shape[:2] or (layer.bias is None and head.bias is not None):
        return False
    with torch.no_grad():
        layer.weight.copy_(head.weight.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(head.bias) if head.bias is not None else layer.bias.zero_()
    return True


def write_head_script(
    state: Mapping[str, Tensor], prefix: str, head_name: str, path: str, name: str, module: nn.Module
) -> str:
    """Write Python code that builds the model from this file's body and head, for a file of the user's own.

    Args:
        state: all tensors of the file.
        prefix: the prefix in the file of the body's names.
        head_name: the name of the model's head.
        path: the weights file.
        name: the model's name for :func:`camcli.load`.
        module: the model.
    """
    rest = _find_unmatched(state, prefix, module) | {
        one: value for one, value in state.items() if one.startswith(f"{prefix}{head_name}.")
    }
    body = (
        f"{{n.removeprefix({prefix!r}): v for n, v in state.items() if n.startswith({prefix!r})}}",
        f"{{n: v for n, v in body.items() if n in net.state_dict() and not n.startswith('{head_name}.')}}",
    )
    return _write_script(rest, body, head_name, path, name)


def write_script_by_order(state: Mapping[str, Tensor], path: str, name: str, module: nn.Module) -> str:
    """Write such code as :func:`write_head_script` for a body with other names but the model's order and shapes.

    A body made of a model's children has such names. Return an empty text if order or shapes differ.
    """
    linear = [one for one, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    place = linear[-1] if linear else ""
    model_body = [(one, value) for one, value in module.state_dict().items() if not one.startswith(f"{place}.")]
    there = list(state.items())
    ends = [(one.rpartition(".")[2], getattr(value, "shape", None)) for one, value in model_body]
    if not model_body or ends != [(one.rpartition(".")[2], value.shape) for one, value in there[: len(model_body)]]:
        return ""
    body = (f"zip([n for n in net.state_dict() if not n.startswith('{place}.')], state.values())", "dict(body)")
    return _write_script(dict(there[len(model_body) :]), body, place, path, name)


def _write_script(rest: Mapping[str, Tensor], body: tuple[str, str], head_name: str, path: str, name: str) -> str:
    rest = {one: value for one, value in rest.items() if not TRAINING_ONLY.search(one)}
    if not rest:
        return "the file has no head: give a file with one, or add a head in a function of yours"
    root = _shared_prefix(rest)
    inside = {one.removeprefix(root): value for one, value in rest.items()}
    shapes = ", ".join(f"{one} {tuple(value.shape)}" for one, value in inside.items())
    weights = ", weights='random'" if name.partition(":")[0] in LIBRARY_SOURCES else ""
    which = f"n.startswith({root!r})" if root else f"n in {[*rest]}"
    return "\n".join(
        (
            f"its head differs ({shapes}): build it as in your training code, and name the function",
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
            f"      head = {{{head_name!r} + '.' + n.removeprefix({root!r}): v for n, v in state.items() if {which}}}",
            f"      net.set_submodule({head_name!r}, nn.Sequential(OrderedDict({_write_layers(inside)})))"
            "  # and what is between",
            "      net.load_state_dict({**body, **head})",
            "      return net.eval(), network.preprocess",
        )
    )


def _find_unmatched(state: Mapping[str, Tensor], prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Return the file's tensors that do not match one of the model's by name and shape, except scalars (counters)."""
    model_state = module.state_dict()

    def fits(name: str, value: Tensor) -> bool:
        there = model_state.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        return isinstance(there, Tensor) and there.shape == value.shape

    return {name: value for name, value in state.items() if value.ndim and not fits(name, value)}


def _is_linear(value: Tensor) -> bool:
    return value.ndim == 2 or (value.ndim == 4 and value.shape[2:] == (1, 1))


def _shared_prefix(names: Iterable[str]) -> str:
    """Return the dotted prefix that all names share, without the last two parts of each."""
    parts = [name.split(".")[:-2] for name in names]
    shared = []
    for some in zip(*parts, strict=False):
        if len(set(some)) > 1:
            break
        shared.append(some[0])
    return "".join(f"{one}." for one in shared)


def _write_layers(inside: Mapping[str, Tensor]) -> str:
    """Write a head's layers in the file's order, guessed from their weights, with guesses for those in between."""
    stems = list(dict.fromkeys(name.rpartition(".")[0] for name in inside))
    layers: list[tuple[str, str]] = []
    for stem in stems:
        if stem.isdigit():
            for gap in range(len(layers), int(stem)):
                after = bool(layers) and layers[-1][1].startswith(("nn.Linear", "nn.BatchNorm", "nn.LayerNorm"))
                layers.append((str(gap), "nn.ReLU()" if after else "nn.Identity()"))
        elif layers:
            layers.append((f"between{len(layers)}", "nn.ReLU()"))
        layers.append((stem or "0", _write_layer(stem, inside)))
    return f"[{', '.join(f'({name!r}, {layer})' for name, layer in layers)}]"


def _write_layer(stem: str, inside: Mapping[str, Tensor]) -> str:
    dot = f"{stem}." if stem else ""
    weight, bias = inside.get(f"{dot}weight"), f"{dot}bias" in inside
    if weight is not None and weight.ndim == 2:
        return f"nn.Linear({weight.shape[1]}, {weight.shape[0]}{'' if bias else ', bias=False'})"
    if weight is not None and weight.ndim == 1:
        return f"nn.{'BatchNorm1d' if f'{dot}running_mean' in inside else 'LayerNorm'}({len(weight)})"
    return "..."
