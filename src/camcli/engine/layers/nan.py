"""What NaN tells: whether the score depends on a layer, and where a network begins to give it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import first_tensor, replaced, tensor_at
from camcli.engine.hooks.watch import listened
from camcli.engine.layers.layout import canonical
from camcli.engine.layers.probe import Layer
from camcli.targets.readers.detection import unfiltered
from camcli.targets.readers.spec import PLAIN
from camcli.targets.target import Reading


def depends(
    module: nn.Module, layer: Layer, image: Float[Tensor, "n d h w"], read: Callable[[Any, int], Reading] = PLAIN.read
) -> bool:
    """Whether the score depends on the cells of what a layer hands on, whatever its gradient is: NaN goes all the way.

    Where the network fails on that, nobody can tell, and it counts as so.
    """

    def hear(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = tensor_at(output, layer.part)
        assert tensor is not None
        spoilt = tensor.clone()
        (canonical(spoilt, layer.layout) if layer.layout and layer.layout.order != "ncthw" else spoilt).fill_(torch.nan)
        return replaced(output, tensor, spoilt)

    handle = module.get_submodule(layer.name).register_forward_hook(hear)
    try:
        with torch.inference_mode(False), torch.no_grad(), frozen(module), unfiltered(module):
            return bool(read(module(image.detach().clone()), len(image)).total().isnan())
    except Exception:  # whatever it is, it comes of the NaN
        return True
    finally:
        handle.remove()


def first_not_finite(module: nn.Module, image: Float[Tensor, "1 d h w"]) -> str:
    """The first module whose output holds NaN or infinite values, as words for a message; empty if none does."""
    found: list[str] = []
    kinds = dict(module.named_modules())

    def hear(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        if not found and tensor is not None and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            found.append(f"{name!r} ({type(kinds[name]).__name__})" if name else "the model itself")

    with torch.no_grad(), frozen(module), listened(module, hear):
        module(image)
    return found[0] if found else ""
