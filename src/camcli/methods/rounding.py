"""How finely the products of float32 numbers are computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# What a product of float32 numbers is rounded to before, where that is allowed: its distance from 1 to the next number.
ROUNDED_TO = {"tf32": 2.0**-10, "bf16": 2.0**-7}


def rounding(like: Tensor) -> float:
    """The unit of rounding of what is computed with such tensors here and now; 0 of whole numbers."""
    if not like.is_floating_point():
        return 0.0
    eps = torch.finfo(like.dtype).eps
    return max(eps, coarse(like.device)) if like.dtype == torch.float32 else eps


def coarse(device: torch.device) -> float:
    """What float32 may be rounded to before products on a device, if that is allowed there now; else 0."""
    return max((ROUNDED_TO.get(one.fp32_precision, 0.0) for one in _of(device.type)), default=0.0)


def _of(kind: str) -> list[Any]:
    """What may be allowed to round on devices of a kind: convolutions and products of matrices."""
    backends: Any = torch.backends
    if kind == "cuda":
        return [backends.cudnn.conv, backends.cuda.matmul]
    return [backends.mkldnn.conv, backends.mkldnn.matmul] if kind == "cpu" else []
