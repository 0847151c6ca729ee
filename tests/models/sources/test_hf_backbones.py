"""Backbones of transformers without a classifier: pooled features, maps of features, similarity to an image."""

import json

import pytest
import torch
from typer.testing import CliRunner

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_models import VISION, save  # noqa: E402
from place import broken_law  # noqa: E402

from camcli import Explainer  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.cli import app  # noqa: E402
from camcli.models.load import load  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")

SIDE = 64
DECODER = {f"decoder_{name}": 2 if "num" in name else 32 for name in ("num_hidden_layers", "num_attention_heads")}
MAE = {**VISION, **DECODER, "decoder_hidden_size": 32, "decoder_intermediate_size": 32}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
# By name: model, configuration, its settings, tokens before the patches (None where there is only a map).
KINDS = {
    "DINOv2": ("Dinov2Model", "Dinov2Config", VISION, 1),
    "DINOv2 with registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", VISION, 5),
    "DINOv2 as backbone": ("Dinov2Backbone", "Dinov2Config", VISION, 1),
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**VISION, "num_register_tokens": 4}, 5),
    "DINOv3 ConvNeXt": ("DINOv3ConvNextModel", "DINOv3ConvNextConfig", {**STAGES, "image_size": 128}, 1),
    "I-JEPA": ("IJepaModel", "IJepaConfig", VISION, 0),
    "MAE": ("ViTMAEModel", "ViTMAEConfig", MAE, 1),
    "MAE with its decoder": ("ViTMAEForPreTraining", "ViTMAEConfig", MAE, 1),
    "ViT": ("ViTModel", "ViTConfig", VISION, 1),
    "ViT of masked images": ("ViTForMaskedImageModeling", "ViTConfig", VISION, 1),
    "MSN": ("ViTMSNModel", "ViTMSNConfig", VISION, 1),
    "ResNet": ("ResNetModel", "ResNetConfig", STAGES, None),
    "CLIP's image tower": ("CLIPVisionModel", "CLIPVisionConfig", VISION, 1),
    "CLIP's image tower, projected": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION, 1),
    "SigLIP's image tower": ("SiglipVisionModel", "SiglipVisionConfig", VISION, 0),
}
WITHOUT_POOLING = {"I-JEPA", "MAE", "MAE with its decoder", "MSN", "ViT of masked images"}


def write(folder, name):
    """A folder with a model of this kind; the model, and the side of its input."""
    model, config, settings, _ = KINDS[name]
    torch.manual_seed(0)
    module = getattr(transformers, model)(getattr(transformers, config)(**settings)).eval()
    side = 128 if "hidden_sizes" in settings else SIDE
    save(folder, module, transformers.ViTImageProcessor(size={"height": side, "width": side}))
    return module, side


@pytest.mark.parametrize("name", [name for name in KINDS if name not in WITHOUT_POOLING | {"DINOv2 as backbone"}])
def test_pooled_features_are_the_librarys(tmp_path, name):
    module, side = write(tmp_path, name)
    network = load(f"hf:{tmp_path}", head="none")
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        output = module(pixel_values=images)
        wanted = (output.image_embeds if "projected" in name else output.pooler_output).flatten(1)
        found = network.output_spec.read_rows(network.module(images), 2, len(network.labels))
    assert torch.allclose(found, wanted, atol=1e-5)
    assert network.headless


@pytest.mark.parametrize("name", KINDS)
def test_maps_of_features_lie_where_the_image_is(tmp_path, name):
    _, side = write(tmp_path, name)
    network = load(f"hf:{tmp_path}", head="none", pool="none")
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    explain = Explainer(network)
    [[one]] = explain(images[:1], 3)
    [layer] = explain.layers
    layout = explain.layouts[layer]
    assert one.map.shape == layout.grid == ((side // 32,) * 2 if "hidden_sizes" in KINDS[name][2] else (8, 8))
    if KINDS[name][3] is not None:
        assert layout.prefix == KINDS[name][3]
        tokens = network.module(images).last_hidden_state
        wanted = tokens[:, layout.prefix :].mean(1)
        assert torch.allclose(network.output_spec.read_rows(network.module(images), 2, len(network.labels)), wanted)
    assert not broken_law(network.module, layer, layout, (side, side))


@pytest.mark.parametrize("name", sorted(WITHOUT_POOLING))
def test_tokens_alone_are_no_pooled_features(tmp_path, name):
    write(tmp_path, name)
    with pytest.raises(RequestError, match="gives no pooled features") as raised:
        load(f"hf:{tmp_path}", head="none")
    assert "--pool none" in raised.value.hint


def test_a_masked_autoencoder_sees_all_patches_in_their_order(tmp_path):
    module, side = write(tmp_path, "MAE")
    network = load(f"hf:{tmp_path}", head="none", pool="none")
    images = torch.randn(2, 3, side, side)
    plain = transformers.ViTModel(transformers.ViTConfig(**VISION), add_pooling_layer=False).eval()
    state = module.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    with torch.no_grad():
        wanted = plain(images).last_hidden_state
        first, again = (network.module(images).last_hidden_state for _ in range(2))
    assert torch.equal(first, again)
    assert torch.allclose(first, wanted, atol=1e-5)


def test_without_a_head_there_are_no_classes(tmp_path):
    write(tmp_path, "DINOv2")
    with pytest.raises(RequestError, match="returns features, not class scores") as raised:
        load(f"hf:{tmp_path}")
    assert "--head none" in raised.value.hint


def test_another_size(tmp_path):
    module, _ = write(tmp_path, "DINOv3")
    network = load(f"hf:{tmp_path}", head="none", size="96x64")
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        assert torch.allclose(network.module(images).pooler_output, module(images).pooler_output, atol=1e-5)
    assert Explainer(network)(images, 0)[0][0].map.shape == (12, 8)


@pytest.mark.parametrize(("name", "more"), [("DINOv2", []), ("I-JEPA", ["--pool", "none"])])
def test_similarity_to_an_image_from_the_shell(tmp_path, sample_images, name, more):
    write(tmp_path / "model", name)
    cat = str(sample_images / "chelsea.png")
    asked = ["explain", "-m", f"hf:{tmp_path / 'model'}", "--target", f"similar:{cat}", "--out", str(tmp_path / "maps")]
    run = CliRunner().invoke(app, [*asked, *more, cat, str(sample_images / "coffee.png")])
    assert run.exit_code == 0, run.output
    rows = [json.loads(line) for line in (tmp_path / "maps" / "outcomes.jsonl").read_text().splitlines()]
    scores = {row["source"].rpartition("/")[2]: row["score"] for row in rows if "score" in row}
    assert scores["chelsea.png"] == pytest.approx(1, abs=1e-5)
    assert scores["coffee.png"] < 1
