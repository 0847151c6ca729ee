"""Small models of transformers, written as folders by ``save_pretrained``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NAMES = ("cat", "dog", "fox")
SIDE = 64


def vit_config(**more: Any) -> Any:
    """The configuration of a small vision transformer."""
    from transformers import ViTConfig

    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
    named = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    return ViTConfig(**{**sizes, **named, "image_size": SIDE, "patch_size": 8, **more})


def make_vit(seed: int = 0, **more: Any) -> Any:
    """A small vision transformer with random weights, large enough that its attention is uneven."""
    from transformers import ViTForImageClassification

    torch.manual_seed(seed)
    module = ViTForImageClassification(vit_config(**more)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return module


def save(folder: Path, module: Any, processor: Any = None, **how: Any) -> Path:
    """Write a model and its image processor; by default one that stretches images to the small ViT's size."""
    from transformers import ViTImageProcessor

    module.save_pretrained(folder, **how)
    (processor or ViTImageProcessor(size={"height": SIDE, "width": SIDE})).save_pretrained(folder)
    return folder


def save_vit(folder: Path, **more: Any) -> Path:
    """Write a small vision transformer."""
    return save(folder, make_vit(**more))
