"""A stand-in for CLIP whose image tower has real weights: the bundled EfficientNet-Lite0 in open_clip's own format.

It is an open_clip ``CustomTextCLIP``. Its image tower is the bundled network as a timm trunk that ends behind the
pooling. Its text tower is random, but for the ``text_projection``, which is solved so that "a photo of a NAME." of each
of the thousand classes lands on that class's row of the bundled classifier, less the mean of all rows, at unit length.
So cosines follow the classifier's scores, and nothing else that it says means anything: it has learned no language. It
proves the way from a prompt to a map. None of its numbers are CLIP's.

Ridge regression in closed form: with ``F`` the pooled features of the thousand texts ``(1000, width)`` and ``T`` the
rows ``(1000, 1280)``, the projection ``P`` least in ``|F P - T|^2 + RIDGE |P|^2`` is ``F^T (F F^T + RIDGE I)^-1 T``.
"""

import json
import math
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from camcli.engine.network import Network
from camcli.models import BUNDLED_MODEL, load
from camcli.models.sources import bundled
from camcli.models.sources.open_clip_weights import CONFIG_FILE, WEIGHT_FILES

TEMPLATE = "a photo of a {}."
# At least as many features as texts, so that each can have its own row; the file's size is 49,408 times that.
WIDTH = 1024
# The longest of the thousand texts has 14 tokens.
TOKENS = 32
RIDGE = 1e-3
SEED = 0
# What the bundled model multiplies cosines by: the length of a class's row times that of an image's features,
# measured on the sample images at 30 to 41. CLIPs end near 100.
SCALE = 35.0
AT_ONCE = 100


def prompt(name: str) -> str:
    """The one sentence that the stand-in reads."""
    return TEMPLATE.format(name)


@torch.no_grad()
def write(folder: Path) -> None:
    """Make it, as a folder that ``open_clip:local-dir:FOLDER`` names; takes seconds."""
    network = load.load(BUNDLED_MODEL)
    names = [network.labels.short(index) for index in range(len(network.labels))]
    rows = network.module.get_submodule("classifier").weight.double()
    towers = _towers(rows.shape[1], network.preprocess.size[0])
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": {**towers, "custom_text": True}, "preprocess_cfg": _preprocessing(network)}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    model: Any = open_clip.CustomTextCLIP(**towers, init_logit_scale=math.log(SCALE)).eval()
    _randomise(model.text)
    block_stack = {
        name: value for name, value in network.module.state_dict().items() if not name.startswith("classifier")
    }
    model.visual.trunk.load_state_dict(block_stack)
    rows = nn.functional.normalize(rows - rows.mean(0), dim=1)
    model.text.text_projection.copy_(_projection(_features(model.text, names, folder), rows))
    state = model.state_dict()
    # Signs fill a byte each.
    state["text.token_embedding.weight"] = state["text.token_embedding.weight"].to(torch.int8)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHT_FILES[0])


def _towers(features: int, size: int) -> dict[str, Any]:
    image = {
        "timm_model_name": bundled.ARCHITECTURE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "none",
        "image_size": size,
    }
    text = {
        "context_length": TOKENS,
        "vocab_size": 49408,
        "width": WIDTH,
        "heads": 8,
        "layers": 1,
        "mlp_ratio": 1.0,
    }
    return {"embed_dim": features, "vision_cfg": image, "text_cfg": text}


def _preprocessing(network: Network) -> dict[str, Any]:
    # open_clip cuts out the middle of an image whose shorter side is as long as the input; the bundled model's own
    # preprocessing leaves an eighth of that outside, which open_clip has no word for.
    preprocess = network.preprocess
    return {
        "mean": preprocess.mean,
        "std": preprocess.std,
        "interpolation": preprocess.interpolation,
        "resize_mode": "shortest",
    }


def _randomise(text: Any) -> None:
    """Random signs for tokens, so large that they are seen through the norms; none for the end, which is in all."""
    noise = torch.Generator().manual_seed(SEED)
    for parameter in text.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=noise) * parameter.shape[-1] ** -0.5)
    text.positional_embedding.mul_(WIDTH**0.5 / 2)
    signs = torch.randint(0, 2, text.token_embedding.weight.shape, generator=noise)
    text.token_embedding.weight.copy_(2 * signs - 1)
    text.token_embedding.weight[-1] = 0


def _features(text: Any, names: list[str], folder: Path) -> Tensor:
    """What the text tower says of each name's sentence before the projection, ``(names, width)``."""
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([prompt(name) for name in names])
    projection, text.text_projection = text.text_projection, None
    said = torch.cat([text(some) for some in tokens.split(AT_ONCE)])
    text.text_projection = projection
    return said.double()


def _projection(features: Tensor, rows: Tensor) -> Tensor:
    """The linear map from features to rows, by ridge regression."""
    alike = features @ features.T + RIDGE * torch.eye(len(features), dtype=torch.float64)
    return features.T @ torch.linalg.solve(alike, rows)
