"""Tests with NaN: dependence of the score on a layer, and the first layer with NaN in its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.tensors import first_tensor, replace_tensor, tensor_at
from camcli.engine.hooks.watch import watch_outputs
from camcli.engine.layers.layout import to_nchw
from camcli.engine.layers.probe import LayerInfo
from camcli.targets.readers.spec import DEFAULT_OUTPUT_SPEC
from camcli.targets.readers.torchvision_boxes import unfiltered
from camcli.targets.target import Predictions


def score_depends_on(
    module: nn.Module,
    layer: LayerInfo,
    image: Float[Tensor, "n d h w"],
    read: Callable[[Any, int], Predictions] = DEFAULT_OUTPUT_SPEC.read,
) -> bool:
    """Return whether the score depends on a layer's cells, whatever the gradient: NaN in them makes it NaN.

    Where the network fails on NaN, the score counts as dependent. Other libraries may turn NaN into numbers, as 8 bits
    do: of a network without parameters, which they compute, a score that differs counts too.
    """

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = tensor_at(output, layer.tensor_index)
        assert tensor is not None
        spoilt = tensor.clone()
        (to_nchw(spoilt, layer.layout) if layer.layout and layer.layout.order != "ncthw" else spoilt).fill_(torch.nan)
        return replace_tensor(output, tensor, spoilt)

    def run() -> Tensor:
        with torch.inference_mode(False), torch.no_grad(), frozen(module), unfiltered(module):
            return read(module(image.detach().clone()), len(image)).sum_scores()

    is_foreign = not any(True for _ in module.parameters())
    plain = run() if is_foreign else None
    handle = module.get_submodule(layer.name).register_forward_hook(hook)
    try:
        spoilt = run()
        return bool(spoilt.isnan()) or (plain is not None and not torch.equal(plain, spoilt))
    except Exception:  # any error comes from the NaN
        return True
    finally:
        handle.remove()


def find_first_non_finite(module: nn.Module, image: Float[Tensor, "1 d h w"]) -> str:
    """Describe the first module whose output contains NaN or infinite values, for a message; empty if none does."""
    found: list[str] = []
    kinds = dict(module.named_modules())

    def hook(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        if not found and tensor is not None and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            found.append(f"{name!r} ({type(kinds[name]).__name__})" if name else "the model itself")

    with torch.no_grad(), frozen(module), watch_outputs(module, hook):
        module(image)
    return found[0] if found else ""
