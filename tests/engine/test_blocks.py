"""Blocks: found by where attention runs, each run again by itself, and what is refused of them."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import (
    Block,
    Compared,
    Looking,
    Small,
    Stacked,
    explainer,
    named,
    pictures,
    same,
    seeded,
    small,
    untouched,
)
from test_attention import MODELS, SIZE, open_clip_vit, timm_vit
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from torch import nn

from camcli import Explainer, PictureError, RequestError
from camcli.engine.hooks.attention import AttentionCapture
from camcli.engine.hooks.attention_override import AttentionOverride
from camcli.engine.hooks.state import frozen, swap_buffer
from camcli.engine.hooks.watch import capture_input, module_stack
from camcli.engine.layers.blocks import attention_update, find_blocks, module_after_attention, record_blocks

NEW = ["legrad", "grad-eclip", "maskclip", "clip-surgery"]
# What needs blocks, but for what needs prompts too.
OF_BLOCKS = pytest.mark.parametrize("method", ["legrad", "maskclip"])
every_model = pytest.mark.parametrize("name", MODELS)


def counted(module):
    """The numbers of images that the module's own code is run on, in a list that grows."""
    runs = []

    class Counted(type(module)):
        def forward(self, given):
            runs.append(len(given))
            return super().forward(given)

    module.__class__ = Counted
    return runs


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


# ---- attention by a rule


@pytest.mark.parametrize("written_out", [False, True])
def test_a_rule_stands_in_the_place_of_attention(written_out):
    q, k, v = (pictures(2, 6, seed) for seed in range(3))
    given = pictures(2, 6, seed=3)

    def look(q, k, v):
        if written_out:
            return (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return F.scaled_dot_product_attention(q, k, v)

    for rule, wanted in ((lambda values: 2 * values, 2 * v), (given, given)):
        with AttentionOverride(rule) as ruled:
            assert torch.equal(look(q, k, v), wanted)
        assert ruled.count == 1
    with AttentionOverride(lambda values: 2 * values):
        assert torch.equal(look(q[:, 0], k[:, 0], v[:, 0]), 2 * v[:, 0])
    # Shared values for each head, and of half precision what the network goes on in.
    with AttentionOverride(lambda values: values.float()):
        found = F.scaled_dot_product_attention(q.bfloat16(), k[:, :1].bfloat16(), v[:, :1].bfloat16(), enable_gqa=True)
    assert torch.equal(found, v[:, :1].bfloat16().expand(-1, 3, -1, -1))


@pytest.mark.parametrize("options", [{}, {"kdim": 24, "vdim": 24}, {"bias": False}])
def test_a_rule_in_multi_head_attention(options):
    module = seeded(nn.MultiheadAttention(24, 4, batch_first=True, **options))
    tokens = pictures(2, 24)[:, 0, :5]
    with AttentionCapture(2) as met:
        _, weights = module(tokens, tokens, tokens, average_attn_weights=False)
    with AttentionOverride(lambda values: weights @ values):
        said, others = module(tokens, tokens, tokens)
    torch.testing.assert_close(said, module(tokens, tokens, tokens)[0])
    torch.testing.assert_close(others, weights.mean(1))
    with AttentionOverride(lambda values: values):
        said, others = module(tokens, tokens, tokens, need_weights=False)
    assert others is None
    torch.testing.assert_close(said, module.out_proj(met.attentions[0].values.transpose(1, 2).flatten(2)))


def test_queries_and_keys_are_seen_where_attention_is_written_out():
    q, k, v = (pictures(2, 6, seed) for seed in range(3))
    bias = pictures(1, 6, seed=3)
    forms = {
        "plain": lambda: (q @ k.transpose(-2, -1)).softmax(-1) @ v,
        "scaled and masked": lambda: torch.matmul(0.3 * q, k.mT).add(bias).softmax(-1).clone() @ v,
        "one head": lambda: torch.bmm(torch.bmm(q[:, 0], k[:, 0].mT).softmax(-1), v[:, 0]),
        "in place": lambda: (q @ k.mT).mul_(0.5).softmax(-1) @ v,
    }
    for form, forward in forms.items():
        with AttentionCapture(2, with_queries=True) as capture:
            forward()
        [one] = capture.attentions
        heads = 1 if form == "one head" else 3
        cosine = F.cosine_similarity(one.queries, q[:, :heads], dim=-1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))
        assert torch.equal(one.keys, k[:, :heads])


