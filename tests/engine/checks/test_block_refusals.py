"""What methods of blocks refuse, and the reasons they give."""

import pytest
import torch
from networks import (
    Block,
    Compared,
    Looking,
    Stacked,
    explainer,
    named,
    pictures,
    same,
    small,
    untouched,
)
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from transformer_blocks import NEW, OF_BLOCKS
from vision_transformers import SIZE, timm_vit

from camcli import Explainer, RequestError


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


@pytest.mark.parametrize("method", ["clip-surgery", "m2ib"])
def test_clip_surgery_and_m2ib_need_prompts(method):
    said = refuses(timm_vit(), method, "compares an image with prompts, and this network has none")
    assert "--text" in said.hint
    network = explainer(Compared(), method).network
    for options in ({"score": "probability"}, {"counterfactual": True}):
        with pytest.raises(RequestError, match="supports --score logit only"):
            Explainer(network, method=method, **options)


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
    with pytest.raises(RequestError, match=r"one token after the last attention, and this network's reads none"):
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
        ("m2ib", {"depth": 0}, "depth is 0, and the network has 2 blocks"),
        ("m2ib", {"depth": 3}, "depth is 3, and the network has 2 blocks"),
        ("rollout", {"discard": 1.0}, "discard is 1"),
    ):
        with pytest.raises(RequestError, match=message):
            Explainer(network, method=method, options=options).check(pictures(1, 16))
