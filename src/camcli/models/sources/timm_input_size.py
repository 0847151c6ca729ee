"""Support for other input sizes in timm models, with position embeddings interpolated by timm itself."""

import inspect
import math
import warnings
from typing import Any

import timm
import timm.data
import torch
from timm.layers import PatchEmbed
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.hooks.input_size import adapt_to_input_size
from camcli.models.adapters import resize
from camcli.models.sources.timm_config import count_channels, read_pretrained_config
from camcli.models.sources.timm_weights import convert_state

# Classes that interpolate positions in their forward, although their configuration says fixed size.
SELF_RESAMPLING = ("VisionTransformerSAM",)
POSITIONS_NOTE = "position embeddings are interpolated to each input's size by timm (set_input_size)"


def make_resizable(module: nn.Module, create_name: str = "", native_size: tuple[int, int] | None = None) -> None:
    """Make a timm model adapt to the size of its input, with position embeddings interpolated by timm.

    A model that timm declares to be of fixed size and cannot resize is refused other input sizes, unless its output is
    verified: CrossViT would silently scale any input to its own size, and MViTv2 look up wrong positions.

    Args:
        module: the model.
        create_name: its name for ``timm.create_model``.
        native_size: the size it was built for, if not that of its configuration.
    """
    native_size = native_size or read_native_size(module)
    if hasattr(module, "set_input_size"):
        adapt_to_input_size(module, native_size, _set_input_size, POSITIONS_NOTE)
    elif _is_fixed_size(module):
        adapt_to_input_size(module, native_size, _SizeCheck(native_size, create_name), "")


def _is_fixed_size(module: nn.Module) -> bool:
    return bool(read_pretrained_config(module).get("fixed_input_size")) and type(module).__name__ not in SELF_RESAMPLING


def read_native_size(module: nn.Module) -> tuple[int, int]:
    """Read the height and width of the input that a model is made for."""
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    height, width = size if isinstance(size, tuple) else timm.data.resolve_model_data_config(module)["input_size"][1:]
    return int(height), int(width)


def _set_input_size(module: Any, size: tuple[int, int]) -> None:
    """Adapt a model to an input size with its own ``set_input_size``."""
    if patches := _find_uneven_patches(module, size):
        raise ValueError(f"it cuts images into patches of {patches}, which do not divide it evenly")
    windows = _find_trained_windows(module)
    with warnings.catch_warnings():
        # torch's, about timm's interpolation of relative position tables.
        warnings.simplefilter("ignore", UserWarning)
        module.set_input_size(img_size=size, **({"window_size": windows} if windows else {}))


def _find_uneven_patches(module: nn.Module, size: tuple[int, int]) -> str:
    """Format the patch size if it does not divide an input size evenly; else return an empty text."""
    embed = getattr(module, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return ""
    rows, columns = embed.patch_size
    return f"{rows}x{columns}" if size[0] % rows or size[1] % columns else ""


def _find_trained_windows(module: Any) -> Any:
    """Return the attention windows that the weights were trained with; None if they depend on the input size.

    Raises:
        ValueError: this version of timm cannot keep them.
    """
    built, changed = (inspect.signature(one).parameters for one in (type(module), module.set_input_size))
    if "window_size" not in changed or "window_size" not in built or built["window_size"].default is None:
        return None
    if stages := getattr(module, "_ref_window_sizes", None):
        return stages
    windows = {part.window_size for part in module.modules() if hasattr(part, "shift_size")}
    if len(windows) != 1:
        raise ValueError("its attention has windows of several sizes, which this version of timm would not keep")
    return windows.pop()


class _SizeCheck:
    """Check that a model of fixed size gives correct outputs at another input size without being resized.

    They are correct if a model built for that size, with interpolated weights, gives the same outputs.

    Args:
        native_size: the input size that the model is made for.
        create_name: its name for ``timm.create_model``; empty if unknown.
    """

    def __init__(self, native_size: tuple[int, int], create_name: str) -> None:
        self._native_size, self._create_name = native_size, create_name
        self._valid_sizes: set[tuple[int, int]] = set()

    def __call__(self, module: nn.Module, size: tuple[int, int]) -> None:
        if size in self._valid_sizes:
            return
        if _takes_img_size(module, self._create_name):
            # Two copies with its weights, since the module itself may have hooks.
            with torch.random.fork_rng(devices=[]):
                unchanged, rebuilt = (
                    _rebuild(module, self._native_size, each, self._create_name).eval()
                    for each in (self._native_size, size)
                )
            noise = torch.randn(1, count_channels(module), *size, generator=torch.Generator().manual_seed(0))
            if not torch.equal(unchanged(noise), rebuilt(noise)):
                raise ValueError("timm interpolates its positions only where it builds the model for one size (--size)")
        elif math.prod(size) == math.prod(self._native_size):
            raise ValueError(resize.SAME_PATCH_COUNT)
        self._valid_sizes.add(size)


def resize_model(module: nn.Module, size: tuple[int, int], name: str, create_name: str) -> nn.Module:
    """Resize a model to an input size, with position embeddings interpolated by timm."""
    if patches := _find_uneven_patches(module, size):
        rows, columns = map(int, patches.split("x"))
        near = f"{max(1, round(size[0] / rows)) * rows}x{max(1, round(size[1] / columns)) * columns}"
        raise RequestError(
            f"{name} cuts images into patches of {patches}, and {size[0]}x{size[1]} is no multiple",
            f"the nearest: --size {near}",
        )
    native_size = read_native_size(module)
    candidates = [lambda: module]
    if _is_fixed_size(module) and _takes_img_size(module, create_name):
        # Rebuilding comes first if timm has no set_input_size, so that its error is the one reported.
        candidates.insert(
            len(candidates) if hasattr(module, "set_input_size") else 0,
            lambda: _rebuild(module, native_size, size, create_name),
        )
    made = resize.resize_module(module, native_size, size, name, candidates, count_channels(module))
    if made is not module:
        make_resizable(made, create_name, size)
    return made


def _takes_img_size(module: nn.Module, create_name: str) -> bool:
    """Return whether timm can build a model for a given input size."""
    return bool(create_name) and "img_size" in inspect.signature(type(module)).parameters


def _rebuild(module: nn.Module, native_size: tuple[int, int], size: tuple[int, int], create_name: str) -> nn.Module:
    """Rebuild a model for another input size, with its weights.

    Raises:
        ValueError: timm does not interpolate its position embeddings.
    """

    def build(height: int, width: int) -> nn.Module:
        # Some classes do not accept a pair.
        side = height if height == width else (height, width)
        made: nn.Module = timm.create_model(
            create_name, pretrained=False, num_classes=module.num_classes, img_size=side
        )
        return made

    made, before = build(*size), dict(module.state_dict())
    after = convert_state(dict(before), made)
    if size != native_size and math.prod(size) == math.prod(native_size):
        # With the same number of patches, timm keeps a table over them as it is, although the grid differs.
        larger = build(2 * native_size[0], 2 * native_size[1]).state_dict()
        tables = [name for name in before if name in larger and larger[name].shape != before[name].shape]
        if any(after[name] is before[name] for name in tables if name in after):
            raise ValueError(resize.SAME_PATCH_COUNT)
    return resize.transplant_weights(after, made)
