"""The engine: makes maps from a network and images. This module defines the words of its settings."""

from __future__ import annotations

import re
from typing import Literal, get_args

from camcli.base.errors import RequestError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Place = Literal["measured", "even"]
Fuse = Literal["none", "mean", "max", "product", "sum", "paper"]
Compile = Literal["auto", "on", "off"]
# Mirrored images that can be explained too, and the range of factors of the input's size.
FLIPS = ("flip", "flip-vertical")
SMALLEST, LARGEST = 0.1, 10.0
FUSES: tuple[str, ...] = get_args(Fuse)
# Memory layouts of a layer's output that a user can choose.
LAYOUTS = "nchw, nhwc, tokens:PREFIX:HxW, ncl:PREFIX:HxW"
LAYOUT = re.compile(r"nchw|nhwc|(tokens|ncl):\d{1,6}:[1-9]\d{0,5}x[1-9]\d{0,5}", re.ASCII)


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
