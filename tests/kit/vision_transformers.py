"""Small vision transformers of every library, with their attention tapped, or written out."""

import copy
import math

import pytest
import torch
from networks import seeded
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.state import frozen

SIZE = 32


def timm_vit(kind=VisionTransformer, fused=True, **options):
    """Three blocks of three heads over 4 x 4 patches."""
    options = {
        "img_size": SIZE,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 3,
        "num_classes": 5,
    } | options
    model = kind(**options)
    for block in model.blocks:
        # A parallel block is its own attention.
        getattr(block, "attn", block).fused_attn = fused
    return seeded(model)


def open_clip_vit():
    from open_clip.transformer import VisionTransformer as Tower

    return seeded(Tower(SIZE, 8, 24, 3, 4, 2.0, output_dim=5))


def torchvision_vit():
    return seeded(TorchvisionTransformer(SIZE, 8, 3, 4, 24, 48, num_classes=5))


# The model, and which of its tokens the score reads: a class token, that and the distillation token, or all patches.
MODELS = {
    "timm": (timm_vit, [0]),
    "timm written out": (lambda: timm_vit(fused=False), [0]),
    "timm distilled": (lambda: timm_vit(VisionTransformerDistilled), [0, 1]),
    "timm registers": (lambda: timm_vit(reg_tokens=2), [0]),
    "timm mean": (lambda: timm_vit(class_token=False, global_pool="avg"), list(range(16))),
    "timm mean beside a class token": (lambda: timm_vit(global_pool="avg"), list(range(1, 17))),
    "timm normed queries": (lambda: timm_vit(qk_norm=True), [0]),
    "timm parallel mlp": (lambda: timm_vit(block_fn=ParallelScalingBlock), [0]),
    "open_clip": (open_clip_vit, [0]),
    "torchvision": (torchvision_vit, [0]),
}
every_model = pytest.mark.parametrize("name", MODELS)


def attended(model, images, index=1, **options):
    """The attentions of a forward, the scores, and the gradients of one class's score by the weights."""
    with frozen(model), torch.enable_grad():
        with AttentionCapture(len(images), **options) as met:
            scores = model(images)
        grads = torch.autograd.grad(scores[:, index].sum(), [one.output for one in met.attentions], retain_graph=True)
    return met, scores, [one.gradient(grad) for one, grad in zip(met.attentions, grads, strict=True)], grads


class WrittenOut(nn.Module):
    """In the place of an attention module: the same by its weights, one product after the other; A is kept."""

    def __init__(self, of, kept):
        super().__init__()
        self.of, self.kept = of, kept

    def forward(self, query, *others, **options):
        of = self.of
        packed = isinstance(of, nn.MultiheadAttention)
        weight, bias = (of.in_proj_weight, of.in_proj_bias) if packed else (of.qkv.weight, of.qkv.bias)
        normed = (nn.Identity(), nn.Identity()) if packed else (of.q_norm, of.k_norm)
        images, tokens, width = query.shape
        q, k, v = (query @ weight.T + bias).chunk(3, dim=-1)
        q, k, v = (part.view(images, tokens, of.num_heads, -1).transpose(1, 2) for part in (q, k, v))
        q, k = normed[0](q), normed[1](k)
        logits = q @ k.transpose(-2, -1) / math.sqrt(width // of.num_heads)
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        self.kept.append(weights)
        mixed = (weights @ v).transpose(1, 2).reshape(images, tokens, width)
        if packed:
            return of.out_proj(mixed), None
        return of.proj(mixed)


def written_out(model):
    """A copy whose attention modules are all replaced, and the list that their weights go to."""
    model, kept = copy.deepcopy(model), []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention) or (hasattr(child, "qkv") and hasattr(child, "proj")):
                setattr(parent, name, WrittenOut(child, kept))
    return model, kept
