"""Convolutions with TensorFlow's "same" padding on a CPU, without a padded copy of their input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camcli.engine.hooks.patch import replace_forward


def find_same_convolutions(model: nn.Module) -> list[nn.Module]:
    """Find timm's "same" convolutions of a network that nothing has been put in the place of."""
    # Who uses this class has imported timm.
    same = getattr(sys.modules.get("timm.layers"), "Conv2dSame", None)
    return [module for module in model.modules() if type(module) is same and "forward" not in vars(module)]


def pad_inside(convolutions: Iterable[nn.Module]) -> Callable[[], None]:
    """Let "same" convolutions pad their input themselves, with the same output up to rounding.

    They copy the input with zeros around it, which takes longer than the convolution: the zeros are more often on the
    right and at the bottom, where no convolution of PyTorch puts them alone.

    Returns:
        A function that restores them.
    """
    undo = ExitStack()
    for module in convolutions:
        undo.callback(replace_forward(module, _SameConvolution(module)))
    return undo.close


class _SameConvolution:
    """The forward of a "same" convolution; it reads the weights each time, since they may change."""

    def __init__(self, convolution: Any) -> None:
        self._convolution, self._plain = convolution, convolution.forward

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve; on a GPU, where kernels of usual sizes are fast, as the class itself does."""
        one = self._convolution
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return self._call_plain(x)
        padding, more = list[int](), list[int]()
        for size, kernel, stride, dilation in zip(x.shape[-2:], one.kernel_size, one.stride, one.dilation, strict=True):
            total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            # Before and behind; where they differ both get the greater one, and the kernel is moved back by a zero.
            padding.append(total - total // 2)
            more.append(total % 2)
            if total % 2 and dilation > 1:
                return self._call_plain(x)
        weight = F.pad(one.weight, (more[1], 0, more[0], 0)) if any(more) else one.weight
        return F.conv2d(x, weight, one.bias, one.stride, padding, one.dilation, one.groups)

    def _call_plain(self, x: Tensor) -> Tensor:
        found: Tensor = self._plain(x)
        return found
