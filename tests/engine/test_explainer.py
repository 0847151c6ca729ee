"""The explainer: whose map is whose, and that nothing leaves a trace."""

import functools

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from networks import Pooled, Small, Stacked, explainer, named, pictures, same, seeded, small, unruly, untouched
from torch import nn

from camcli import Explainer, Labels, PictureError
from camcli.methods import METHODS

every_method = pytest.mark.parametrize("method", METHODS.names())
of_classes = pytest.mark.parametrize("method", [row.name for row in METHODS.rows if row.kind != "concept"])


# ---- batches and targets


def own_choice(method):
    """No target, but for the method that shows a channel: it has to be told which."""
    return 1 if method == "activation" else None


@every_method
def test_a_batch_of_n_equals_n_singles(method):
    model, images = small(method), pictures(5, 16)
    explain = explainer(model, method)
    asked = own_choice(method)
    together = explain(images, asked)
    for row in range(5):
        [single] = explainer(model, method)(images[row : row + 1], asked)
        assert len(together[row]) == len(single) == 1
        same(together[row][0], single[0])
    # They are different images with different maps, unless they are all the same noise.
    assert (
        method == "random"
        or np.abs(together[0][0].map - together[1][0].map).max() > 0.01 * np.abs(together[0][0].map).max()
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_a_batch_of_n_equals_n_singles_on_real_architectures(name):
    size = {"test_vit": 160}.get(name, 64)
    model = seeded(timm.create_model(name))
    images = pictures(3, size)
    explain = Explainer(model)
    together = explain(images, [1, 2, 3])
    for row in range(3):
        [[single]] = Explainer(model)(images[row : row + 1], [row + 1])
        same(together[row][0], single)


def test_the_default_target_is_the_predicted_class():
    model, images = Small(), pictures(6, 16) * torch.linspace(0, 5, 6).reshape(6, 1, 1, 1)
    with torch.no_grad():
        model.fc.bias[2] += 1
    scores = model(images).detach()
    assert scores.argmax(1).unique().numel() > 1
    for [one], row in zip(explainer(model)(images), scores, strict=True):
        assert one.index == row.argmax()
        assert one.score == pytest.approx(row.max().item(), rel=1e-6)
        assert one.probability == pytest.approx(row.softmax(0).max().item(), rel=1e-6)


def test_each_image_has_its_own_target():
    model, images = Small(), pictures(3, 16)
    explain = explainer(model)
    found = explain(images, [2, 0, 3])
    assert [one.index for [one] in found] == [2, 0, 3]
    for [one], row in zip(found, range(3), strict=True):
        same(one, explain(images[row : row + 1], one.index)[0][0])
    assert [one.index for [one] in explain(images, 1)] == [1, 1, 1]


@of_classes
def test_several_targets_of_an_image_come_in_order_each_once(method):
    model, images = small(method), pictures(3, 16)
    explain = explainer(model, method)
    found = explain(images, [[3, 1, 3], [2], [0, 1, 2]])
    assert [[one.index for one in ones] for ones in found] == [[3, 1], [2], [0, 1, 2]]
    for row in range(3):
        for one in found[row]:
            same(one, explain(images[row : row + 1], one.index)[0][0])


def test_a_function_chooses_by_row_and_scores():
    model, images = Small(), pictures(2, 16)
    seen = []

    def choose(row, scores):
        seen.append((row, scores))
        return [int(scores.argmin())]

    found = explainer(model)(images, choose)
    scores = model(images).detach()
    assert [one.index for [one] in found] == scores.argmin(1).tolist()
    assert [row for row, _ in seen] == [0, 1]
    torch.testing.assert_close(torch.stack([row for _, row in seen]), scores.float())


def test_several_layers_come_in_order_for_each_class():
    model, images = Small(), pictures(2, 16)
    explain = Explainer(model, layers=["conv2", "relu1", "conv*"])
    assert explain.layers == ("conv2", "relu1", "conv1")
    found = explain(images, [[1, 2], [0]])
    assert [(one.index, one.layer) for one in found[0]] == [
        (1, "conv2"),
        (1, "relu1"),
        (1, "conv1"),
        (2, "conv2"),
        (2, "relu1"),
        (2, "conv1"),
    ]
    for row in range(2):
        for one in found[row]:
            same(one, Explainer(model, layers=[one.layer])(images[row : row + 1], one.index)[0][0])


def test_no_images_no_maps():
    assert explainer(Small())(pictures(0, 16)) == []


def test_images_of_another_size_are_read_anew():
    explain = explainer(Small())
    assert explain(pictures(1, 16))[0][0].map.shape == (8, 8)
    assert explain(pictures(1, (16, 32)))[0][0].map.shape == (8, 16)
    assert explain(pictures(1, 16))[0][0].map.shape == (8, 8)


# ---- Guided Grad-CAM is what it says


def test_guided_gradcam_is_the_product_of_its_parts():
    model, images = Small(), pictures(3, 16)
    product, guided, cam = (
        explainer(model, method)(images, [1, 2, 3]) for method in ("guided-gradcam", "guided-backprop", "gradcam")
    )
    for [whole], [fine], [coarse] in zip(product, guided, cam, strict=True):
        positive = torch.from_numpy(coarse.map).relu()[None, None]
        large = F.interpolate(positive, (16, 16), mode="bilinear", align_corners=False)[0].numpy()
        wanted = fine.map * large
        assert whole.map.shape == (3, 16, 16)
        assert np.abs(whole.map - wanted).max() <= 1e-6 * np.abs(wanted).max()
        # Some of the coarse map is negative, so that the rectifying shows.
        assert coarse.map.min() < 0 < coarse.map.max()
        assert (whole.layer, fine.layer) == ("conv2", "")


def test_one_forward_serves_both_parts_and_all_targets():
    class Counted(Small):
        runs = 0

        def forward(self, x):
            type(self).runs += 1
            return super().forward(x)

    model = Counted()
    explain = Explainer(model, layers=["conv2"], method="guided-gradcam")
    explain.check(pictures(1, 16))
    Counted.runs = 0
    explain(pictures(2, 16), [[0, 1, 2], [3]])
    assert Counted.runs == 1


# ---- nothing leaves a trace, and nothing around it matters


@every_method
def test_the_model_is_left_untouched(method):
    model = unruly(small(method))
    images = pictures(2, 16)
    before = images.clone()
    with untouched(model):
        explainer(model, method)(images, [[0, 1], [2, 3]])
        explainer(model, method, ())(images, own_choice(method))
    assert torch.equal(images, before)
    assert images.grad is None


@every_method
@pytest.mark.parametrize("where", ["forward", "choose", "formula", "interrupt"])
def test_the_model_is_left_untouched_after_an_error_inside(method, where, monkeypatch):
    if where == "choose" and METHODS.find(method).kind == "concept":
        pytest.skip("it explains no class")
    model = unruly(small(method))
    error = KeyboardInterrupt if where == "interrupt" else ZeroDivisionError

    def fail(*args, **more):
        raise error("inside")

    choose = fail if where == "choose" else own_choice(method)
    if where in ("forward", "interrupt"):
        model.relu2.register_forward_pre_hook(fail)
    if where == "formula":
        load = METHODS.load
        monkeypatch.setattr(METHODS, "load", lambda name: functools.wraps(load(name))(fail))
    with untouched(model), pytest.raises(error, match="inside"):
        explainer(model, method)(pictures(2, 16), choose)


@every_method
@pytest.mark.parametrize(
    "around",
    [torch.no_grad, pytest.param(torch.inference_mode, marks=pytest.mark.slow)],
    ids=["no_grad", "inference_mode"],
)
@pytest.mark.parametrize(
    "layers", [("conv2",), pytest.param((), marks=pytest.mark.slow)], ids=["layer named", "default layer"]
)
def test_it_works_where_gradients_are_switched_off(method, around, layers):
    model = small(method)
    [[wanted]] = explainer(model, method, layers)(pictures(1, 16), 1)
    with around():
        images = pictures(1, 16)
        [[one]] = explainer(model, method, layers)(images, 1)
        assert not torch.is_grad_enabled()
    same(one, wanted)


def test_a_reason_stands_where_its_map_would():
    explain = Explainer(named(small("gradcam"), 4), layers=["conv2", "conv1"], score="margin", versus=(1,))
    [some] = explain.results(pictures(1, 16), lambda row, scores: [0, 1, 2])
    assert [None if isinstance(one, PictureError) else (one.index, one.layer) for one in some] == [
        (0, "conv2"),
        (0, "conv1"),
        None,
        (2, "conv2"),
        (2, "conv1"),
    ]


@every_method
def test_frozen_parameters_and_train_mode_change_nothing(method):
    model = small(method)
    [[wanted]] = explainer(model, method)(pictures(1, 16), 1)
    model.requires_grad_(False)
    same(explainer(model, method)(pictures(1, 16), 1)[0][0], wanted)
    model.requires_grad_(True)
    model.train()
    same(explainer(model, method)(pictures(1, 16), 1)[0][0], wanted)
    assert model.training


@every_method
def test_images_that_require_gradients_get_none(method):
    images = pictures(1, 16).requires_grad_()
    [[one]] = explainer(small(method), method)(images, 1)
    same(one, explainer(small(method), method)(images.detach(), 1)[0][0])
    assert images.grad is None


def test_a_bare_module_and_a_network_differ_only_in_names():
    model, images = Small(), pictures(2, 16)
    bare = explainer(model)(images, [0, 3])
    whole = explainer(named(model, 4, 16))(images, [0, 3])
    for [one], [other] in zip(bare, whole, strict=True):
        np.testing.assert_array_equal(one.map, other.map)
        assert (other.index, other.score, other.probability) == (one.index, one.score, one.probability)
    assert [one.label for [one] in bare] == ["0", "3"]
    assert [one.label for [one] in whole] == ["thing 0", "thing 3"]


def test_the_networks_activation_makes_the_probability():
    model, image = Small(), pictures(1, 16)
    score = model(image)[0, 2].item()
    [[one]] = explainer(named(model, 4, 16, activation="sigmoid"))(image, 2)
    assert one.probability == pytest.approx(1 / (1 + np.exp(-score)), rel=1e-5)


def test_the_networks_facts_or_its_other_layers_settle_how_its_tokens_are_read():
    # 1 + 16 tokens of a 64-pixel image could also be 8 + 9; the patches' own layer has 4 x 4.
    model = timm.create_model("test_vit", img_size=64)
    image = pictures(1, 64, dtype=torch.float32)
    [[wanted]] = Explainer(model, layers=["blocks.5.norm1"])(image)
    network = named(model, 1000, 64, prefix=1, grid=(4, 4))
    [[one]] = Explainer(network, layers=["blocks.5.norm1"])(image)
    assert one.map.shape == (4, 4)
    np.testing.assert_array_equal(one.map, wanted.map)
    [[one]] = Explainer(network)(image)
    assert one.layer == "blocks.5.norm1"


def test_channels_last_layers_give_the_map_by_hand():
    # A network that works channels first and one that turns its features around: the same map.
    first, image = Pooled(), pictures(1, (8, 16))

    class Turned(Pooled):
        def __init__(self):
            super().__init__()
            self.turned = nn.Identity()

        def forward(self, x):
            return self.fc(self.turned(self.last(self.features(x)).permute(0, 2, 3, 1)).mean((1, 2)))

    [[one]] = Explainer(first, layers=["last"])(image, 1)
    [[other]] = Explainer(Turned(), layers=["turned"])(image, 1)
    assert other.map.shape == (4, 8)
    np.testing.assert_array_equal(one.map, other.map)


def test_bf16_maps_are_those_of_fp32_but_for_its_eight_bits():
    image = pictures(2, 16, dtype=torch.float32)
    whole = explainer(Small().float())(image, [1, 2])
    rough = explainer(Small().to(torch.bfloat16))(image, [1, 2])
    for [one], [other] in zip(whole, rough, strict=True):
        assert other.map.dtype == np.float32
        difference = np.abs(one.map - other.map).max() / np.abs(one.map).max()
        assert 0 < difference < 0.05


def test_sums_over_half_precision_are_taken_in_single():
    # 1 + 2^-10 needs 11 bits; bfloat16 has 8. The product act x alpha must not be rounded to it.
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 1, bias=False)
            with torch.no_grad():
                self.layer.weight.zero_()
                self.layer.weight[:2, 0, 0, 0] = torch.tensor([1.0, 2.0**-10])

        def forward(self, x):
            score = self.layer(x).sum((1, 2, 3))
            return torch.stack([score, -score], 1)

    image = torch.ones(1, 3, 2, 2)
    [[one]] = Explainer(Sum().eval().to(torch.bfloat16), layers=["layer"])(image, 0)
    assert one.map.tolist() == [[1 + 2**-10] * 2] * 2