def test_queries_and_keys_of_two_products_or_turned_ones_are_none():
    q, k, v = (pictures(2, 6, seed) for seed in range(3))
    forms = (
        lambda: (q @ k.mT + q @ v.mT).softmax(-1) @ v,
        lambda: (k @ q.mT).mT.softmax(-1) @ v,
        lambda: (q @ k.mT).softmax(-1).add((k @ q.mT).softmax(-1)) @ v,
    )
    for forward in forms:
        with AttentionCapture(2, with_queries=True) as capture:
            forward()
        assert capture.attentions[0].queries is None


def test_a_buffer_is_lent_and_comes_back():
    model = Small()
    own = model.norm1.running_mean
    with untouched(model), pytest.raises(ZeroDivisionError), swap_buffer(model.norm1, "running_mean", torch.ones(5)):
        assert model.norm1.running_mean.sum() == 5
        raise ZeroDivisionError
    assert model.norm1.running_mean is own


# ---- through the explainer


@pytest.mark.parametrize("method", NEW)
def test_a_batch_is_its_singles_and_classes_stand_one_behind_the_other(method):
    model, images = small(method), pictures(3, 16)
    asked = [[0, 3], [1], [2, 3]]
    explain = explainer(model, method)
    explain.setup.runner.batch_size = 2
    together = explain.results(images, lambda row, scores: asked[row])
    for row, classes in enumerate(asked):
        for one, index in zip(together[row], classes, strict=True):
            [alone] = explainer(model, method).results(images[row : row + 1], lambda _, scores, index=index: [index])[0]
            if isinstance(one, PictureError):
                assert one.message == alone.message
            else:
                same(one, alone)


def test_several_methods_share_a_forward_and_have_the_maps_that_each_has_alone():
    model, images = Compared(), pictures(2, 16)
    runs = counted(model.conv1)
    explain = explainer(model, "gae")
    explain = Explainer(explain.network, method=[*NEW, "gae", "rollout", "gradcam", "scorecam"], layers=["conv2"])
    explain(images, 1)
    runs.clear()
    found = explain(images, 1)
    # Beside the one forward those of Score-CAM: of six channels and a grey image of two images, eight at a time.
    assert runs == [2, 8, 6]
    for row in range(2):
        for one in found[row]:
            alone = Explainer(explain.network, method=one.method, layers=["conv2"] if one.layer else [])(images, 1)[
                row
            ][0]
            same(one, alone)


def test_what_runs_again_for_several_prompts_runs_once():
    model, images = Compared(), pictures(2, 16)
    explain = Explainer(explainer(model, "gae").network, method=["maskclip", "clip-surgery"])
    runs = counted(model.blocks[0])
    explain(images, 1)
    runs.clear()
    explain(images, [[0, 1, 2, 3]] * 2)
    # The forward, and the path of CLIP Surgery.
    assert runs == [2, 2]


@pytest.mark.parametrize("method", NEW)
def test_an_error_in_the_end_leaves_everything_as_it_was(method):
    model, images = small(method), pictures(2, 16)
    explain = explainer(model, method)
    explain(images, 1)
    turns = []

    def fail(*_):
        turns.append(1)
        if len(turns) == 2:  # the first is the forward itself
            raise ZeroDivisionError

    last = model.blocks[1].mlp
    handle = last.register_forward_pre_hook(fail)
    with untouched(model):
        if method == "grad-eclip":
            explain(images, 1)
        else:
            with pytest.raises(ZeroDivisionError):
                explain(images, 1)
    handle.remove()
    assert torch._C._len_torch_function_stack() == 0
    explain(images, 1)


@pytest.mark.parametrize("method", NEW)
def test_bfloat16_gives_nearly_the_maps_of_float32(method):
    tower, images = open_clip_vit(), pictures(2, SIZE)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.mul_(0.5)
    maps = []
    for dtype in (torch.float32, torch.bfloat16):
        model = Prompts(tower).to(dtype)
        network = named(model, 3, SIZE, prefix=1, grid=(4, 4), cosine=(2.0, 0.0))
        maps.append(np.stack([one.map for [one] in Explainer(network, method=method)(images.to(dtype), 1)]))
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.98


