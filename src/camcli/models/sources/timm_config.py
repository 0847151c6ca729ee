"""Reading of timm's configuration of a model: preprocessing, class names, token layout."""

import math
from typing import Any

import timm.data
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine import input_channels
from camcli.images.transform import Fit, Preprocess
from camcli.models.sources import imagenet
from camcli.targets.class_list import WORDNET_ID
from camcli.targets.labels import Labels

FIT_OF_CROP_MODE: dict[str, Fit] = {"center": "shorter", "squash": "squash", "border": "longer"}  # timm's crop modes
# Attributes of models (CaiT, XCiT, ConViT) whose class token joins after the first blocks: timm's number of prefix
# tokens holds for the last block only.
LATE_CLASS_TOKEN = ("blocks_token_only", "cls_attn_blocks", "local_up_to_layer")


def read_pretrained_config(module: nn.Module) -> dict[str, Any]:
    """Return timm's configuration of a model's pretrained weights."""
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    return config


def read_preprocess(module: nn.Module, name: str, size: tuple[int, int] | None = None) -> Preprocess:
    """Read a model's preprocessing, for its own input size or another."""
    data = timm.data.resolve_model_data_config(module)
    height, width = size or data["input_size"][1:]  # timm keeps crop_pct at other sizes
    channels = count_channels(module)
    mean, std = (_expand_to_channels(data[key], channels, name) for key in ("mean", "std"))
    fit = FIT_OF_CROP_MODE[data["crop_mode"]]
    return Preprocess(
        size=(height, width),
        mean=mean,
        std=std,
        resize=(math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"])),
        fit=fit,
        interpolation=data["interpolation"],
        fill=_fill_colour(mean) if fit == "longer" else 0,  # timm pads with the mean colour
    )


def count_channels(module: nn.Module) -> int:
    """Count the channels of a model's images, which ``in_chans`` may have changed.

    They are the input channels of its first convolution; if those differ from the configuration, they are probed,
    since some models fold the image first (TResNet: 4 x 4 pixels of 3 channels into 48).
    """
    count, height, width = map(int, timm.data.resolve_model_data_config(module)["input_size"])
    first = read_pretrained_config(module).get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    parts = [part for name in names if isinstance(part := dict(module.named_modules()).get(name), nn.Conv2d)]
    if not parts or parts[0].in_channels == count:
        return count
    return input_channels.find_input_channels(module.eval(), (height, width), count) or parts[0].in_channels


def _expand_to_channels(values: Any, channels: int, name: str) -> tuple[float, ...]:
    """Return one value per channel.

    Raises:
        RequestError: the number of values differs, and they are not all equal.
    """
    numbers = tuple(map(float, values))
    if len(numbers) == channels:
        return numbers
    # A value shared by all three colours also holds for grey, and for any other number of channels.
    if len(set(numbers)) == 1:
        return numbers[:1] * channels
    raise RequestError(
        f"{name} takes images of {input_channels.format_channels(channels)}, and its configuration has a mean and "
        f"std of {len(numbers)} ({', '.join(f'{one:g}' for one in numbers)})",
        "give its preprocessing, with a number for each channel: by timm's pretrained_cfg_overlay=dict(mean=(0.5,), "
        "std=(0.5,)); or return (module, camcli.Preprocess(size=(224, 224), resize=(256, 256), mean=(0.5,), "
        "std=(0.5,))) from a file.py:function",
    )


def _fill_colour(mean: tuple[float, ...]) -> int | tuple[int, ...]:
    levels = tuple(round(255 * value) for value in mean)
    return levels[0] if len(levels) == 1 else levels


def read_labels(config: dict[str, Any], classes: int, file: str) -> tuple[Labels, tuple[str, ...]]:
    """Read the class names, and notes about them."""
    labels = _read_own_labels(config) or imagenet.find_labels(config.get("tag") or "", classes)
    if labels is None or len(labels) != classes:
        return Labels.numbered(classes), ()
    if file:
        return labels, ("the class names are assumed to be the model's usual ones; --labels FILE gives others",)
    return labels, ()


def _read_own_labels(config: dict[str, Any]) -> Labels | None:
    """Read the class names in a model's configuration."""
    given = config.get("label_names")
    if not given:
        return None
    if isinstance(given, dict):
        given = [given[key] for key in sorted(given, key=int)]
    described = config.get("label_descriptions") or {}
    names = tuple(str(described.get(name, name)) for name in given)
    return Labels(names, tuple(given)) if all(WORDNET_ID.fullmatch(str(name)) for name in given) else Labels(names)


def count_prefix_tokens(module: nn.Module) -> int | None:
    """Count the prefix tokens before the patch tokens; None if unknown or not the same in every block."""
    if any(hasattr(module, mark) for mark in LATE_CLASS_TOKEN):
        return None
    count = getattr(module, "num_prefix_tokens", None)
    return None if count is None else int(count)


def find_patch_grid(module: nn.Module) -> tuple[int, int] | None:
    """Find the patch grid at the native input size; None if there is none, or not in every block."""
    if count_prefix_tokens(module) is None:
        return None
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    return (int(grid[0]), int(grid[1])) if grid else None
