"""The engine: makes maps from a network and images. This module defines the words of its settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from camcli.base.errors import RequestError, did_you_mean

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Place = Literal["measured", "even"]
Fuse = Literal["none", "mean", "max", "product", "sum", "paper"]
# Rules for the gradient's way through a transformer; plain: none.
Backward = Literal["plain", "cp", "libra", "attnlrp"]
Compile = Literal["auto", "on", "off"]
Linear = Literal["auto", "torch", "onednn"]
# Mirrored images that can be explained too, and the range of factors of the input's size.
FLIPS = ("flip", "flip-vertical")
SMALLEST, LARGEST = 0.1, 10.0
FUSES: tuple[str, ...] = get_args(Fuse)
# Memory layouts of a layer's output that a user can choose.
LAYOUTS = "nchw, nhwc, tokens:PREFIX:HxW, ncl:PREFIX:HxW"
LAYOUT = re.compile(r"nchw|nhwc|(tokens|ncl):\d{1,6}:[1-9]\d{0,5}x[1-9]\d{0,5}", re.ASCII)
# Words for devices that may be here, or that PyTorch says why they are not.
DEVICE_NAMES = ("auto", "cpu", "cuda", "cuda:0", "cuda:all", "mps")
DEVICE = re.compile(r"auto|cpu|mps|metal|cuda(:\d+|:all)?|gpu(:\d+)?|nvidia|\d*", re.IGNORECASE)


def check_device_combination(text: str, known: Sequence[str] = DEVICE_NAMES[1:]) -> None:
    """Check that ``auto``, which chooses one device, is not named among others.

    Raises:
        RequestError: it is; the hint lists the ``known`` names.
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) > 1 and "auto" in words:
        raise RequestError(
            f"--device {text} combines auto, which chooses one, with others", f"name each: {', '.join(known)}"
        )


def check_device_words(text: str) -> None:
    """Check that words joined by commas can be names of devices, whether or not these are here.

    Raises:
        RequestError: one cannot, or they do not go together.
    """
    check_device_combination(text)
    for word in text.split(","):
        if not DEVICE.fullmatch(word.strip()):
            near = did_you_mean(word, DEVICE_NAMES)
            raise RequestError(
                f"there is no device {word!r}",
                f"{near}\n".lstrip() + "camcli computes on the CPU (cpu), on GPUs of NVIDIA and AMD (cuda, cuda:1, "
                "cuda:all) and on those of Apple (mps)",
            )


def factors(words: str) -> tuple[float, ...]:
    """Parse factors such as ``0.75,1,1.25``.

    Raises:
        RequestError: these are no factors in the allowed range.
    """
    try:
        found = tuple(float(word) for word in words.split(","))
    except ValueError:
        found = ()
    if not found or not all(SMALLEST <= factor <= LARGEST for factor in found):
        raise RequestError(
            f"scales cannot be {words!r}",
            f"give factors of the input's size from {SMALLEST:g} to {LARGEST:g}, joined by commas: 0.75,1,1.25",
        )
    return found


# Names of the last release, of an explainer's arguments and attributes.
OLD_ARGUMENTS = {"rows": "batch_size", "channels": "top_channels"}
OLD_ATTRIBUTES = {
    "outlet": "output_spec",
    "recipes": "bound_methods",
    "strongest": "top_channels",
    "fits": "fits_concepts",
    "fitted": "fitted_concepts",
    "runs": "calls",
    "located": "locations",
    "channels": "channel_counts",
    "shared": "shares_prediction",
    "places": "tensor_indices",
    "says": "describe_target",
    "cells": "sample_cells",
}
