"""What timm's configuration says of a model: how pictures become its input, its classes, where its tokens lie."""

import math
from typing import Any

import timm.data
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine import input_channels
from camcli.images.transform import Fit, Prepare
from camcli.models.sources import imagenet
from camcli.targets.class_list import WORDNET
from camcli.targets.labels import Labels

FITS: dict[str, Fit] = {"center": "shorter", "squash": "squash", "border": "longer"}  # timm's crop modes
# What marks models (CaiT, XCiT, ConViT) whose class token joins after the first blocks: the number of prefix tokens
# that timm has for them is that of the last.
LATE_CLASS_TOKEN = ("blocks_token_only", "cls_attn_blocks", "local_up_to_layer")


def pretrained_config(module: nn.Module) -> dict[str, Any]:
    """What timm knows of a model's weights."""
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    return config


def read_prepare(module: nn.Module, name: str, size: tuple[int, int] | None = None) -> Prepare:
    """How pictures become a model's input, of its own size or another."""
    data = timm.data.resolve_model_data_config(module)
    height, width = size or data["input_size"][1:]  # at another size timm keeps the share that is cut away: crop_pct
    channels = count_channels(module)
    mean, std = (_numbers(data[key], channels, name) for key in ("mean", "std"))
    fit = FITS[data["crop_mode"]]
    return Prepare(
        size=(height, width),
        mean=mean,
        std=std,
        resize=(math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"])),
        fit=fit,
        interpolation=data["interpolation"],
        fill=_colour(mean) if fit == "longer" else 0,  # timm pads with the mean colour
    )


def count_channels(module: nn.Module) -> int:
    """How many channels a model's images have, which ``in_chans`` has changed.

    What its first convolution takes; tried where that is not what its configuration says, since others fold the
    picture before it (TResNet: 4 x 4 pixels of 3 channels into 48).
    """
    count, height, width = map(int, timm.data.resolve_model_data_config(module)["input_size"])
    first = pretrained_config(module).get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    parts = [part for name in names if isinstance(part := dict(module.named_modules()).get(name), nn.Conv2d)]
    if not parts or parts[0].in_channels == count:
        return count
    return input_channels.taken(module.eval(), (height, width), count) or parts[0].in_channels


def _numbers(values: Any, channels: int, name: str) -> tuple[float, ...]:
    """One number for each channel.

    Raises:
        RequestError: the model's configuration has others, of which these do not follow.
    """
    numbers = tuple(map(float, values))
    if len(numbers) == channels:
        return numbers
    # What is the same for each of three colours is so for the grey of them, and of however many channels.
    if len(set(numbers)) == 1:
        return numbers[:1] * channels
    raise RequestError(
        f"{name} takes images of {input_channels.channels_in_words(channels)}, and its configuration has a mean and "
        f"std of {len(numbers)} ({', '.join(f'{one:g}' for one in numbers)})",
        "say how its images were prepared, with a number for each channel: by timm's "
        "pretrained_cfg_overlay=dict(mean=(0.5,), std=(0.5,)); or return (module, camcli.Prepare(size=(224, 224), "
        "resize=(256, 256), mean=(0.5,), std=(0.5,))) from a file.py:function",
    )


def _colour(mean: tuple[float, ...]) -> int | tuple[int, ...]:
    levels = tuple(round(255 * value) for value in mean)
    return levels[0] if len(levels) == 1 else levels


def read_labels(config: dict[str, Any], classes: int, file: str) -> tuple[Labels, tuple[str, ...]]:
    """The names of the classes, and what is to be said about them."""
    labels = _own_names(config) or imagenet.named(config.get("tag") or "", classes)
    if labels is None or len(labels) != classes:
        return Labels.numbered(classes), ()
    if file:
        return labels, ("the classes are taken to be the model's usual ones; --labels FILE names others",)
    return labels, ()


def _own_names(config: dict[str, Any]) -> Labels | None:
    """The names that a model brings along in its configuration."""
    given = config.get("label_names")
    if not given:
        return None
    if isinstance(given, dict):
        given = [given[key] for key in sorted(given, key=int)]
    described = config.get("label_descriptions") or {}
    names = tuple(str(described.get(name, name)) for name in given)
    return Labels(names, tuple(given)) if all(WORDNET.fullmatch(str(name)) for name in given) else Labels(names)


def count_prefix_tokens(module: nn.Module) -> int | None:
    """How many tokens stand before those of the patches, where that holds for every block."""
    if any(hasattr(module, mark) for mark in LATE_CLASS_TOKEN):
        return None
    count = getattr(module, "num_prefix_tokens", None)
    return None if count is None else int(count)


def patch_grid(module: nn.Module) -> tuple[int, int] | None:
    """The patch grid of a model whose tokens keep it to the end, for input of its own size."""
    if count_prefix_tokens(module) is None:
        return None
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    return (int(grid[0]), int(grid[1])) if grid else None
