"""A convolution and the batch norm behind it as one convolution: the same numbers to rounding, and less to compute."""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from camcli.engine.hooks.tensors import tensors

_BATCH_NORM = inspect.signature(F.batch_norm)


@dataclass(frozen=True, slots=True)
class Pair:
    """A convolution whose output one batch norm is given, and nothing else.

    Attributes:
        convolution: the full name of its module.
        norm: likewise of the batch norm's. What that does behind its norm, its children do, one after the other.
    """

    convolution: str
    norm: str

    def touches(self, layer: str) -> bool:
        """Whether folding it could change what a layer says beyond rounding: one of the two is it, or in it.

        Of a tensor that a module gives, as ``backbone:p3``: it may lie between the two, if one is in the module.
        """
        module, colon, _ = layer.partition(":")
        if colon:
            return self.convolution.startswith(f"{module}.") != self.norm.startswith(f"{module}.")
        return any(name == layer or name.startswith(f"{layer}.") for name in (self.convolution, self.norm)) or (
            layer.startswith(f"{self.norm}.")
        )


def pairs(model: nn.Module, run: Callable[[], object]) -> list[Pair]:
    """The pairs of a network, seen where they are computed, so that nobody's code needs to be known.

    Args:
        model: in evaluation mode.
        run: one forward of it.
    """
    with torch.no_grad(), _Watch() as watch:
        run()
    # Weights that are made anew in each forward, as where they are standardised, are no module's.
    convolutions = {id(one.weight): name for name, one in model.named_modules() if isinstance(one, nn.Conv2d)}
    norms = {id(one.running_var): name for name, one in model.named_modules() if isinstance(one, nn.BatchNorm2d)}
    return [
        Pair(convolutions[id(weight)], norms[id(variance)])
        for weight, variance in watch.alone()
        if id(weight) in convolutions and id(variance) in norms
    ]


def fold(model: nn.Module, found: Sequence[Pair]) -> Callable[[], None]:
    """Make one convolution of each pair.

    Returns:
        What makes the model again what it was.
    """
    before: list[tuple[Any, Any, Any, str, nn.Module]] = []
    for pair in found:
        convolution: Any = model.get_submodule(pair.convolution)
        norm: Any = model.get_submodule(pair.norm)
        home, _, name = pair.norm.rpartition(".")
        parent = model.get_submodule(home)
        before.append((convolution, (convolution.weight, convolution.bias), parent, name, norm))
        convolution.weight, convolution.bias = folded(convolution, norm)
        behind = OrderedDict(norm.named_children())
        setattr(parent, name, nn.Sequential(behind) if behind else nn.Identity())

    def unfold() -> None:
        for convolution, own, parent, name, norm in before:
            convolution.weight, convolution.bias = own
            setattr(parent, name, norm)

    return unfold


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """W' = W gamma / sqrt(var + eps), and b' = beta + (b - mean) gamma / sqrt(var + eps), as parameters."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = bias * scale if norm.bias is None else norm.bias + bias * scale
    weight = convolution.weight * scale.reshape(-1, 1, 1, 1)
    return nn.Parameter(weight.detach(), requires_grad=False), nn.Parameter(bias.detach(), requires_grad=False)


class _Watch(TorchFunctionMode):
    """While it is entered, sees which batch norm is given what which convolution gave, and what else is given it."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: list[tuple[Tensor, Tensor]] = []  # a convolution's weight, a batch norm's running variance
        self._of: WeakIdKeyDictionary = WeakIdKeyDictionary()  # by what a convolution gave, its weight
        self._uses: Counter[int] = Counter()  # of a weight in convolutions, or of what they gave in anything

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call as it is, and note what it was given."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # Nothing is done with a tensor by asking for its shape.
        if next(tensors([result]), None) is not None:
            self._uses.update(id(self._of[one]) for one in tensors([*args, *kwargs.values()]) if one in self._of)
        if func is F.conv2d:
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            self._of[result] = weight
            self._uses[id(weight)] += 1
        elif func is F.batch_norm:
            given = _BATCH_NORM.bind(*args, **kwargs).arguments
            self._uses[id(given["running_var"])] += 1
            if given["input"] in self._of and not given.get("training", False):
                self._pairs.append((self._of[given["input"]], given["running_var"]))
        return result

    def alone(self) -> list[tuple[Tensor, Tensor]]:
        """The pairs whose convolution ran once and gave what it gave to the norm alone, which ran once too."""
        return [
            (weight, variance)
            for weight, variance in self._pairs
            if self._uses[id(weight)] == 2 and self._uses[id(variance)] == 1
        ]
