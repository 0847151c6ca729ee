"""A model of timm for input of another size, what belongs to positions interpolated by timm itself."""

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
from camcli.engine.hooks.input_size import follow
from camcli.models.adapters import resize
from camcli.models.sources.timm_config import count_channels, pretrained_config
from camcli.models.sources.timm_weights import convert_state

# What interpolates its positions in its forward, whatever its configuration says of its size.
INTERPOLATING = ("VisionTransformerSAM",)
POSITIONS = "what belongs to positions is interpolated to each input's size by timm (set_input_size)"


def follow_size(module: nn.Module, create: str = "", own: tuple[int, int] | None = None) -> None:
    """Have a model of timm follow the size of its input, what belongs to positions interpolated by timm itself.

    A model that timm calls of fixed size and cannot change is refused input of another size, unless it is seen to be
    right as it is: CrossViT would scale any input to its own size, and MViTv2 look up the wrong places, unseen.

    Args:
        module: the model.
        create: what timm builds it by.
        own: what it was built for, if that is not what its configuration says.
    """
    own = own or input_size(module)
    if hasattr(module, "set_input_size"):
        follow(module, own, _change, POSITIONS)
    elif _is_fixed(module):
        follow(module, own, _Unchanged(own, create), "")


def _is_fixed(module: nn.Module) -> bool:
    return bool(pretrained_config(module).get("fixed_input_size")) and type(module).__name__ not in INTERPOLATING


def input_size(module: nn.Module) -> tuple[int, int]:
    """Height and width of the input that a model is made for."""
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    height, width = size if isinstance(size, tuple) else timm.data.resolve_model_data_config(module)["input_size"][1:]
    return int(height), int(width)


def _change(module: Any, size: tuple[int, int]) -> None:
    """Make a model what it must be for input of this size, by timm's own means."""
    if patches := _uneven(module, size):
        raise ValueError(f"it cuts pictures into patches of {patches}, which do not go into it evenly")
    windows = _windows(module)
    with warnings.catch_warnings():
        # torch's, of how timm looks up tables of relative positions.
        warnings.simplefilter("ignore", UserWarning)
        module.set_input_size(img_size=size, **({"window_size": windows} if windows else {}))


def _uneven(module: nn.Module, size: tuple[int, int]) -> str:
    """The patches that pictures are cut into, if they do not go into this size evenly."""
    embed = getattr(module, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return ""
    rows, columns = embed.patch_size
    return f"{rows}x{columns}" if size[0] % rows or size[1] % columns else ""


def _windows(module: Any) -> Any:
    """The windows of attention that the weights were trained for, which stay; None where they go by the input's size.

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


class _Unchanged:
    """Lets a model of fixed size be as it is for input of another, if that is right.

    It is, if the model that is built for that size, its weights interpolated, says the same.

    Args:
        own: the input that the model is made for.
        create: what timm builds it by; empty if that is not known.
    """

    def __init__(self, own: tuple[int, int], create: str) -> None:
        self._own, self._create = own, create
        self._right: set[tuple[int, int]] = set()

    def __call__(self, module: nn.Module, size: tuple[int, int]) -> None:
        if size in self._right:
            return
        if _is_built_for(module, self._create):
            # Two others with its weights, since somebody may be listening to the module itself.
            with torch.random.fork_rng(devices=[]):
                own, made = (_rebuilt(module, self._own, each, self._create).eval() for each in (self._own, size))
            noise = torch.randn(1, count_channels(module), *size, generator=torch.Generator().manual_seed(0))
            if not torch.equal(own(noise), made(noise)):
                raise ValueError("timm interpolates its positions only where it builds the model for one size (--size)")
        elif math.prod(size) == math.prod(self._own):
            raise ValueError(resize.SAME_COUNT)
        self._right.add(size)


def resize_model(module: nn.Module, size: tuple[int, int], name: str, create: str) -> nn.Module:
    """The model for pictures of this size, its weights interpolated by timm where they belong to positions."""
    if patches := _uneven(module, size):
        rows, columns = map(int, patches.split("x"))
        near = f"{max(1, round(size[0] / rows)) * rows}x{max(1, round(size[1] / columns)) * columns}"
        raise RequestError(
            f"{name} cuts pictures into patches of {patches}, and {size[0]}x{size[1]} is no multiple",
            f"the nearest: --size {near}",
        )
    own = input_size(module)
    ways = [lambda: module]
    if _is_fixed(module) and _is_built_for(module, create):
        # Built for the size comes first where timm has no better way, so that its reason is told.
        ways.insert(len(ways) if hasattr(module, "set_input_size") else 0, lambda: _rebuilt(module, own, size, create))
    made = resize.resized(module, own, size, name, ways, count_channels(module))
    if made is not module:
        follow_size(made, create, size)
    return made


def _is_built_for(module: nn.Module, create: str) -> bool:
    """Whether timm can build a model for an input size."""
    return bool(create) and "img_size" in inspect.signature(type(module)).parameters


def _rebuilt(module: nn.Module, own: tuple[int, int], size: tuple[int, int], create: str) -> nn.Module:
    """The model built for another input size, with its weights.

    Raises:
        ValueError: timm does not interpolate those that belong to positions.
    """

    def build(height: int, width: int) -> nn.Module:
        # Some classes take no pair.
        side = height if height == width else (height, width)
        made: nn.Module = timm.create_model(create, pretrained=False, num_classes=module.num_classes, img_size=side)
        return made

    made, before = build(*size), dict(module.state_dict())
    after = convert_state(dict(before), made)
    if size != own and math.prod(size) == math.prod(own):
        # Where the number of patches stays, timm takes a table over them as it is, though rows begin elsewhere.
        larger = build(2 * own[0], 2 * own[1]).state_dict()
        tables = [name for name in before if name in larger and larger[name].shape != before[name].shape]
        if any(after[name] is before[name] for name in tables if name in after):
            raise ValueError(resize.SAME_COUNT)
    return resize.transplanted(after, made)
