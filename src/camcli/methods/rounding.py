"""Precision of products of float32 numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Machine epsilon of the formats that float32 factors may be rounded to.
EPS_BY_PRECISION = {"tf32": 2.0**-10, "bf16": 2.0**-7}


def unit_roundoff(like: Tensor) -> float:
    """Return the machine epsilon of computations with such tensors under the current settings; 0 for integers."""
    if not like.is_floating_point():
        return 0.0
    eps = torch.finfo(like.dtype).eps
    return max(eps, reduced_precision_eps(like.device)) if like.dtype == torch.float32 else eps


def reduced_precision_eps(device: torch.device) -> float:
    """Return the epsilon that float32 factors may currently be rounded to on a device; 0 if they are not."""
    return max((EPS_BY_PRECISION.get(one.fp32_precision, 0.0) for one in _list_backends(device.type)), default=0.0)


def _list_backends(kind: str) -> list[Any]:
    """List the backends with a precision setting on a kind of device: convolutions and matrix products."""
    backends: Any = torch.backends
    if kind == "cuda":
        return [backends.cudnn.conv, backends.cuda.matmul]
    return [backends.mkldnn.conv, backends.mkldnn.matmul] if kind == "cpu" else []
