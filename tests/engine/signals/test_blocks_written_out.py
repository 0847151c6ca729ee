"""LeGrad, Grad-ECLIP, MaskCLIP, CLIP Surgery and M2IB: as in their papers, written out for each network."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import pictures
from open_clip.transformer import VisionTransformer as Tower
from vision_transformers import SIZE, written_out
from written_out import (
    NETWORKS,
    Pieces,
    attention_of,
    by_values,
    close,
    eclipsed,
    explained,
    grid_of,
    outputs,
    prefix_of,
)

from camcli import RequestError
from camcli.models.adapters.zero_shot import ZeroShotClassifier

# Where the mean of the patches is read.
MEANS = ("timm mean", "timm mean beside a class token")

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


@pytest.mark.parametrize(("name", "depth"), networks_and(2, 3))
def test_m2ib_is_its_paper_written_out(name, depth):
    tower, images, steps, samples = NETWORKS[name](), pictures(2, SIZE), 4, 3
    model, pieces = prompted(tower, 3), Pieces(tower)
    model.requires_grad_(False)
    tokens = pieces.handed(images)[-1 - depth].detach()
    alpha = torch.full_like(tokens, 5.0).requires_grad_()
    adam, draw = torch.optim.Adam([alpha], lr=1.0), torch.Generator().manual_seed(3)

    def information():
        kept = alpha.sigmoid()
        passed = torch.distributions.Normal(kept * tokens, 1 - kept)
        return torch.distributions.kl_divergence(passed, torch.distributions.Normal(0.0, 1.0))

    for _ in range(steps):
        cosines = []
        for _ in range(samples):
            noise = torch.randn(1, *tokens.shape[1:], generator=draw).double()
            blurred = alpha.sigmoid() * tokens + (1 - alpha.sigmoid()) * noise
            for block in pieces.blocks[-depth:]:
                blurred = block(blurred)
            cosines.append(F.normalize(pieces.head(blurred), dim=1) @ model.prompts[1])
        adam.zero_grad()
        (0.1 * information().mean((1, 2)) - torch.stack(cosines).mean(0)).sum().backward()
        adam.step()
    wanted = information().detach().sum(2) / math.log(2)
    options = {"depth": depth, "steps": steps, "samples": samples, "seed": 3}
    found, _ = explained(name, model, "m2ib", images, 1, (7.0, -2.0), labels=3, **options)
    close(found, grid_of(wanted, prefix_of(name)))
