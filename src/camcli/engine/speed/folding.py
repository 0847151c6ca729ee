"""Folding of batch norms into the convolutions before them: the same output up to rounding, with less to compute."""

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

from camcli.engine.hooks.tensors import iter_tensors

_BATCH_NORM = inspect.signature(F.batch_norm)


@dataclass(frozen=True, slots=True)
class ConvNormPair:
    """A convolution whose output only one batch norm uses.

    Attributes:
        convolution: the full name of the convolution.
        norm: the full name of the batch norm; its children, if any, are applied to its output in order.
    """

    convolution: str
    norm: str

    def touches(self, layer: str) -> bool:
        """Return whether folding may change a layer's output beyond rounding: it is one of the two, or between them.

        A layer that holds both, such as all blocks of a network, keeps its output.
        """
        module, colon, _ = layer.partition(":")
        holds = [name.startswith(f"{module}.") for name in (self.convolution, self.norm)]
        if colon:  # a tensor of a module, as ``backbone:p3``
            return holds[0] != holds[1]
        return layer in (self.convolution, self.norm) or layer.startswith(f"{self.norm}.") or holds[0] != holds[1]


def find_conv_bn_pairs(model: nn.Module, run: Callable[[], object]) -> list[ConvNormPair]:
    """Find the pairs of a network by watching one forward, whatever its code.

    Args:
        model: the network, in evaluation mode.
        run: runs one forward of it.
    """
    with torch.no_grad(), _ConvNormCapture() as watch:
        run()
    # Weights computed in each forward, as in weight standardisation, belong to no module.
    convolutions = {id(one.weight): name for name, one in model.named_modules() if isinstance(one, nn.Conv2d)}
    norms = {id(one.running_var): name for name, one in model.named_modules() if isinstance(one, nn.BatchNorm2d)}
    return [
        ConvNormPair(convolutions[id(weight)], norms[id(variance)])
        for weight, variance in watch.find_exclusive_pairs()
        if id(weight) in convolutions and id(variance) in norms
    ]


def fold_batch_norms(model: nn.Module, pairs: Sequence[ConvNormPair]) -> Callable[[], None]:
    """Fold the batch norm of each pair into its convolution.

    Returns:
        A function that restores the model.
    """
    before: list[tuple[Any, Any, Any, str, nn.Module]] = []
    for pair in pairs:
        convolution: Any = model.get_submodule(pair.convolution)
        norm: Any = model.get_submodule(pair.norm)
        home, _, name = pair.norm.rpartition(".")
        parent = model.get_submodule(home)
        before.append((convolution, (convolution.weight, convolution.bias), parent, name, norm))
        convolution.weight, convolution.bias = fuse(convolution, norm)
        behind = OrderedDict(norm.named_children())
        setattr(parent, name, (nn.Sequential(behind) if behind else nn.Identity()).eval())

    def unfold() -> None:
        for convolution, own, parent, name, norm in before:
            convolution.weight, convolution.bias = own
            setattr(parent, name, norm)

    return unfold


def fuse(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """Compute W' = W gamma / sqrt(var + eps), and b' = beta + (b - mean) gamma / sqrt(var + eps), as parameters."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    bias = bias * scale if norm.bias is None else norm.bias + bias * scale
    weight = convolution.weight * scale.reshape(-1, 1, 1, 1)
    return nn.Parameter(weight.detach(), requires_grad=False), nn.Parameter(bias.detach(), requires_grad=False)


class _ConvNormCapture(TorchFunctionMode):
    """Mode that captures which batch norm uses which convolution's output, and counts all uses of that output."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: list[tuple[Tensor, Tensor]] = []  # a convolution's weight, a batch norm's running variance
        self._weight_of: WeakIdKeyDictionary = WeakIdKeyDictionary()  # a convolution's weight by its output
        self._uses: Counter[int] = Counter()  # by weight: uses in convolutions, and of their outputs in anything

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call unchanged, and note its inputs."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # Reading a tensor's shape is no use of it.
        if next(iter_tensors([result]), None) is not None:
            self._uses.update(
                id(self._weight_of[one]) for one in iter_tensors([*args, *kwargs.values()]) if one in self._weight_of
            )
        if func is F.conv2d:
            weight = kwargs["weight"] if "weight" in kwargs else args[1]
            self._weight_of[result] = weight
            self._uses[id(weight)] += 1
        elif func is F.batch_norm:
            given = _BATCH_NORM.bind(*args, **kwargs).arguments
            self._uses[id(given["running_var"])] += 1
            if given["input"] in self._weight_of and not given.get("training", False):
                self._pairs.append((self._weight_of[given["input"]], given["running_var"]))
        return result

    def find_exclusive_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs whose convolution ran once, with its output used by the norm only, which ran once too."""
        return [
            (weight, variance)
            for weight, variance in self._pairs
            if self._uses[id(weight)] == 2 and self._uses[id(variance)] == 1
        ]
