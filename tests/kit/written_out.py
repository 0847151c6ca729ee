"""Each network taken to pieces, its attention written out."""

import math
from dataclasses import replace

import numpy as np
import torch
from networks import named, seeded, untouched
from open_clip.transformer import VisionTransformer as Tower
from torchvision.models import VisionTransformer as TorchvisionTransformer
from vision_transformers import MODELS, SIZE, timm_vit

from camcli import Explainer, Labels


class Pieces:
    """A vision transformer of timm, open_clip or torchvision in its parts, by the names that these have in it."""

    def __init__(self, model):
        self.model = model
        self.own = isinstance(model, Tower)
        self.torchvision = isinstance(model, TorchvisionTransformer)

    @property
    def blocks(self):
        if self.own:
            return list(self.model.transformer.resblocks)
        return list(self.model.encoder.layers if self.torchvision else self.model.blocks)

    def embedded(self, images):
        model = self.model
        if self.own:
            return model._embeds(images)
        if self.torchvision:
            patches = model._process_input(images)
            return torch.cat([model.class_token.expand(len(images), -1, -1), patches], 1) + model.encoder.pos_embedding
        return model.norm_pre(model._pos_embed(model.patch_embed(images)))

    def head(self, tokens):
        """What the network says of all tokens."""
        model = self.model
        if self.own:
            return model._pool(tokens)[0] @ model.proj
        if self.torchvision:
            return model.heads(model.encoder.ln(tokens)[:, 0])
        return model.forward_head(model.norm(tokens))

    def head_of_each(self, tokens):
        """What it says of each by itself: the head without its pooling, or the values of a pooling by attention."""
        model = self.model
        if self.own:
            if model.attn_pool is not None:
                pool = model.attn_pool
                values = pool.ln_k(tokens) @ pool.attn.v_proj_weight.T + pool.attn.in_proj_bias.chunk(3)[2]
                tokens = pool.attn.out_proj(values)
            return model.ln_post(tokens) @ model.proj
        if self.torchvision:
            return model.heads(model.encoder.ln(tokens))
        tokens = model.norm(tokens)
        if pool := model.attn_pool:
            tokens = pool.proj(pool.kv(tokens).chunk(2, dim=-1)[1])
            tokens = tokens + pool.mlp(pool.norm(tokens))
        tokens = model.fc_norm(tokens)
        both = [model.head(tokens)] + ([model.head_dist(tokens)] if hasattr(model, "head_dist") else [])
        return sum(both) / len(both)

    def looked(self, block, tokens):
        """Q, K and V of a block, (n, heads, t, d)."""
        packed = self.own or self.torchvision
        attention = block.self_attention if self.torchvision else block.attn
        normed = (block.ln_1 if packed else block.norm1)(tokens)
        weight, bias = (
            (attention.in_proj_weight, attention.in_proj_bias) if packed else (attention.qkv.weight, attention.qkv.bias)
        )
        parts = (normed @ weight.T + bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
        return (q, k, v) if packed else (attention.q_norm(q), attention.k_norm(k), v)

    def added(self, block, told):
        """What a block adds to its tokens where its attention tells them (n, heads, t, d)."""
        attention = block.self_attention if self.torchvision else block.attn
        mixed = told.transpose(1, 2).flatten(2)
        if self.torchvision:
            return attention.out_proj(mixed)
        return block.ls_1(attention.out_proj(mixed)) if self.own else block.ls1(attention.proj(mixed))

    def finished(self, block, tokens):
        """What a block hands on, from the tokens as its attention left them."""
        if self.torchvision:
            return tokens + block.mlp(block.ln_2(tokens))
        if self.own:
            return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
        return tokens + block.ls2(block.mlp(block.norm2(tokens)))

    def handed(self, images):
        """The tokens that each block is handed, and those of the last behind them."""
        found = [self.embedded(images)]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found


def attention_of(q, k):
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)


def by_values(v):
    return attention_of(v, v) @ v


def grid_of(numbers, prefix):
    return numbers[:, prefix:].reshape(len(numbers), 4, 4)


def prefix_of(name):
    return {"timm distilled": 2, "timm registers": 3, "timm mean": 0, "timm pooled": 0}.get(name, 1)


def open_clip_pooled():
    return seeded(Tower(SIZE, 8, 24, 3, 4, 2.0, attentional_pool=True, attn_pooler_queries=5, output_dim=8))


def open_clip_scaled():
    return seeded(Tower(SIZE, 8, 24, 3, 4, 2.0, ls_init_value=0.5, pool_type="avg", final_ln_after_pool=True))


NETWORKS = {
    **{name: make for name, (make, _) in MODELS.items() if name != "timm parallel mlp"},
    "timm scaled": lambda: timm_vit(init_values=0.5),
    "timm pooled": lambda: timm_vit(class_token=False, global_pool="map"),
    "open_clip pooled": open_clip_pooled,
    "open_clip mean, scaled": open_clip_scaled,
}


def explained(name, model, method, images, index=1, cosine=None, labels=5, **options):
    facts = {"prefix": prefix_of(name), "grid": (4, 4), "cosine": cosine}
    network = replace(named(model, labels, SIZE, **facts), labels=Labels.numbered(labels))
    explain = Explainer(network, method=method, options=options, batch_size=3)
    with untouched(model):
        maps = [one.map for [one] in explain(images, index)]
    return torch.from_numpy(np.stack(maps)).double(), explain


def close(found, wanted):
    assert found.shape == wanted.shape
    assert wanted.abs().max() > 0
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


def outputs(model):
    return 512 if isinstance(model, Tower) and model.pool_type == "avg" else 8 if model_pools(model) else 5


def model_pools(model):
    return isinstance(model, Tower) and model.attn_pool is not None


def eclipsed(name, q, k, v, gradient, similarity):
    """The map by q, k, v of the last attention and the gradient by what it tells, in the row of the first query."""
    terms = grid_of((v * gradient[:, :, :1]).sum((1, 3)), prefix_of(name))
    if similarity:
        one, others = (part.transpose(1, 2).flatten(2) for part in (q[:, :, :1], k))
        cosine = (one * others).sum(2) / (one.norm(dim=2) * others.norm(dim=2))
        cosine = grid_of(cosine, prefix_of(name))
        least, most = (edge.reshape(-1, 1, 1) for edge in (cosine.amin((1, 2)), cosine.amax((1, 2))))
        terms = terms * (cosine - least) / (most - least)
    return terms.clamp(min=0)
