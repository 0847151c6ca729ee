"""open_clip's image towers, of each kind a small one."""

from pathlib import Path

import pytest
import torch
from clips import PROMPTS, tiny_clip

from camcli import Network
from camcli.models.load import load

# What the image towers of small CLIP models are built of: of each kind that open_clip has.
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
TOWERS = {
    "class token": VIT,
    "mean of patches": {**VIT, "pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True},
    "fixed sines": {**VIT, "pos_embed_type": "sin_cos_2d"},
    "pooled by attention": {**VIT, "attentional_pool": True, "attn_pooler_queries": 6, "attn_pooler_heads": 2},
    "ModifiedResNet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    "of timm": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}

every_tower = pytest.mark.parametrize("kind", TOWERS)


def clip(towers: Path, kind: str, size: str = "") -> Network:
    """A small CLIP model with a tower of this kind, and its weights."""
    folder = towers / kind
    if not folder.exists():
        folder.mkdir()
        torch.manual_seed(0)
        tiny_clip(folder, vision_cfg=TOWERS[kind])
    return load(f"open_clip:local-dir:{folder}", text=PROMPTS, size=size)


def sides(kind: str) -> int:
    return TOWERS[kind]["image_size"]


def half_higher(kind: str) -> tuple[int, int]:
    """A size that is not square, in whole patches or strides."""
    return sides(kind) * 3 // 2, sides(kind)
