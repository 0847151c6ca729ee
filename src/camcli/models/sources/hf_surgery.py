"""Changes of transformers' models: other input sizes, removal of the classifier or the pooling."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any

import torch
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.input_size import ResizingForward
from camcli.engine.hooks.patch import replace_forward
from camcli.models import PoolOption
from camcli.models.adapters import headless

POOL_HINT = f"leave --pool none out; {headless.LAYER_HINT}"
# The argument of transformers that lets positions be interpolated.
INTERPOLATE = "interpolate_pos_encoding"
POSITIONS_NOTE = f"position embeddings are interpolated to each input's size by transformers ({INTERPOLATE})"


class InterpolatingForward(ResizingForward):
    """A module's forward that lets transformers interpolate position embeddings for inputs of another size."""

    def __init__(self, native_size: tuple[int, int]) -> None:
        super().__init__(native_size, lambda module, size: None, POSITIONS_NOTE)

    def __call__(self, module: Any, *given: Any, **named: Any) -> Any:
        """Run the forward of the module's class, with interpolation where the size is not the native one."""
        images = given[0] if given else named["pixel_values"]
        if (images.shape[-2], images.shape[-1]) != self._native_size:
            self.changed = True
            named[INTERPOLATE] = True
        return type(module).forward(module, *given, **named)


class UnmaskedForward(InterpolatingForward):
    """A masked autoencoder's forward that keeps all patches, in their order."""

    def __call__(self, module: Any, *given: Any, **named: Any) -> Any:
        """Run the forward with the patches' places as the numbers by which they are sorted."""
        images = given[0] if given else named["pixel_values"]
        patch = module.config.patch_size
        count = images.shape[-2] // patch * (images.shape[-1] // patch)
        named["noise"] = torch.arange(count, device=images.device).expand(len(images), -1)
        return super().__call__(module, *given, **named)


def make_resizable(module: Any, native_size: tuple[int, int]) -> None:
    """Make a model interpolate its position embeddings to the size of its input, where transformers can do that.

    A masked autoencoder is made to see all patches.
    """
    if module.config.model_type == "vit_mae":
        module.config.mask_ratio = 0.0
        replace_forward(module, MethodType(UnmaskedForward(native_size), module))
        return
    given = inspect.signature(type(module).forward).parameters
    passes_on = any(one.kind is one.VAR_KEYWORD for one in given.values())
    below = list(module.children()) if passes_on else []
    if any(INTERPOLATE in inspect.signature(type(part).forward).parameters for part in [module, *below]):
        replace_forward(module, MethodType(InterpolatingForward(native_size), module))


def remove_head(module: Any, name: str, pool: PoolOption = "keep") -> nn.Module:
    """Replace a classifier's last layer by the identity, in place; for ``pool="none"`` return its backbone instead.

    Raises:
        RequestError: its head is not one linear layer, or it has no backbone of its own.
    """
    body = module.base_model_prefix
    if pool == "none":
        if module.base_model is module:
            raise RequestError(f"the pooling of {name} cannot be removed: it has no backbone of its own", POOL_HINT)
        backbone: nn.Module = module.base_model
        return backbone
    layers = [
        path
        for path, part in module.named_modules()
        if isinstance(part, nn.Linear) and part.out_features == module.config.num_labels and path.split(".")[0] != body
    ]
    if len(layers) != 1:
        found = ", ".join(layers) or "none"
        raise RequestError(
            f"the head of {name} is not one linear layer with {module.config.num_labels} outputs: there is {found}",
            headless.LAYER_HINT,
        )
    module.set_submodule(layers[0], nn.Identity())
    made: nn.Module = module
    return made
