"""What every layer gives, why some give no map, and which is chosen."""

import pytest
import timm
import torch
import torchvision
from networks import Small, Through, pictures, seeded, unruly, untouched
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.layers.default_layer import find_default_layer
from camcli.engine.layers.nan import find_first_non_finite
from camcli.engine.layers.paths import resolve
from camcli.engine.layers.probe import probe_image, probe_layers
from camcli.engine.layers.refusals import no_gradient_error


def surveyed(module, size, **facts):
    image = probe_image((size, size), torch.float32, torch.device("cpu"))
    return {layer.name: layer for layer in probe_layers(module, image, **facts)}


def default_layer(module, layers, size=16):
    return find_default_layer(module, layers, probe_image((size, size), torch.float32, torch.device("cpu")))


def chosen(module, size, **facts):
    return default_layer(module, list(surveyed(module, size, **facts).values()), size)


class Parts(nn.Module):
    """A layer for every reason why a layer can have no map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.aside = nn.Conv2d(6, 6, 1)
        self.unused = nn.Conv2d(6, 6, 1)
        self.sized = Through(lambda x: x.shape)
        self.six = nn.Conv2d(6, 8, 1)
        self.fc = nn.Linear(8, 3)
        seeded(self, dtype=torch.float32)

    def forward(self, x):
        x = self.relu(self.relu(self.stem(x)))
        x = self.six(x + self.aside(x).detach())
        self.sized(x)
        return self.fc(x.mean((2, 3)))


def test_reasons():
    found = surveyed(Parts(), 32)
    assert {name: layer.reason for name, layer in found.items()} == {
        "stem": "",
        "relu": "",
        "aside": "no gradient reaches it",
        "unused": "does not run",
        "sized": "returns no tensor",
        "six": "",
        "fc": "no grid",
    }
    assert found["relu"].calls == 2
    assert found["stem"].shape == (1, 6, 32, 32)
    assert found["fc"].shape == (1, 3)
    assert found["unused"].position is None
    assert str(found["six"].layout) == "nchw 32x32"
    turns = [found[name].position for name in ("stem", "aside", "six", "fc")]
    assert turns == sorted(turns)


def test_a_shape_that_can_be_read_in_two_ways_is_settled_by_the_other_layers_or_said_to_be_ambiguous():
    # 8 channels over 8x8 cells, alone and behind a layer that can only be channels first.
    alone = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(512, 2))
    assert surveyed(alone, 8)["0"].reason == "ambiguous: nchw 8x8 or nhwc 8x8"
    behind = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 8, 1), nn.Flatten(), nn.Linear(512, 2))
    assert surveyed(behind, 8)["1"].reason == ""
    assert str(surveyed(behind, 8)["1"].layout) == "nchw 8x8"


def test_a_survey_leaves_the_model_as_it_was_also_after_an_error():
    model = unruly(Small())
    with untouched(model):
        probe_layers(model, pictures(1, 16))
    model.relu2.register_forward_pre_hook(lambda module, inputs: 1 / 0)
    with untouched(model), pytest.raises(ZeroDivisionError):
        probe_layers(model, pictures(1, 16))


def test_a_survey_works_where_gradients_are_switched_off():
    model = Small()
    with torch.inference_mode():
        layers = probe_layers(model, pictures(1, 16))
    assert [layer.name for layer in layers if not layer.reason] == [
        "conv1",
        "norm1",
        "relu1",
        "pool",
        "conv2",
        "relu2",
    ]


# ---- why no gradient reaches a layer


def test_where_the_class_token_alone_goes_on_the_cut_is_named():
    model = timm.create_model("test_vit")
    layers = list(surveyed(model, 160, prefix=1, grid=(10, 10)).values())
    error = no_gradient_error(model, layers, "blocks.5")
    assert "'fc_norm' (Identity) takes only the prefix tokens of 'norm'" in error.message
    assert "'blocks.5.norm1' works" in error.hint


def test_where_the_network_detaches_the_cut_is_named():
    model = Parts()
    layers = list(surveyed(model, 32).values())
    error = no_gradient_error(model, layers, "aside")
    assert "it is cut between 'aside' and 'six' (Conv2d)" in error.message
    assert "'six' works" in error.hint


def test_the_first_module_that_gives_nan_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.ReLU(), Through(torch.log)), nn.Flatten())
    image = pictures(1, 8, dtype=torch.float32)
    assert find_first_non_finite(model, image) == "'1.1' (Through)"
    assert find_first_non_finite(model[0], image) == ""


# ---- the default layer


class Averaged(nn.Module):
    """A transformer whose head reads the mean of the patches, though there is a class token (as BEiT does)."""

    def __init__(self, by_token: bool) -> None:
        super().__init__()
        self.vit = timm.create_model("test_vit", num_classes=0, global_pool="")
        self.vit.norm = nn.Identity()
        self.head = nn.Linear(self.vit.embed_dim, 3)
        self.by_token = by_token

    def forward(self, x):
        tokens = self.vit(x)
        return self.head(tokens[:, 0] if self.by_token else tokens[:, 1:].mean(1))


def test_default_follows_what_the_head_reads_and_not_whether_there_is_a_class_token():
    assert chosen(Averaged(by_token=True), 160, prefix=1) == "vit.blocks.5.norm1"
    assert chosen(Averaged(by_token=False), 160, prefix=1) == "vit"
    beit = timm.models.beit.Beit(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3)
    assert chosen(beit, 32, prefix=1, grid=(4, 4)) == "blocks.1"


def test_default_is_no_layer_that_runs_several_times():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 5, 1), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert chosen(model, 16) == "2"


def test_default_of_a_levit_is_its_last_stage_which_the_other_layers_show_to_have_no_prefix():
    model = timm.create_model("levit_128s")
    layers = surveyed(model, 224)
    name = default_layer(model, list(layers.values()))
    assert name == "stages"
    # 16 tokens could be 7 + 3 x 3.
    assert str(layers[name].layout) == "tokens 4x4"


def test_default_of_a_resnet_is_its_last_stage():
    assert chosen(timm.create_model("test_resnet"), 64) == "layer4"


def test_default_of_a_vgg_is_not_its_last_pool():
    model = torchvision.models.VGG(torchvision.models.vgg.make_layers([8, "M", 16, 16, "M"]), 10)
    model.classifier = nn.Linear(16 * 7 * 7, 10)
    # conv relu pool conv relu conv relu pool
    assert chosen(model, 32) == "features.6"
    assert surveyed(model, 32)["features.7"].reason == ""


def test_default_of_a_densenet_is_its_features():
    model = torchvision.models.DenseNet(8, (2, 2), 16, num_classes=5)
    assert chosen(model, 64) == "features"


def test_default_of_the_bundled_model_is_its_last_activation():
    model = timm.create_model("tf_efficientnet_lite0")
    assert chosen(model, 64) == "bn2"
    # That is batch norm with its ReLU6.
    assert isinstance(model.bn2.act, nn.ReLU6)


@pytest.mark.parametrize("facts", [{}, {"prefix": 1, "grid": (10, 10)}], ids=["from its shapes", "from its facts"])
def test_default_of_a_vision_transformer_is_the_input_of_its_last_attention(facts):
    model = timm.create_model("test_vit")
    layers = surveyed(model, 160, **facts)
    assert [default_layer(model, list(layers.values()))] == resolve(model, ["blocks.-1.norm1"])
    assert str(layers["blocks.5.norm1"].layout) == "tokens 10x10 after 1 prefix"
    # Behind the last attention only the class token speaks to the class.
    for name in ("blocks.5", "blocks.5.norm2", "blocks.5.mlp.fc1", "norm"):
        assert layers[name].reason == "no gradient reaches it"


def test_default_of_a_swin_is_the_normalisation_before_its_pooling():
    model = timm.models.SwinTransformer(
        img_size=64, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=5
    )
    layers = surveyed(model, 64)
    assert default_layer(model, list(layers.values())) == "norm"
    assert str(layers["norm"].layout) == "nhwc 8x8"
    # 16x16 tokens in windows of 4x4: sixteen samples of sixteen tokens, which are no 4x4 map.
    assert layers["layers.0.blocks.0.attn"].shape == (16, 16, 16)
    assert layers["layers.0.blocks.0.attn"].reason == "splits the image into 16 samples"


def test_default_of_torchvisions_swin_is_its_last_grid():
    model = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [1, 2], [4, 4], num_classes=5)
    layers = surveyed(model, 64)
    name = default_layer(model, list(layers.values()))
    # The same values twice, channels last and then first.
    assert name in ("norm", "permute")
    assert layers[name].layout.grid == (8, 8)


def test_default_of_a_convnext_is_its_last_stage():
    assert chosen(timm.create_model("test_convnext"), 64) == "stages"


def test_default_passes_over_what_only_passes_on():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Identity(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert chosen(model, 16) == "0"


def test_where_no_layer_has_a_grid_there_is_no_default():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(RequestError, match="no layer of this network") as caught:
        chosen(model, 16)
    assert "--method guided-backprop" in caught.value.hint


def test_the_probe_is_the_same_every_time_and_touches_no_generator():
    before = torch.get_rng_state()
    one = probe_image((4, 6), torch.float32, torch.device("cpu"))
    assert torch.equal(one, probe_image((4, 6), torch.float32, torch.device("cpu")))
    assert one.shape == (1, 3, 4, 6)
    assert one.unique().numel() == one.numel()
    assert torch.equal(before, torch.get_rng_state())
