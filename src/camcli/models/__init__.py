"""Registry of model sources, and the option values for weights, heads, pooling and templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from camcli.base.errors import RequestError
from camcli.base.registry import Registry, Row

SOURCES = Registry(
    Row,
    "camcli.models",
    "model source",
    Row("bundled", "bundled", "comes with camcli, without a download", function="load"),
    Row("timm", "timm", "PyTorch Image Models: resnet50, vit_base_patch16_224.augreg_in21k, ...", function="load"),
    Row("torchvision", "torchvision", "resnet50, resnet50/IMAGENET1K_V2, ...", function="load"),
    Row("open_clip", "open_clip", "ViT-B-32/laion2b_s34b_b79k, ...; --text gives the classes", function="load"),
    Row(
        "hf",
        "hf",
        "transformers: hf:google/vit-base-patch16-224, hf:./FOLDER that save_pretrained wrote",
        function="load",
    ),
    Row(
        "ultralytics",
        "ultralytics",
        "YOLO by your own installation: ultralytics:path/to/best.pt; reading it runs the code in it",
        function="load",
    ),
    Row("libreyolo", "libreyolo", "YOLO, RT-DETR and others of libreyolo: libreyolo:path/to/best.pt", function="load"),
    Row("onnx", "onnx", "path/to/net.onnx, without gradients, by ONNX Runtime", function="load"),
    Row("pt2", "pt2", "path/to/net.pt2, a torch.export program; reading it may run code in it", function="load"),
    Row("hub", "hub", "hub:path/to/folder:entry, a folder of torch.hub; its code is run", function="load"),
    Row("local", "local", "path/to/file.py:function or package.module:function, of your own", function="load"),
    folder="camcli.models.sources",
)

# The source of folders of torch.hub, and the file in them that has the functions.
HUB, HUB_FILE = "hub", "hubconf.py"
# Sources whose files run code: pickles that a library reads, or Python.
CODE_SOURCES = ("ultralytics", "pt2", "hub", "local")
# Sources whose models are files with their weights, and those of them named by the file alone.
FILE_SOURCES = ("bundled", "ultralytics", "onnx", "pt2", "hub", "local")
SUFFIXES = {".onnx": "onnx", ".pt2": "pt2"}
# Sources whose models may not say how images are prepared.
TOLD_SOURCES = ("onnx", "pt2", "hub", "local")
BUNDLED_MODEL = "bundled:efficientnet-lite0"
RANDOM_WEIGHTS = "random"
HeadOption = Literal["auto", "keep", "none"]
PoolOption = Literal["keep", "none"]
ActivationOption = Literal["model", "softmax", "sigmoid", "none", "probabilities"]
WRAPPER_USAGE = "a wrapper is named path/to/file.py:Class, or package.module:Class where it is installed"
TEXT_TOWER_USAGE = "a text tower is named path/to/file.py:function, or package.module:function where it is installed"
# open_clip's sets of prompt templates; any other template holds the placeholder.
TEMPLATE_SETS = ("imagenet", "imagenet-simple")
PLACEHOLDER = "{}"

SIZE_PATTERN = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?")


def parse_size(text: str) -> tuple[int, int] | None:
    """Parse ``256`` (a square) or ``256x384`` into height and width; return None for an empty text.

    Raises:
        RequestError: the text is not a size.
    """
    if not text:
        return None
    match = SIZE_PATTERN.fullmatch(text)
    if match is None:
        raise RequestError(
            f"size cannot be {text!r}", "give one number for a square, or height x width: 256, or 256x384"
        )
    height, width = int(match[1]), int(match[2] or match[1])
    return height, width


def check_templates(templates: Sequence[str]) -> None:
    """Check that each template has exactly one placeholder for the prompt.

    Raises:
        RequestError: a template has none, or several.
    """
    for template in templates:
        if template not in TEMPLATE_SETS and template.count(PLACEHOLDER) != 1:
            raise RequestError(
                f"the template {template!r} has {template.count(PLACEHOLDER) or 'no'} places for a prompt",
                f"write {PLACEHOLDER} once where the prompt goes, as in 'a photo of a {PLACEHOLDER}.'; "
                f"open_clip's own are called {' and '.join(TEMPLATE_SETS)}",
            )
