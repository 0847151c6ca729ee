"""Small CLIP models in open_clip's own folder format, untrained."""

import json
import warnings
from pathlib import Path

import open_clip
import torch
from torch import nn

PROMPTS = ("a photo of a cat", "a cup of coffee", "two dogs")
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_clip(folder: Path, **changes) -> nn.Module:
    """A CLIP model of a few thousand weights (but for its vocabulary), whose configuration is changed so."""
    config = {"model_cfg": TINY | changes, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        made = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    return made
