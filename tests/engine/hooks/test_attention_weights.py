"""Attention weights: equal to those worked out from the projections, by gradients to those of attention written out."""

import pytest
import torch
import torch.nn.functional as F
from networks import Small, Through, pictures, seeded, unruly, untouched
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from vision_transformers import MODELS, SIZE, attended, every_model, timm_vit, written_out

from camcli import RequestError
from camcli.engine.checks.attention_chain import check_attention_chain, list_notes
from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.state import frozen
from camcli.methods.attention import gae, rollout


@every_model
def test_weights_and_gradients_are_those_of_attention_written_out(name):
    if "parallel" in name:
        pytest.skip("its projections are one with the MLP's; timm's own attention written out stands in below")
    model, images = MODELS[name][0](), pictures(2, SIZE)
    met, scores, grads, _ = attended(model, images)
    other, kept = written_out(model)
    wanted = other(images)
    torch.testing.assert_close(scores, wanted, rtol=1e-10, atol=1e-10)
    by = torch.autograd.grad(wanted[:, 1].sum(), kept)
    assert len(met.attentions) == len(kept) == 3
    for one, grad, weights, gradient in zip(met.attentions, grads, kept, by, strict=True):
        assert one.weights.dtype == torch.float64
        torch.testing.assert_close(one.weights, weights.detach(), rtol=1e-10, atol=1e-12)
        assert gradient.abs().max() > 0
        torch.testing.assert_close(grad, gradient, rtol=1e-8, atol=1e-10 * float(gradient.abs().max()))
    check_attention_chain(met)


def test_fused_and_written_out_attention_of_timm_leave_the_same():
    for options in ({}, {"block_fn": ParallelScalingBlock}):
        fused, plain = (attended(timm_vit(fused=fused, **options), pictures(2, SIZE)) for fused in (True, False))
        for one, other in zip(fused[0].attentions, plain[0].attentions, strict=True):
            torch.testing.assert_close(one.weights, other.weights, rtol=1e-9, atol=1e-12)
        for one, other in zip(fused[2], plain[2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@every_model
def test_the_rows_that_the_score_reads(name):
    make, wanted = MODELS[name]
    met, _, _, grads = attended(make(), pictures(2, SIZE))
    for row in met.attentions[-1].find_used_rows(grads[-1]):
        assert row.nonzero().flatten().tolist() == wanted


def test_a_pooling_by_attention_is_read_by_its_queries():
    model = timm_vit(class_token=False, global_pool="map")
    met, _, grads, by = attended(model, pictures(2, SIZE))
    check_attention_chain(met)
    assert [tuple(one.weights.shape) for one in met.attentions] == [(2, 3, 16, 16)] * 3 + [(2, 3, 1, 16)]
    read = met.attentions[-1].find_used_rows(by[-1])
    assert read.tolist() == [[True], [True]]
    weights = [one.weights for one in met.attentions]
    rows = rollout(weights, lambda relevance: relevance)
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 1, dtype=torch.float64))
    torch.testing.assert_close(
        rows, weights[3].mean(1) @ rollout(weights[:3], lambda relevance: relevance), rtol=1e-12, atol=1e-12
    )
    assert gae(weights, grads, lambda relevance: relevance).shape == (2, 1, 16)


def test_shared_keys_and_masks_of_fused_attention():
    q, k, v = (pictures(2, SIZE, seed)[..., :6, :4].repeat(1, heads, 1, 1) for seed, heads in ((0, 2), (1, 1), (2, 1)))
    keep = torch.ones(6, 6, dtype=torch.bool).tril()
    bias = pictures(1, 6, seed=3)[:, :1]
    draw = pictures(2, 6, seed=4)[:, :1, :, :4]
    for options in (
        {"enable_gqa": True},
        {"enable_gqa": True, "is_causal": True},
        {"enable_gqa": True, "attn_mask": keep},
        {"enable_gqa": True, "attn_mask": bias, "scale": 0.3},
    ):
        with AttentionCapture(2) as met:
            out = F.scaled_dot_product_attention(q, k, v, **options)
        [one] = met.attentions
        assert one.weights.shape == (2, 6, 6, 6)
        torch.testing.assert_close(one.weights @ v.repeat_interleave(2, 1), out.detach())
        (grad,) = torch.autograd.grad((out * draw).sum(), [one.output])
        torch.testing.assert_close(
            one.gradient(grad), draw.expand_as(grad) @ v.repeat_interleave(2, 1).transpose(-2, -1)
        )


