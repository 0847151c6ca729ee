"""Attention methods through the explainer: no layer, the right tokens on the grid, the model left alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Small, Stacked, named, pictures, unruly, untouched
from vision_transformers import MODELS, SIZE, attended, timm_vit

from camcli import Explainer, PictureError, RequestError
from camcli.methods.attention import attention, gae, rollout
from camcli.models import load
from zoo import SMALLER, TIMM

METHODS = {"rollout": rollout, "gae": gae, "attention": attention}

every_method = pytest.mark.parametrize("method", METHODS)


def prefix(name):
    tokens = {"timm distilled": 2, "timm registers": 3, "timm mean": 0}
    return tokens.get(name, 1)


@every_method
@pytest.mark.parametrize("name", MODELS)
def test_the_map_is_the_mean_of_the_rows_that_the_score_reads(name, method):
    make, read = MODELS[name]
    model, images = make(), pictures(2, SIZE)
    met, _, grads, _ = attended(model, images, index=3)
    weights, kept = [one.weights for one in met.attentions], []

    def keep(relevance):
        kept.append(relevance)
        return relevance

    METHODS[method](*[weights, grads, keep] if method == "gae" else [weights, keep])
    wanted = kept[0][:, read, prefix(name) :].mean(1).reshape(2, 4, 4)
    explain = Explainer(named(model, 5, SIZE, prefix=prefix(name), grid=(4, 4)), method=method)
    with untouched(model):
        found = explain(images, 3)
    for [one], map in zip(found, wanted.numpy(), strict=True):
        assert (one.method, one.layer, one.map.shape) == (method, "", (4, 4))
        np.testing.assert_allclose(one.map, map, rtol=0, atol=1e-6 * np.abs(map).max())
    assert explain.grids == {"": (4, 4)}


@every_method
def test_a_batch_is_its_singles_and_classes_stand_one_behind_the_other(method):
    model, images = timm_vit(), pictures(3, SIZE)
    explain = Explainer(model, method=method)
    together = explain(images, [[0, 4], [1], [2, 3]])
    for row, classes in enumerate([[0, 4], [1], [2, 3]]):
        for one, index in zip(together[row], classes, strict=True):
            [[alone]] = explain(images[row : row + 1], index)
            np.testing.assert_allclose(one.map, alone.map, rtol=1e-6)
    first, second = together[0]
    assert np.array_equal(first.map, second.map) == (method != "gae")


def test_several_methods_share_a_forward():
    model, images = timm_vit(), pictures(1, SIZE)
    forwards = []
    explain = Explainer(model, method="gae,rollout,gradcam", layers=["blocks.1"])
    explain(images, 1)
    model.patch_embed.register_forward_hook(lambda *_: forwards.append(1))
    results = explain(images, 1)[0]
    assert [one.method for one in results] == ["gae", "rollout", "gradcam"]
    assert len(forwards) == 1
    [[alone]] = Explainer(model, method="rollout")(images, 1)
    np.testing.assert_array_equal(results[1].map, alone.map)


@every_method
def test_the_notes_say_what_was_used(method):
    for model, words in (
        (timm_vit(), "attention of 3 blocks is used, tokens 4x4 after 1 prefix; the score reads the token 0"),
        (MODELS["timm distilled"][0](), "the score reads the tokens 0, 1"),
        (timm_vit(class_token=False, global_pool="avg"), "16 of 16 tokens, the mean of whose rows is shown"),
        (timm_vit(class_token=False, global_pool="map"), "the score reads 1 query of the pooling after them"),
    ):
        explain = Explainer(model, method=method)
        explain(pictures(1, SIZE), 0)
        assert any(words in note for note in explain.notes), explain.notes


@every_method
def test_a_network_without_attention_is_refused_before_the_first_picture(method):
    with pytest.raises(RequestError, match="no attention was found in it"):
        Explainer(Small(), method=method)(pictures(1), 0)


@every_method
def test_attention_among_channels_is_refused(method):
    class Channels(Small):
        def forward(self, x):
            cells = self.conv2(self.pool(self.conv1(x))).flatten(2).unsqueeze(1)
            mixed = F.scaled_dot_product_attention(cells, cells, cells)
            return self.fc(mixed.squeeze(1).square().mean(2))

    with pytest.raises(RequestError, match="over 6 items that are not image patches"):
        Explainer(Channels(), method=method)(pictures(1, 16), 0)


@every_method
def test_a_class_that_reads_nothing_has_no_map(method):
    model = timm_vit()
    with torch.no_grad():
        model.head.weight[2] = 0
    with pytest.raises(PictureError, match=r"class 2 \(2\) is zero everywhere"):
        Explainer(model, method=method)(pictures(1, SIZE), 2)


@every_method
def test_an_unruly_model_is_left_as_it_was_also_after_an_error(method):
    model = unruly(timm_vit())
    with untouched(model):
        Explainer(model, method=method)(pictures(2, SIZE), 1)
    handle = model.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    with untouched(model), pytest.raises(ZeroDivisionError):
        Explainer(model, method=method)(pictures(2, SIZE), 1)
    handle.remove()
    assert torch._C._len_torch_function_stack() == 0


@every_method
def test_a_layer_means_nothing_to_it(method):
    with pytest.raises(RequestError, match="works with all attention of a network, and takes no layer"):
        Explainer(timm_vit(), method=method, layers=["blocks.1"])


def test_mirrored_images_give_maps_on_the_grid():
    [[one]] = Explainer(timm_vit(), method="gae", flips=["flip"])(pictures(1, SIZE), 1)
    assert one.map.shape == (4, 4)


@pytest.mark.parametrize("method", ["legrad", "maskclip", "grad-eclip", "gae"])
def test_a_margin_is_the_score_of_a_head_less_its_rival(method):
    """By hand: the score is linear in the head, so class 1 over class 2 is a class whose row is their difference."""
    images, model = pictures(2, 16), Stacked()
    found = Explainer(model, method=method, score="margin", versus=2)(images, 1)
    with torch.no_grad():
        model.fc.weight[1] -= model.fc.weight[2].clone()
        model.fc.bias[1] -= model.fc.bias[2].clone()
    for [one], [other] in zip(found, Explainer(model, method=method)(images, 1), strict=True):
        np.testing.assert_allclose(one.map, other.map, rtol=0, atol=1e-6 * np.abs(other.map).max())
    assert Explainer(model, method=method, score="margin")(images, 1)[0][0].map.any()


# Of the zoo, what has one chain of attention over all its tokens.
WORKING = {
    "beit", "cpubone", "deit", "efficientformer", "eva", "lowformer", "naflexvit",
    "vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos", "vitamin",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # timm's own, at building
@pytest.mark.parametrize("module", sorted(name for name, model in TIMM.items() if f"timm:{model}" not in SMALLER))
def test_every_module_of_timm_works_or_is_refused_with_a_reason(module):
    network = load.load(f"timm:{TIMM[module]}", weights="random")
    images = pictures(1, network.preprocess.size, dtype=torch.float32)
    with torch.no_grad():
        network.module(images)
    explain = Explainer(network, method="gae")
    with untouched(network.module):
        if module in WORKING:
            [[one]] = explain(images, 1)
            assert one.map.shape == explain.grids[""]
            assert np.ptp(one.map) > 0
        else:
            with pytest.raises(RequestError, match="attention cannot be followed through this network"):
                explain(images, 1)
