"""Methods of blocks where the image tower is pooled by attention: as in their papers, written out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import named, pictures, seeded, untouched
from open_clip.modified_resnet import ModifiedResNet
from vision_transformers import SIZE
from written_out import NETWORKS, Pieces, attention_of, by_values, close, eclipsed, explained, outputs

from camcli import Explainer, Labels
from camcli.models.adapters.zero_shot import ZeroShotClassifier

NEW = ("legrad", "grad-eclip", "maskclip", "clip-surgery")


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
