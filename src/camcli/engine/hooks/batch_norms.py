"""Gradients of batch norms, which PyTorch gets wrong for a single image whose gradient comes from tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from camcli.engine.hooks.state import list_parts


@contextmanager
def sound_batch_norms(model: nn.Module) -> Iterator[None]:
    """Let batch norms have right gradients while the block runs.

    The gradient of a single image that comes from tokens ``(1, h*w, c)`` keeps their stride along the batch, which has
    no meaning there. PyTorch (2.14, on a CPU) then takes it for another memory layout, and what its batch norm in
    evaluation mode makes of it is wrong.
    """
    handles = [part.register_forward_hook(_mend) for part in list_parts(model) if isinstance(part, _BatchNorm)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mend(_module: nn.Module, _given: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.requires_grad and len(output) == 1:
        output.register_hook(_restate_batch_stride)  # type: ignore[no-untyped-call]


def _restate_batch_stride(grad: Tensor) -> Tensor:
    """Return a gradient, which is not copied, with the stride along its one image that all its values take."""
    return grad.as_strided(grad.shape, (grad.numel(), *grad.stride()[1:]), grad.storage_offset())
