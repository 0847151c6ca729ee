"""Products of linear layers: counted, or computed by oneDNN; no module is changed."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# What a product must have to be worth handing over, since oneDNN rearranges the weight each time. A weight that lies
# transposed in memory, as in a backward, is copied first.
MIN_ROWS, MIN_FLOPS, MIN_ROWS_TRANSPOSED = 64, 2e8, 512


class Product(NamedTuple):
    """Shape of a linear layer's product, from ``(rows, width)`` to ``(rows, outputs)``.

    Attributes:
        rows: number of rows of the input.
        width: number of its columns.
        outputs: number of columns of the output.
    """

    rows: int
    width: int
    outputs: int

    @property
    def flops(self) -> float:
        """Floating-point operations: a multiplication and an addition for each row, column and output."""
        return 2.0 * self.rows * self.width * self.outputs

    @property
    def is_large(self) -> bool:
        """True if it can be worth handing over."""
        return self.rows >= MIN_ROWS and self.flops >= MIN_FLOPS


class _DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise PyTorch imports its compiler, which takes a second, only to exclude a method from it.
        return False


class ProductCounter(_DispatchMode):  # type: ignore[no-untyped-call]
    """Mode that counts the float32 products on the CPU while a network runs forward and backward.

    Attributes:
        counts: how often there was each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation unchanged, and count it if it is a product."""
        if (found := _parse(func, args, kwargs)) and (product := _measure(*found[:2])):
            self.counts[product] += 1
        return func(*args, **(kwargs or {}))


class OneDNNProducts(_DispatchMode):  # type: ignore[no-untyped-call]
    """Mode in which oneDNN computes the large float32 products on the CPU, which PyTorch leaves to another library.

    It works below autograd, which records the same operations as without it: gradients of any order pass, and their
    products are computed in the same way.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, by oneDNN if it is a large product."""
        if (found := _parse(func, args, kwargs)) and _is_worth_it(*found[:2]):
            return multiply(*found)
        if func is torch.ops.aten._native_multi_head_attention.default and _is_self_attention(args, kwargs):
            return self._attend(*args[:9])
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        x: Tensor,
        _key: Tensor,
        _value: Tensor,
        _width: int,
        heads: int,
        weight: Tensor,
        bias: Tensor,
        last_weight: Tensor,
        last_bias: Tensor,
    ) -> tuple[Tensor, None]:
        """Compute what PyTorch has one operation for, since the products inside that are not seen."""
        with self:
            images, tokens, _ = x.shape
            query, key, value = F.linear(x, weight, bias).view(images, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(query, key, value)
            return F.linear(mixed.transpose(1, 2).flatten(2), last_weight, last_bias), None


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x weight^T + bias`` by oneDNN, in float32 on the CPU.

    Raises:
        RuntimeError, AttributeError: this PyTorch cannot.
    """
    # A weight that lies transposed takes up to twice as long as a copy of it.
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight.contiguous(), bias, "none", [], "")
    return found


def _parse(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return the input, weight and bias of an operation that is a linear layer's product; None for others."""
    aten = torch.ops.aten
    if kwargs:  # a scale of the product or the bias
        return None
    if func is aten.addmm.default and args[0].ndim == 1:
        return args[1], args[2].t(), args[0]
    if func is aten.mm.default:
        return args[0], args[1].t(), None
    if func is aten.bmm.default and args[1].layout == torch.strided and args[1].stride(0) == 0 and len(args[1]):
        return args[0], args[1][0].t(), None  # one weight for the whole batch
    if func is aten.linear.default:  # only in inference mode
        return args[0], args[1], args[2] if len(args) > 2 else None
    return None


def _measure(x: Tensor, weight: Tensor) -> Product | None:
    """Return the shape of a product; None if it is not one of float32 matrices on the CPU."""
    for one in (x, weight):
        if one.dtype != torch.float32 or one.device.type != "cpu" or one.layout != torch.strided:
            return None
    if weight.ndim != 2 or not weight.numel():
        return None
    outputs, width = weight.shape
    return Product(x.numel() // width, width, outputs)


def _is_worth_it(x: Tensor, weight: Tensor) -> bool:
    """Return whether a product is handed over."""
    product = _measure(x, weight)
    least_rows = 0 if weight.is_contiguous() else MIN_ROWS_TRANSPOSED
    return product is not None and product.is_large and product.rows >= least_rows


def _is_self_attention(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    """Return whether a call of PyTorch's fused attention is plain: of a tensor with itself, without mask or weights."""
    plain = not kwargs and len(args) > 10 and args[9] is None and args[10] is False
    return plain and args[0] is args[1] is args[2] and _measure(args[0], args[5]) is not None