@pytest.mark.parametrize("options", [{}, {"kdim": 24, "vdim": 24}, {"bias": False}])
def test_multi_head_attention_with_masks_and_other_projections(options):
    module = seeded(nn.MultiheadAttention(24, 4, batch_first=True, **options))
    tokens = pictures(2, 24)[:, 0, :5]
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    wall = torch.ones(5, 5, dtype=torch.bool).triu(1)
    for masks in ({}, {"key_padding_mask": padding}, {"attn_mask": wall}, {"attn_mask": wall, "is_causal": True}):
        with AttentionCapture(2) as met:
            _, weights = module(tokens, tokens, tokens, average_attn_weights=False, **masks)
        torch.testing.assert_close(met.attentions[0].weights, weights.detach())
        assert met.attentions[0].output.shape == (5, 2, 24)


def test_turned_products_and_mixed_softmaxes():
    # As ConViT mixes two softmaxes, and as maps (n, heads, d, h w) have it.
    a, b, v = (pictures(2, 6, seed) for seed in range(3))

    def forward(x):
        weights = 0.25 * a.softmax(-1) + 0.75 * b.softmax(-1)
        weights /= weights.sum(-1).unsqueeze(-1)
        return x.transpose(-2, -1) @ weights.transpose(-2, -1)

    with AttentionCapture(2) as met:
        out = forward(v)
    [one] = met.attentions
    wanted = 0.25 * a.softmax(-1) + 0.75 * b.softmax(-1)
    torch.testing.assert_close(one.weights, wanted)
    (grad,) = torch.autograd.grad(out.square().sum(), [one.output])
    torch.testing.assert_close(one.gradient(grad), 2 * out.detach().transpose(-2, -1) @ v.transpose(-2, -1))


# ---- the model is left alone


@every_model
def test_the_result_is_the_same_to_the_bit(name):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model, images = MODELS[name][0]().to(dtype), pictures(2, SIZE).to(dtype)
        with frozen(model):
            # PyTorch chooses the path of nn.MultiheadAttention by whether there are gradients, and parts of it by
            # whether the parameters take some; so the comparison has them where the capture has.
            plain = model(images.clone().requires_grad_())
        for options in ({}, {"with_values": False, "graph_from": 2}, {"graph_from": -1}):
            with untouched(model), frozen(model), AttentionCapture(2, **options) as met:
                assert torch.equal(model(images), plain)
            assert len(met.attentions) == 3