class Prompts(nn.Module):
    """A tower, and twice the cosines of what it says with three directions."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower
        self.register_buffer("directions", F.normalize(pictures(1, 5)[0, 0, :3], dim=1))

    def forward(self, images):
        return 2 * F.normalize(self.tower(images), dim=1) @ self.directions.T


@pytest.mark.parametrize("method", NEW)
def test_other_sizes_and_mirrored_pictures(method):
    network = explainer(small(method), method).network or small(method)
    explain = Explainer(network, method=method, scales=[1.0, 1.5], flips=["flip"])
    images = pictures(1, 16)
    [[one]] = explain(images, 1)
    assert one.map.shape == (8, 8)
    assert any("24x24" in note for note in explain.notes)


@OF_BLOCKS
def test_an_end_that_cannot_be_run_alone_is_run_with_all_before_it(method):
    class Batched(Stacked):
        """What its first module gives does not go by images, and is used behind the blocks."""

        def __init__(self):
            super().__init__()
            self.table = seeded(nn.Conv2d(3, 6, 1))

        def forward(self, x):
            scale = self.table(torch.ones(1, 3, 1, 1, dtype=x.dtype)).reshape(6)
            return self.fc(self.feature(x) * scale)

    class Known(Batched):
        def forward(self, x):
            return self.fc(self.feature(x) * (self.table.weight.sum(1).flatten() + self.table.bias))

    images = pictures(2, 16)
    explain, other = Explainer(Batched(), method=method), Explainer(Known(), method=method)
    for [one], [wanted] in zip(explain(images, 1), other(images, 1), strict=True):
        same(one, wanted)
    words = "the whole network runs for each of its evaluations"
    assert [any(words in note for note in one.notes) for one in (explain, other)] == [True, False]


# ---- what is refused


def refuses(model, method, message, images=None, **options):
    with untouched(model), pytest.raises(RequestError, match=message) as raised:
        Explainer(model, method=method, **options)(pictures(1, SIZE) if images is None else images, 0)
    assert raised.value.hint
    return raised.value


@OF_BLOCKS
def test_attentions_in_one_module_are_refused(method):
    message = "cannot be run separately: its attention 1 is computed by Looking, which computes others too"
    refuses(Looking(), method, message, pictures(1, 16))


@OF_BLOCKS
def test_one_attention_alone_that_is_no_pooling_is_refused(method):
    refuses(timm_vit(depth=1), method, "it has a single attention, so it is unknown which")


def test_an_mlp_beside_attention_is_refused_where_it_must_be_left_out():
    model = timm_vit(block_fn=ParallelScalingBlock)
    refuses(model, "maskclip", "in a ParallelScalingBlock no module takes the tokens right after attention is added")
    assert Explainer(model, method="legrad")(pictures(1, SIZE), 0)


@OF_BLOCKS
def test_a_block_that_does_not_repeat_itself_is_refused(method):
    class Counting(Block):
        runs = 0

        def forward(self, tokens):
            self.runs += 1
            return super().forward(tokens) + 0.1 * self.runs

    class Restless(Stacked):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(Block(), Counting())

    message = "rerun on the same tokens, a Counting returns different ones"
    with pytest.raises(RequestError, match=message):
        Explainer(Restless(), method=method)(pictures(1, 16), 0)


@OF_BLOCKS
def test_tokens_that_change_their_form_are_refused(method):
    class Wider(Block):
        def forward(self, tokens):
            return super().forward(torch.cat([tokens, tokens], 2))

    class Widening(Stacked):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(Block(), Wider())

        def forward(self, x):
            return self.fc(self.feature(x)[:, :6])

    refuses(Widening(), method, r"have several shapes \(1x65x6 and 1x65x12\)", pictures(1, 16))


def test_tokens_that_the_end_tells_by_their_places_have_no_score_of_their_own():
    class Placed(Stacked):
        def __init__(self, places):
            super().__init__()
            self.places = places

        def forward(self, x):
            tokens = self.feature(x, whole=True)
            weights = torch.arange(1.0, tokens.shape[1] + 1, dtype=tokens.dtype)[:, None]
            return self.fc((tokens * weights).sum(1) / (weights.sum() if self.places else 1))

        def feature(self, x, whole=False):
            x = self.pool(self.relu1(self.norm1(self.conv1(x))))
            cells = self.relu2(self.conv2(x)).flatten(2).transpose(1, 2)
            return self.blocks(cells - cells.mean(1, keepdim=True))

    refuses(
        Placed(places=False),
        "maskclip",
        "needs the score of each single token, and the part of the network after its blocks depends on token positions",
        pictures(1, 16),
    )
    # A weighted mean of copies is the token itself.
    assert Explainer(Placed(places=True), method="maskclip")(pictures(1, 16), 0)


def test_an_end_that_takes_as_many_tokens_as_ever_is_handed_as_many_copies():
    class Whole(Stacked):
        def forward(self, x):
            tokens = self.blocks(self.tokens(x))
            assert tokens.shape[1] == 65
            return self.fc(tokens[:, 0])

        def tokens(self, x):
            x = self.pool(self.relu1(self.norm1(self.conv1(x))))
            cells = self.relu2(self.conv2(x)).flatten(2).transpose(1, 2)
            cells = cells - cells.mean(1, keepdim=True)
            return torch.cat([cells.amax(1, keepdim=True), cells], 1)

    [[one]] = Explainer(Whole(), method="maskclip")(pictures(1, 16), 1)
    [[other]] = Explainer(Stacked(), method="maskclip")(pictures(1, 16), 1)
    same(one, other)


def test_clip_surgery_needs_prompts():
    said = refuses(timm_vit(), "clip-surgery", "compares an image with prompts, and this network has none")
    assert "--text" in said.hint
    network = explainer(Compared(), "clip-surgery").network
    for options in ({"score": "probability"}, {"counterfactual": True}):
        with pytest.raises(RequestError, match="supports --score logit only"):
            Explainer(network, method="clip-surgery", **options)


def test_clip_surgery_of_one_prompt_needs_the_empty_one():
    model = Compared(classes=1)
    with untouched(model), pytest.raises(RequestError, match="cannot embed the empty prompt") as raised:
        explainer(model, "clip-surgery")(pictures(1, 16), 0)
    assert "--text 'a cat' --text 'a dog'" in raised.value.hint


def test_scores_that_a_wrapper_changes_are_no_cosines():
    model = Compared()
    network = named(nn.Sequential(model, Through10()), 4, cosine=Compared.COSINE)
    with pytest.raises(RequestError, match="the model's scores are not computed from any"):
        Explainer(network, method="clip-surgery")(pictures(1, 16), 0)


class Through10(nn.Module):
    def forward(self, scores):
        return 10 * scores


@pytest.mark.parametrize("method", NEW)
def test_a_group_is_refused_where_parts_run_again(method):
    network = explainer(Compared(), method).network
    if method == "grad-eclip":
        Explainer(network, method=method, group=True)
        return
    with pytest.raises(RequestError, match=f"{method} reruns parts of the network"):
        Explainer(network, method=method, group=True)


@pytest.mark.parametrize("method", NEW)
def test_a_layer_means_nothing_to_it(method):
    with pytest.raises(RequestError, match="works with all attention of a network, and takes no layer"):
        Explainer(explainer(small(method), method).network or small(method), method=method, layers=["conv2"])


def test_where_no_gradient_reaches_the_last_attention_grad_eclip_says_so():
    model = Stacked()
    with torch.no_grad():
        model.fc.weight.zero_()
    with pytest.raises(RequestError, match=r"the one token that the score reads .*, and this network's reads none"):
        Explainer(model, method="grad-eclip")(pictures(1, 16), 0)


def test_grad_eclip_needs_queries_and_keys():
    class Relative(Block):
        def forward(self, tokens):
            logits = tokens @ tokens.mT + tokens @ (tokens + 1).mT
            return self.mlp(tokens + logits.softmax(-1) @ tokens) + tokens

    model = Stacked()
    model.blocks = nn.Sequential(Relative(), Relative())
    refuses(model, "grad-eclip", "the input of its softmax is not a product of two tensors", pictures(1, 16))


def test_options_that_cannot_be_are_said_before_the_first_picture():
    network = explainer(Compared(), "clip-surgery").network
    for method, options, message in (
        ("legrad", {"layers": -1}, "layers is -1"),
        ("clip-surgery", {"depth": 0}, "depth is 0"),
        ("rollout", {"discard": 1.0}, "discard is 1"),
    ):
        with pytest.raises(RequestError, match=message):
            Explainer(network, method=method, options=options).check(pictures(1, 16))
