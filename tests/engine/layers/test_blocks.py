"""Blocks of transformers: found by where attention runs, and each run again by itself."""

from functools import partial

import pytest
import torch
from networks import (
    Block,
    Stacked,
    pictures,
    same,
    untouched,
)
from timm.models.vision_transformer import ResPostBlock
from torch import nn
from transformer_blocks import NEW
from vision_transformers import MODELS, SIZE, timm_vit

from camcli import Explainer, RequestError
from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.state import frozen
from camcli.engine.hooks.watch import capture_input, module_stack
from camcli.engine.layers.blocks import attention_update, find_blocks, module_after_attention, record_blocks

every_model = pytest.mark.parametrize("name", MODELS)


def met(model, images):
    """The attentions of a forward, with the modules that were at work."""
    with (
        frozen(model),
        module_stack(model) as running,
        AttentionCapture(len(images), module_stack=running) as capture,
    ):
        model(images)
    assert running == []
    return capture.attentions


def called(model, blocks, images):
    with frozen(model), torch.no_grad(), record_blocks(blocks) as calls, AttentionCapture(len(images), graph_from=-1):
        model(images)
    return calls


# ---- found, and run again


@every_model
def test_the_block_of_each_attention_is_found(name):
    model, images = MODELS[name][0](), pictures(2, SIZE)
    with untouched(model):
        blocks = find_blocks(met(model, images))
    names = {module: name for name, module in model.named_modules()}
    stem = {"open_clip": "transformer.resblocks.{}", "torchvision": "encoder.layers.encoder_layer_{}"}
    assert [names[block] for block in blocks] == [stem.get(name, "blocks.{}").format(number) for number in range(3)]


def test_nested_groups_of_blocks_are_no_blocks():
    class Deep(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Sequential(Block(), Block()), nn.Sequential(Block(), nn.Sequential(Block())))

    model = Deep()
    blocks = find_blocks(met(model, pictures(2, 6)[:, 0]))
    assert blocks == [model[0][0], model[0][1], model[1][0], model[1][1]]


@every_model
def test_a_block_run_again_hands_on_the_same_and_has_its_addition(name):
    model, images = MODELS[name][0](), pictures(2, SIZE)
    blocks = find_blocks(met(model, images))
    calls = called(model, blocks, images)
    for block in blocks:
        call = calls[block]
        with untouched(model), frozen(model), AttentionCapture(2, graph_from=-1):
            assert torch.equal(call.run(block), call.output)
        if name == "timm parallel mlp":
            with pytest.raises(RequestError, match="in a ParallelScalingBlock no module takes"):
                module_after_attention(block, call)
            continue
        with untouched(model), frozen(model):
            behind = module_after_attention(block, call)
            own = attention_update(block, behind, call, lambda values: values)
        assert type(behind) is nn.LayerNorm or "LayerNorm" in type(behind).__name__
        # Told what it says anyhow, attention adds what it adds.
        [weights] = [one.weights for one in met(model, images) if block in one.module_stack]
        with frozen(model):
            left = call.tokens + attention_update(block, behind, call, partial(torch.matmul, weights))
            torch.testing.assert_close(left, capture_input(behind, partial(call.run, block)), rtol=1e-12, atol=1e-12)
        assert own.shape == call.tokens.shape
        assert not torch.allclose(own, left - call.tokens)


def test_what_is_handed_on_behind_attention_where_norms_come_last():
    # x + norm1(attention(x)), then x + norm2(mlp(x)): the MLP is what is handed the tokens in between.
    model, images = timm_vit(block_fn=ResPostBlock), pictures(1, SIZE)
    calls = called(model, list(model.blocks), images)
    for block in model.blocks:
        assert module_after_attention(block, calls[block]) is block.mlp
        x, attention = calls[block].tokens, block.attn
        values = attention.proj((x @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=-1)[2])
        own = attention_update(block, block.mlp, calls[block], lambda values: values)
        torch.testing.assert_close(own, block.norm1(values))


def test_what_a_block_is_handed_is_kept_as_it_was():
    class Careless(Block):
        def forward(self, tokens):
            return super().forward(tokens.add_(0.5))

    model, tokens = nn.Sequential(nn.Identity(), Careless()), pictures(1, 6)[:, 0]
    for copies in (False, True):
        with record_blocks([model[1]], copies) as calls:
            model(tokens.clone())
        assert calls[model[1]].changed is not copies
    torch.testing.assert_close(calls[model[1]].tokens, tokens)

    class Careful(Block):
        def forward(self, tokens):
            return super().forward(tokens + 0.5)

    for method in NEW[:3]:
        maps = []
        for kind in (Careless, Careful):
            network = Stacked()
            network.blocks = nn.Sequential(kind(), kind())
            [[one]] = Explainer(network, method=method)(pictures(1, 16), 1)
            maps.append(one)
        same(*maps)