def test_the_same_explainer_may_be_used_again_and_gives_the_same():
    explain, images = explainer(Small(), "guided-gradcam"), pictures(2, 16)
    first, second = explain(images), explain(images)
    for [one], [other] in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.map, other.map)


def test_a_model_may_change_its_input_in_place():
    images = pictures(1, 16)
    before = images.clone()
    for method in METHODS.names():
        if method == "smooth-gradcam++":
            continue  # its noise is as strong whatever the image, so half an image has half of it
        model = small(method)
        model.conv1.register_forward_pre_hook(lambda module, inputs: (inputs[0].mul_(0.5),))
        [[one]] = explainer(model, method)(images, 1)
        [[half]] = explainer(small(method), method)(images * 0.5, 1)
        # By the image itself a gradient is half as great.
        ours, theirs = (found.map / np.abs(found.map).max() for found in (one, half))
        assert np.abs(ours - theirs).max() <= 1e-6, method
    assert torch.equal(images, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_method
def test_maps_on_a_gpu_are_those_on_the_cpu(method):
    images = pictures(2, 16)
    wanted = explainer(small(method), method)(images, [1, 2])
    found = explainer(small(method).cuda(), method)(images, [1, 2])
    for [one], [other] in zip(found, wanted, strict=True):
        same(one, other)


def test_labels_without_synonyms_are_named_whole():
    network = named(Small(), 4, 16)
    prompts = Labels(("a cat, asleep", "b", "c", "d"), synonyms=False)
    network = type(network)(**{**vars(network), "labels": prompts})
    [[one]] = explainer(network)(pictures(1, 16), 0)
    assert one.label == "a cat, asleep"


def test_a_layer_of_two_names_keeps_what_it_keeps_by_either():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    network.again = network[0]
    for name, much in (("0", True), ("again", True), ("4", False)):
        assert Explainer(network.eval(), layers=[name]).keeps_much == much


def test_of_tokens_a_note_names_the_method_that_lies_better():
    """Once for a run, where Grad-CAM explains tokens, and nowhere else."""
    hint = "hirescam costs the same as gradcam"
    model, images = Stacked(), pictures(2, 16)
    explain = Explainer(model, layers=["blocks.0"])
    explain(images, 1)
    explain(images, 1)
    assert sum(hint in note for note in explain.notes) == 1
    for given in ({"method": "hirescam"}, {"method": "gradcam,hirescam"}, {"method": "layercam"}):
        explain = Explainer(model, layers=["blocks.0"], **given)
        explain(images, 1)
        assert not any(hint in note for note in explain.notes)
    explain = Explainer(model, layers=["conv2"])
    explain(images, 1)
    assert not any(hint in note for note in explain.notes)
