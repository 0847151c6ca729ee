"""Where networks come from: the sources, and the words for weights, heads and templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from camcli.base.errors import RequestError
from camcli.base.registry import Row, Table

SOURCES = Table(
    Row,
    "camcli.models",
    "model source",
    Row("bundled", "bundled", "comes with camcli and needs no network", function="load"),
    Row("timm", "timm", "PyTorch Image Models: resnet50, vit_base_patch16_224.augreg_in21k, ...", function="load"),
    Row("torchvision", "torchvision", "resnet50, resnet50/IMAGENET1K_V2, ...", function="load"),
    Row("open_clip", "open_clip", "ViT-B-32/laion2b_s34b_b79k, ...; --text gives the classes", function="load"),
    Row("local", "local", "path/to/file.py:function or package.module:function, of your own", function="load"),
    folder="camcli.models.sources",
)

BUNDLED_MODEL = "bundled:efficientnet-lite0"
RANDOM_WEIGHTS = "random"
Head = Literal["auto", "keep", "none"]
Pool = Literal["keep", "none"]
Activations = Literal["model", "softmax", "sigmoid", "none", "probabilities"]
WRAPPERS = "a wrapper is named path/to/file.py:Class, or package.module:Class where it is installed"
TOWERS = "a text tower is named path/to/file.py:function, or package.module:function where it is installed"
# Templates for prompts that open_clip knows; any other has the prompt's place in it.
TEMPLATES = ("imagenet", "imagenet-simple")
PLACE = "{}"

SIZE = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?")


def input_size(words: str) -> tuple[int, int] | None:
    """Height and width meant by ``256`` (a square) or ``256x384``; None if nothing is asked.

    Raises:
        RequestError: it is no size.
    """
    if not words:
        return None
    match = SIZE.fullmatch(words)
    if match is None:
        raise RequestError(
            f"size cannot be {words!r}", "give one number for a square, or height x width: 256, or 256x384"
        )
    height, width = int(match[1]), int(match[2] or match[1])
    return height, width


def check_templates(templates: Sequence[str]) -> None:
    """See that each has one place for a prompt.

    Raises:
        RequestError: one has none, or several.
    """
    for template in templates:
        if template not in TEMPLATES and template.count(PLACE) != 1:
            raise RequestError(
                f"the template {template!r} has {template.count(PLACE) or 'no'} places for a prompt",
                f"write {PLACE} once where the prompt goes, as in 'a photo of a {PLACE}.'; open_clip's own are "
                f"called {' and '.join(TEMPLATES)}",
            )
