"""From a network and images to maps: the words for it."""

from __future__ import annotations

import re
from typing import Literal, get_args

from camcli.base.errors import RequestError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Place = Literal["measured", "even"]
Fuse = Literal["none", "mean", "max", "product", "sum", "paper"]
Compile = Literal["auto", "on", "off"]
# Which mirrored pictures may be explained too, and by which factors the input may be scaled.
FLIPS = ("flip", "flip-vertical")
SMALLEST, LARGEST = 0.1, 10.0
FUSES: tuple[str, ...] = get_args(Fuse)
# How a layer's output may be said to lie in memory.
LAYOUTS = "nchw, nhwc, tokens:PREFIX:HxW, ncl:PREFIX:HxW"
LAYOUT = re.compile(r"nchw|nhwc|(tokens|ncl):\d{1,6}:[1-9]\d{0,5}x[1-9]\d{0,5}", re.ASCII)


def factors(words: str) -> tuple[float, ...]:
    """The factors meant by ``0.75,1,1.25``.

    Raises:
        RequestError: these are none.
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
