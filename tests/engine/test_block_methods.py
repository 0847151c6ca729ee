"""LeGrad, Grad-ECLIP, MaskCLIP and CLIP Surgery: by hand, and written out for each network."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import named, pictures, seeded, untouched
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer as Tower
from test_attention import MODELS, SIZE, timm_vit, written_out
from torchvision.models import VisionTransformer as TorchvisionTransformer

from camcli import Explainer, Labels, RequestError
from camcli.methods.attention import clip_surgery, grad_eclip, legrad, maskclip
from camcli.models.adapters.zero_shot import ZeroShotClassifier

NEW = ("legrad", "grad-eclip", "maskclip", "clip-surgery")
# Where the mean of the patches is read.
MEANS = ("timm mean", "timm mean beside a class token")


# ---- by hand

GRID = [[1.0, 2.0], [3.0, 4.0]]


def cells(numbers):
    """Four patches behind a class token."""
    return numbers[:, 1:].reshape(len(numbers), 2, 2)


def test_legrad_by_hand():
    # The last block: two heads, two queries, five tokens; of the second the negative counts as nothing.
    last = torch.tensor([[[[9.0, 4, 0, 0, -4], [9, 0, 0, 0, 0]], [[9, 0, 8, 0, -4], [9, 0, 0, 12, 0]]]])
    first = torch.tensor([[[[0.0, 0, 0, 0, 2]], [[0, 0, 0, 0, 6]]]])
    asked = []

    def stopped(pool):
        asked.append(pool)
        yield last
        yield first

    # Over four rows of the last block 1, 2, 3, 0; over two of the first 0, 0, 0, 4; the mean of both.
    assert legrad(stopped, cells).tolist() == [[[0.5, 1.0], [1.5, 2.0]]]
    assert legrad(stopped, cells, layers=1, pool="mean").tolist() == [[[1.0, 2.0], [3.0, 0.0]]]
    assert asked == ["head", "mean"]
    with pytest.raises(RequestError, match="layers is -1"):
        legrad(stopped, cells, layers=-1)


def test_grad_eclip_by_hand():
    # Two heads of one channel. Terms w v of the patches: 2 - 1, 0 - 2, 4 - 0, 2 - 0.
    value = torch.tensor([[[[7.0], [1], [0], [2], [1]], [[7.0], [1], [2], [0], [0]]]])
    told = torch.tensor([[[2.0], [-1.0]]])
    assert grad_eclip(told, value, value, told, cells, similarity=False).tolist() == [[[1.0, 0.0], [4.0, 2.0]]]
    # Queries along the first head; keys at cosines 1, 0, 0.6, 0.8 to it, the class token's -1 not counted.
    key = torch.tensor([[[[-1.0], [2], [0], [3], [4]], [[0.0], [0], [5], [4], [3]]]])
    found = grad_eclip(torch.tensor([[[3.0], [0.0]]]), key, value, told, cells)
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.0], [4 * 0.6, 2 * 0.8]]]))


def test_maskclip_by_hand():
    own = torch.arange(10.0).reshape(1, 5, 2)
    assert maskclip(own, lambda tokens: tokens[..., 0] - 6, cells).tolist() == [[[-4.0, -2.0], [0.0, 2.0]]]


def surgery(likeness, blank=None, cosines=None, index=0, **options):
    tokens = torch.zeros(1, 5, 3)
    rules = []

    def path(rule, depth):
        rules.append((rule, depth))
        return tokens

    cosines = torch.zeros(1, likeness.shape[2]) if cosines is None else cosines
    map = clip_surgery(path, lambda _: likeness, lambda _: blank, cosines, torch.tensor([index]), cells, **options)
    return map, rules[0]


def test_clip_surgery_by_hand():
    # The prompts at softmax 3/4 and 1/4, so that their shares are 3/2 and 1/2.
    cosines = torch.tensor([[math.log(3) / 2, 0.0]])
    likeness = torch.tensor([[[9.0, 9], [2, 2], [4, 0], [0, 4], [2, -2]]])
    # Weighted 3, 1; 6, 0; 0, 2; 3, -1. Less the mean of both: half their difference.
    wanted = torch.tensor([[[1.0, 3.0], [-1.0, 2.0]]])
    map, (rule, depth) = surgery(likeness, cosines=cosines)
    torch.testing.assert_close(map, wanted)
    torch.testing.assert_close(surgery(likeness, cosines=cosines, index=1)[0], -wanted)
    # A = softmax(v v^T / sqrt(d)) with v = (ln 2, 0), d = 1: weights (2^(ln 2), 1) / (2^(ln 2) + 1) and (1, 1) / 2.
    assert depth == 6
    two, square = math.log(2), 2 ** math.log(2)
    said = rule(torch.tensor([[[[two], [0.0]]]]))
    torch.testing.assert_close(said, torch.tensor([[[[two * square / (square + 1)], [two / 2]]]]))


def test_clip_surgery_of_one_prompt_by_hand():
    likeness = torch.tensor([[[9.0], [2], [4], [0], [2]]])
    blank = torch.tensor([[9.0, 1, 1, 1, 3]])
    assert surgery(likeness, blank, depth=2)[0].tolist() == [[[1.0, 3.0], [-1.0, -1.0]]]
    assert surgery(likeness, blank, depth=2)[1][1] == 2
    with pytest.raises(RequestError, match="depth is 0"):
        surgery(likeness, blank, depth=0)


def test_clip_surgery_of_pictures_with_prompts_of_their_own_by_hand():
    likeness = torch.tensor([[[9.0, 9, 5], [2, 2, 5], [4, 0, 5], [0, 4, 5], [2, -2, 5]]])
    third = torch.tensor([[math.log(3) / 2, 0.0, -torch.inf]])
    # As without the third prompt; and of the first alone as of one prompt.
    torch.testing.assert_close(surgery(likeness, cosines=third)[0], torch.tensor([[[1.0, 3.0], [-1.0, 2.0]]]))
    first = torch.tensor([[0.3, -torch.inf, -torch.inf]])
    blank = torch.tensor([[9.0, 1, 1, 1, 3]])
    assert surgery(likeness, blank, first)[0].tolist() == [[[1.0, 3.0], [-1.0, -1.0]]]


# ---- each network taken to pieces, its attention written out


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
EVERYDAY = {"timm registers", "open_clip", "open_clip pooled", "torchvision"}


def networks_and(*values):
    """Every network with each of the values; everyday four of them with the first, and one with all."""
    everyday = {(name, values[0]) for name in EVERYDAY} | {("open_clip", value) for value in values}
    return [
        pytest.param(name, value, marks=[] if (name, value) in everyday else pytest.mark.slow)
        for name in NETWORKS
        for value in values
    ]


every_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in EVERYDAY else pytest.mark.slow) for name in NETWORKS]
)


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


@pytest.mark.parametrize(("name", "pool"), networks_and("head", "mean"))
def test_legrad_is_its_paper_written_out(name, pool):
    model, images = NETWORKS[name](), pictures(2, SIZE)
    pooled = "pooled" in name
    if pooled and pool == "mean":
        with pytest.raises(RequestError, match="pools its tokens by attention"):
            explained(name, model, "legrad", images, labels=outputs(model), pool=pool)
        return
    other, kept = written_out(model)
    pieces = Pieces(other)
    found = []
    for last in range(3):
        tokens = pieces.embedded(images)
        for block in pieces.blocks[: last + 1]:
            tokens = block(tokens)
        if pool == "mean":
            tokens = tokens.mean(1, keepdim=True).expand_as(tokens)
        if pooled:
            # The pooling of timm by its own parts; that of open_clip is a module that was replaced.
            score, weights = pooled_score(model, tokens.detach())
        else:
            score, weights = pieces.head(tokens), kept[-1]
        (gradient,) = torch.autograd.grad(score[:, 1].sum(), weights)
        found.append(gradient.relu().mean((1, 2)))
    for layers in (0, 2):
        wanted = grid_of(torch.stack(found[-layers:]).mean(0), prefix_of(name))
        options = {"layers": layers, "pool": pool}
        close(explained(name, model, "legrad", images, labels=outputs(model), **options)[0], wanted)


def pooled_score(model, tokens):
    """The score of a network that pools by attention, and its weights in the graph."""
    if isinstance(model, Tower):
        pool = model.attn_pool
        query, key = pool.ln_q(pool.query).expand(len(tokens), -1, -1), pool.ln_k(tokens)
        biases = pool.attn.in_proj_bias.chunk(3)
        projections = (pool.attn.q_proj_weight, pool.attn.k_proj_weight, pool.attn.v_proj_weight)
        given, heads = (query, key, key), pool.attn.num_heads
        q, k, v = (x @ weight.T + bias for x, weight, bias in zip(given, projections, biases, strict=True))
    else:
        pool, tokens = model.attn_pool, model.norm(tokens)
        heads = pool.num_heads
        q, (k, v) = pool.q(pool.latent.expand(len(tokens), -1, -1)), pool.kv(tokens).chunk(2, dim=-1)
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    weights = attention_of(q, k).detach().requires_grad_()
    told = (weights @ v).transpose(1, 2).flatten(2)
    if isinstance(model, Tower):
        return model.ln_post(pool.attn.out_proj(told))[:, 0] @ model.proj, weights
    out = pool.proj(told)
    return model.head(model.fc_norm((out + pool.mlp(pool.norm(out)))[:, 0])), weights


@pytest.mark.parametrize(("name", "similarity"), networks_and(True, False))
def test_grad_eclip_is_its_paper_written_out(name, similarity):
    model, images = NETWORKS[name](), pictures(2, SIZE)
    reads = {"timm distilled": 2} | dict.fromkeys([*MEANS, "open_clip mean, scaled"], 16)
    if name in reads:
        with pytest.raises(
            RequestError, match=f"grad-eclip needs a score that reads one token .* this network's reads {reads[name]}"
        ):
            explained(name, model, "grad-eclip", images, labels=outputs(model))
        return
    if "pooled" in name:
        pytest.skip("see below")
    pieces = Pieces(model)
    *_, tokens, _ = pieces.handed(images)
    block = pieces.blocks[-1]
    q, k, v = (part.detach() for part in pieces.looked(block, tokens))
    told = (attention_of(q, k) @ v).requires_grad_()
    score = pieces.head(pieces.finished(block, tokens.detach() + pieces.added(block, told)))
    (gradient,) = torch.autograd.grad(score[:, 1].sum(), told)
    close(
        explained(name, model, "grad-eclip", images, similarity=similarity)[0],
        eclipsed(name, q, k, v, gradient, similarity),
    )


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


@every_network
def test_maskclip_is_its_paper_written_out(name):
    model, images = NETWORKS[name](), pictures(2, SIZE)
    pieces = Pieces(model)
    *_, tokens, behind = pieces.handed(images)
    block = pieces.blocks[-1]
    own = behind if "pooled" in name else pieces.added(block, pieces.looked(block, tokens)[2])
    wanted = grid_of(pieces.head_of_each(own)[..., 1].detach(), prefix_of(name))
    close(explained(name, model, "maskclip", images, labels=outputs(model))[0], wanted)


def prompted(model, prompts, scale=7.0, bias=-2.0):
    """A CLIP model of these prompts; its image tower gives as many features as they have."""
    vectors = F.normalize(pictures(1, (prompts + 1, outputs(model)), seed=8)[0, 0], dim=1)
    scale, bias = (torch.tensor(number, dtype=torch.float64) for number in (scale, bias))
    return ZeroShotClassifier(model, vectors[:prompts], scale, bias, vectors[prompts]).eval()


@pytest.mark.parametrize(("name", "prompts"), networks_and(3, 1))
def test_clip_surgery_is_its_paper_written_out(name, prompts):
    tower, images = NETWORKS[name](), pictures(2, SIZE)
    model, pieces = prompted(tower, prompts), Pieces(tower)
    handed = pieces.handed(images)
    for depth in (2, 6):
        path = handed[:-1][-depth:][0]
        for block, tokens in list(zip(pieces.blocks, handed, strict=False))[-depth:]:
            path = path + pieces.added(block, by_values(pieces.looked(block, tokens)[2]))
        features = F.normalize(pieces.head_of_each(path), dim=2)
        likeness = features @ model.prompts.T
        if prompts == 1:
            wanted = likeness[..., 0] - features @ model.blank
        else:
            whole = F.normalize(tower(images), dim=1) @ model.prompts.T
            shares = (2 * whole).softmax(1) * prompts
            weighted = likeness * shares[:, None]
            wanted = weighted[..., 2 % prompts] - weighted.mean(2)
        map, explain = explained(
            name, model, "clip-surgery", images, 2 % prompts, (7.0, -2.0), labels=prompts, depth=depth
        )
        close(map, grid_of(wanted.detach(), prefix_of(name)))
        assert any("attention of" in note for note in explain.notes)


def test_maskclip_of_prompts_is_the_cosine_without_the_bias():
    tower, images = NETWORKS["open_clip"](), pictures(2, SIZE)
    model, pieces = prompted(tower, 3), Pieces(tower)
    *_, tokens, _ = pieces.handed(images)
    own = pieces.added(pieces.blocks[-1], pieces.looked(pieces.blocks[-1], tokens)[2])
    wanted = 7 * F.normalize(pieces.head_of_each(own), dim=2) @ model.prompts[1]
    close(explained("open_clip", model, "maskclip", images, 1, (7.0, -2.0), labels=3)[0], grid_of(wanted.detach(), 1))


# ---- poolings by attention


@pytest.mark.parametrize("name", ["timm pooled", "open_clip pooled"])
def test_grad_eclip_of_a_pooling_is_its_paper_written_out(name):
    model, images = NETWORKS[name](), pictures(2, SIZE)
    *_, tokens = Pieces(model).handed(images)
    if name == "timm pooled":
        pool = model.attn_pool
        q = pool.q(pool.latent.expand(2, -1, -1))
        k, v = pool.kv(model.norm(tokens)).chunk(2, dim=-1)
        project = pool.proj
    else:
        pool = model.attn_pool
        biases = pool.attn.in_proj_bias.chunk(3)
        q = pool.ln_q(pool.query).expand(2, -1, -1) @ pool.attn.q_proj_weight.T + biases[0]
        k = pool.ln_k(tokens) @ pool.attn.k_proj_weight.T + biases[1]
        v = pool.ln_k(tokens) @ pool.attn.v_proj_weight.T + biases[2]
        project = pool.attn.out_proj
    q, k, v = (part.unflatten(2, (3 if "timm" in name else 8, -1)).transpose(1, 2).detach() for part in (q, k, v))
    told = (attention_of(q, k) @ v).requires_grad_()
    out = project(told.transpose(1, 2).flatten(2))
    if name == "timm pooled":
        score = model.head(model.fc_norm((out + pool.mlp(pool.norm(out)))[:, 0]))
    else:
        score = model.ln_post(out)[:, 0] @ model.proj
    for index in range(5):
        (gradient,) = torch.autograd.grad(score[:, index].sum(), told, retain_graph=True)
        wanted = eclipsed(name, q, k, v, gradient, similarity=True)
        if wanted.flatten(1).any(1).all():  # it speaks for this one in both images
            break
    close(explained(name, model, "grad-eclip", images, index, labels=outputs(model))[0], wanted)


def resnet():
    """CLIP's ResNet, with 2 x 2 cells before its pooling."""
    tower = seeded(ModifiedResNet([1, 1, 1, 1], 6, 4, image_size=64, width=4))
    return tower, prompted_by(tower, 3)