@every_model
def test_a_batch_is_its_singles(name):
    model, images = MODELS[name][0](), pictures(3, SIZE)
    met, _, grads, _ = attended(model, images)
    for row in range(3):
        alone, _, single, _ = attended(model, images[row : row + 1])
        for one, other, a, b in zip(met.attentions, alone.attentions, grads, single, strict=True):
            torch.testing.assert_close(one.weights[row : row + 1], other.weights, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(a[row : row + 1], b, rtol=1e-8, atol=1e-12)


@every_model
def test_everything_is_as_it_was_after_an_exception(name):
    model = unruly(MODELS[name][0]())
    functions = vars(F).copy()
    last = [part for part in model.modules() if isinstance(part, nn.LayerNorm)][-1]
    handle = last.register_forward_hook(lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    with untouched(model), pytest.raises(ZeroDivisionError), frozen(model), AttentionCapture(1) as met:
        model(pictures(1, SIZE))
    handle.remove()
    assert len(met.attentions) == 3
    assert functions == vars(F)
    assert torch._C._len_torch_function_stack() == 0


@every_model
def test_bfloat16_gives_the_weights_of_float32(name):
    model, images = MODELS[name][0]().float(), pictures(1, SIZE).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    exact, _, exact_grads, _ = attended(model, images)
    rough, _, grads, _ = attended(model.bfloat16(), images.bfloat16())
    for one, other, a, b in zip(rough.attentions, exact.attentions, grads, exact_grads, strict=True):
        assert one.weights.dtype == a.dtype == torch.float32
        for mine, wanted in ((one.weights, other.weights), (a, b)):
            assert torch.corrcoef(torch.stack([mine.flatten(), wanted.flatten()]))[0, 1] > 0.99


def test_only_what_is_asked_is_kept():
    model, images = timm_vit(), pictures(1, SIZE)
    with frozen(model), AttentionCapture(1, with_values=False, graph_from=2) as met:
        model(images)
    assert [one.output is None for one in met.attentions] == [True, True, False]
    assert all(one.values is None for one in met.attentions)
    # Nothing before the last attention is in the graph.
    assert met.attentions[2].output.grad_fn is None


# ---- refusals


def checked(forward, images):
    with torch.enable_grad(), AttentionCapture(len(images)) as met:
        forward(images)
    check_attention_chain(met)


def look(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def refused():
    def windows(x):
        w = x.reshape(-1, 3, 4, 8)
        return look(w, w, w)

    def side_by_side(x):
        return look(x, x, x) - look(2 * x, x, x)

    many = seeded(nn.MultiheadAttention(8, 2, batch_first=True))
    return {
        "with windows or heads in the batch dimension": lambda x: x.flatten(0, 1).softmax(-1) @ x.flatten(0, 1),
        r"attention in windows \(3 of them for 1 image\)": lambda x: many(x[0], x[0], x[0])[0],
        "no attention was found in it": Small(),
        r"attention in windows \(weights of shape 2x3x4x4 for 1 image\)": windows,
        r"with a reduced number of keys \(8 queries, 4 keys\)": lambda x: look(
            look(x, x[:, :, ::2], x[:, :, ::2]), x, x
        ),
        r"reduces the number of tokens \(4 queries, 8 keys\)": lambda x: look(look(x[:, :, ::2], x, x), x, x),
        "only attention is a pooling": lambda x: look(x[:, :, :1], x, x),
        r"class attention or pooling \(1 query, 9 keys\), and not over the 8 tokens of": lambda x: look(
            x[:, :, :1], *[torch.cat([x[:, :, :1], look(x, x, x)], 2)] * 2
        ),
        r"changes between its attentions \(8, 4\)": lambda x: look(*[look(x, x, x)[:, :, ::2].clone()] * 3),
        "attentions 1 and 2 are parallel": side_by_side,
        "changed after the softmax": lambda x: ((x @ x.transpose(-2, -1)).softmax(-1) * 2) @ x,
        "whose use could not be traced": lambda x: torch.einsum(
            "nhqk,nhkd->nhqd", (x @ x.transpose(-2, -1)).softmax(-1), look(x, x, x)
        ),
        "over parts of the image": lambda x: look(*[x.unsqueeze(2)] * 3),
    }


@pytest.mark.parametrize("reason", refused())
def test_what_cannot_be_followed_is_refused_with_the_reason(reason):
    with pytest.raises(RequestError, match=reason) as raised:
        checked(refused()[reason], pictures(1, 8))
    assert raised.value.message.startswith("attention cannot be followed through this network: ")
    assert "choose a method" in raised.value.hint


def test_a_multi_head_attention_with_keys_of_its_own_is_refused():
    module = seeded(nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True))
    with pytest.raises(RequestError, match="extra keys besides the tokens'"):
        checked(lambda x: module(x, x, x)[0], pictures(1, 8)[:, 0])


def test_convolutions_between_attentions_are_remarked():
    inside = seeded(nn.Conv2d(3, 3, 3, padding=1))
    before = seeded(nn.Conv2d(3, 3, 1))
    with AttentionCapture(1) as met:
        x = inside(pictures(1, 8))
        x = look(x, x, x)
        x = before(inside(x))
        inside(look(x, x, x))
    check_attention_chain(met)
    [remark] = list_notes(met)
    assert remark.startswith("1 convolution between the attentions also mix neighbouring")


def test_attention_inside_a_module_that_is_a_function():
    met, *_ = attended(Through(lambda x: look(x, x, x).mean((2, 3))), pictures(2, 8))
    assert met.token_count == 8