def prompted_by(tower, prompts):
    vectors = F.normalize(pictures(1, (prompts + 1, 6), seed=8)[0, 0], dim=1)
    one = torch.tensor(1.0, dtype=torch.float64)
    return ZeroShotClassifier(tower, vectors[:prompts], one, 0 * one, vectors[prompts]).eval()


def test_the_pooling_of_clips_resnet():
    tower, model = resnet()
    images = pictures(2, 64)
    maps = tower.stem(images)
    for layer in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
        maps = layer(maps)
    pool = tower.attnpool
    cells = maps.flatten(2).transpose(1, 2)
    tokens = torch.cat([cells.mean(1, keepdim=True), cells], 1) + pool.positional_embedding
    heads = [
        part(tokens).unflatten(2, (4, -1)).transpose(1, 2).detach() for part in (pool.q_proj, pool.k_proj, pool.v_proj)
    ]
    q, k, v = heads

    def score(told):
        return F.normalize(pool.c_proj(told.transpose(1, 2).flatten(2)), dim=-1) @ model.prompts.T

    def on_grid(numbers):
        return numbers[:, 1:].reshape(2, 2, 2).detach()

    weights = attention_of(q, k).requires_grad_()
    torch.testing.assert_close(score(weights @ v)[:, 0], model(images))
    (by_weights,) = torch.autograd.grad(score(weights @ v)[:, 0, 1].sum(), weights)
    told = (weights.detach() @ v).requires_grad_()
    (by_told,) = torch.autograd.grad(score(told)[:, 0, 1].sum(), told)
    one, others = (part.transpose(1, 2).flatten(2) for part in (q[:, :, :1], k))
    cosine = on_grid(F.cosine_similarity(one, others, dim=2))
    least, most = (edge.reshape(-1, 1, 1) for edge in (cosine.amin((1, 2)), cosine.amax((1, 2))))
    terms = on_grid((v * by_told[:, :, :1]).sum((1, 3)))
    whole = model(images)
    weighted = score(by_values(v)) * ((2 * whole).softmax(1) * 3)[:, None]
    wanted = {
        "legrad": on_grid(by_weights.relu().mean((1, 2))),
        "grad-eclip": (terms * (cosine - least) / (most - least)).relu(),
        "maskclip": on_grid(score(v)[..., 1]),
        "clip-surgery": on_grid(weighted[..., 1] - weighted.mean(2)),
    }
    network = replace(named(model, 3, 64, cosine=(1.0, 0.0)), labels=Labels.numbered(3))
    explain = Explainer(network, method=NEW, batch_size=3)
    with untouched(model):
        found = explain(images, 1)
    for row in range(2):
        for one in found[row]:
            close(torch.from_numpy(one.map).double(), wanted[one.method][row])
    assert explain.grids == {"": (2, 2)}
    assert any("tokens 2x2 after 1 prefix; the score reads the token 0" in note for note in explain.notes)
    for method in ("gae", "rollout", "attention"):
        [[one], _] = Explainer(network, method=method)(images, 1)
        assert one.map.shape == (2, 2)
