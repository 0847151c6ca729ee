"""Models of transformers that compare images with prompts: scores of the library's own pipeline, prompts as classes."""

import json
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from clips import tiny_clip
from model_sources import in_hub_cache, upright

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_models import SIDE, TOWER, make_vit, save, save_towers  # noqa: E402

from camcli import Explainer  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.models.load import load  # noqa: E402
from camcli.models.sources import tokenizer  # noqa: E402
from camcli.runs.layers import list_layers  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")

PROMPTS = ("a photo of a cat", "a dog")
KINDS = ("CLIP", "Siglip", "MetaClip2", "ChineseCLIP", "CLIPSeg", "Align", "AltCLIP")


@pytest.fixture
def folder(tmp_path):
    return save_towers(tmp_path / "clip")


def noise(count=1):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_the_librarys_pipeline(tmp_path, kind):
    image = upright("chelsea.png")
    network = load(f"hf:{save_towers(tmp_path, kind)}", text=PROMPTS)
    pipe = transformers.pipeline("zero-shot-image-classification", model=str(tmp_path))
    found = pipe(image, candidate_labels=list(PROMPTS), hypothesis_template="{}")
    theirs = {one["label"]: one["score"] for one in found}
    with torch.no_grad():
        scores = network.module(network.preprocess(image)[0][None])[0]
    ours = scores.sigmoid() if network.activation == "sigmoid" else scores.softmax(0)
    assert (network.activation == "sigmoid") == (kind == "Siglip")
    assert [theirs[prompt] for prompt in PROMPTS] == pytest.approx(ours.tolist(), abs=1e-6)
    assert network.labels.names == PROMPTS
    assert not any("text" in name for name, _ in network.module.named_modules())


def test_the_map_is_what_hooks_and_autograd_give(folder):
    network = load(f"hf:{folder}", text=PROMPTS)
    theirs = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(list(PROMPTS), padding=True, return_tensors="pt")
    kept = []
    layer = theirs.vision_model.get_submodule("encoder.layers.1.layer_norm1")
    layer.register_forward_hook(lambda _, given, output: kept.append(output))
    [grad] = torch.autograd.grad(theirs(pixel_values=noise(), **tokens).logits_per_image[0, 1], kept)
    act, slope = (one[0, 1:].detach().double() for one in (kept[0], grad))
    wanted = (act @ slope.mean(0)).reshape(8, 8).numpy()
    explain = Explainer(network)
    [[one]] = explain(noise(), 1)
    assert explain.layers == ("visual.encoder.layers.1.layer_norm1",)
    assert np.allclose(one.map, wanted, atol=1e-5 * np.abs(wanted).max())


def test_templates_are_averaged(folder):
    network = load(f"hf:{folder}", text=["cat", "dog"], template=["a photo of a {}.", "{}"])
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = model.get_text_features(**tokenizer(["a photo of a cat.", "cat"], padding=True, return_tensors="pt"))
    units = torch.nn.functional.normalize(rows.pooler_output, dim=-1)
    wanted = torch.nn.functional.normalize(units.mean(0), dim=0)
    assert torch.allclose(network.module.prompts[0], wanted, atol=1e-6)


def test_a_prompt_longer_than_the_model_reads_is_cut_and_that_is_said(folder):
    network = load(f"hf:{folder}", text=["a photo of a cat a photo of a dog a red umbrella", "dog"])
    assert any("tokens long and the model reads 10" in note for note in network.notes)


def test_another_size_interpolates_positions(folder):
    network = load(f"hf:{folder}", text=PROMPTS, size="96x64")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(list(PROMPTS), padding=True, return_tensors="pt")
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        wanted = model(pixel_values=images, interpolate_pos_encoding=True, **tokens).logits_per_image
        assert torch.allclose(network.module(images), wanted, atol=1e-5)
    assert network.grid == (12, 8)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_without_prompts_its_image_tower_gives_features(tmp_path, kind):
    save_towers(tmp_path, kind)
    model = getattr(transformers, f"{kind}Model").from_pretrained(tmp_path).eval()
    network = load(f"hf:{tmp_path}", head="none")
    with torch.no_grad():
        wanted = model.get_image_features(noise(2)).pooler_output
        assert torch.allclose(network.module(noise(2)), wanted, atol=1e-6)
    spread = load(f"hf:{tmp_path}", head="none", pool="none")
    assert Explainer(spread)(noise(), 5)[0][0].map.shape == (8, 8)


def test_every_map_is_that_of_open_clip_for_the_same_weights(tmp_path):
    small = {"image_size": SIDE, "layers": 3, "width": 48, "head_width": 16, "patch_size": 8}
    (tmp_path / "open").mkdir()
    tiny_clip(tmp_path / "open", embed_dim=24, vision_cfg=small)
    ours = load(f"open_clip:local-dir:{tmp_path / 'open'}", text=PROMPTS)
    vision = {**TOWER, "image_size": SIDE, "patch_size": 8, "num_hidden_layers": 3, "intermediate_size": 192}
    settings = {"vision_config": {**vision, "hidden_act": "gelu"}, "text_config": {**TOWER, "vocab_size": 99}}
    save(tmp_path / "hf", transformers.CLIPModel(transformers.CLIPConfig(**settings, projection_dim=24)))
    theirs = load(f"hf:{tmp_path / 'hf'}", weights="random")
    state = ours.module.visual.state_dict()
    theirs.module.visual.load_state_dict(dict(renamed(state)))
    theirs.module.projection.weight.data[:] = state["proj"].T
    for name in ("prompts", "blank", "scale"):
        setattr(theirs.module, name, getattr(ours.module, name))
    theirs = replace(theirs, labels=ours.labels, cosine=ours.cosine)
    methods = "gradcam,hirescam,layercam,gae,rollout,attention,legrad,grad-eclip,maskclip,clip-surgery,eigencam"
    images = noise(2)
    found, wanted = (Explainer(one, method=methods)(images, 1) for one in (theirs, ours))
    for one, there in zip(chain(*found), chain(*wanted), strict=True):
        assert np.allclose(one.map, there.map, atol=1e-4 * np.abs(there.map).max()), one


def renamed(state):
    """The tensors of open_clip's image tower by the names of transformers."""
    outer = {"class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight"}
    outer |= {"positional_embedding": "embeddings.position_embedding.weight"}
    parts = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
    parts |= {"c_fc": "fc1", "c_proj": "fc2", "out_proj": "out_proj", "attn": "self_attn", "mlp": "mlp"}
    for name, value in state.items():
        if name in outer:
            yield outer[name], value
        elif "in_proj" in name:
            block, kind = name.split(".")[2], name.rpartition("_")[2]
            for part, third in zip("qkv", value.chunk(3), strict=True):
                yield f"encoder.layers.{block}.self_attn.{part}_proj.{kind}", third
        elif name != "proj":
            steps = [parts.get(step, step) for step in name.split(".")]
            yield ".".join(steps).replace("transformer.resblocks", "encoder.layers"), value


def test_untrained_it_needs_no_prompts_and_its_layers_are_listed(folder):
    network = load(f"hf:{folder}", weights="random")
    assert len(network.labels) == 10
    names = [row[0] for row in list_layers(f"hf:{folder}")[0]]
    assert "visual.encoder.layers.1.layer_norm1" in names


def test_the_hubs_cache_needs_no_network(tmp_path, no_network):
    save_towers(in_hub_cache(tmp_path, "someone/clip"))
    assert load("hf:someone/clip", text=PROMPTS).labels.names == PROMPTS


class TestRefusals:
    def refuse(self, match, folder, **options):
        with pytest.raises(RequestError, match=match) as raised:
            load(f"hf:{folder}", **options)
        return raised.value.hint

    def test_prompts_that_are_missing_empty_or_given_twice(self, folder):
        assert "--text 'a photo of a cat'" in self.refuse("has no classes of its own", folder)
        self.refuse("more than once", folder, text=["a cat", "a cat"])
        self.refuse("an empty prompt", folder, text=["a cat", " "])

    def test_a_second_text_tower(self, folder):
        self.refuse("has a text tower of its own", folder, text=["cat"], text_tower="mine.py:embed")

    def test_a_folder_without_its_tokenizer(self, folder):
        for file in folder.glob("*token*"):
            file.unlink()
        assert "tokenizer.save_pretrained" in self.refuse("has no tokenizer", folder, text=PROMPTS)

    def test_a_tokenizer_whose_package_is_missing(self, folder, monkeypatch):
        def fail(*given, **named):
            raise ImportError("\nSiglipTokenizer requires the SentencePiece library but it was not found.\n")

        monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
        monkeypatch.setitem(tokenizer.PACKAGES, "sentencepiece", "not_there.at_all")
        assert self.refuse("needs sentencepiece", folder, text=PROMPTS).startswith("pip install sentencepiece")

    def test_a_tokenizer_of_another_model(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["vocab_size"] = 4
        (folder / "config.json").write_text(json.dumps(config))
        hint = self.refuse("gives the token 11, and the model knows 4", folder, text=PROMPTS, weights="random")
        assert "another model's" in hint

    def test_a_model_of_another_construction(self, tmp_path):
        save(tmp_path, make_vit())
        config = json.loads((tmp_path / "config.json").read_text())
        config |= {"model_type": "blip", "architectures": ["BlipModel"]}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(RequestError):
            load(f"hf:{tmp_path}", text=PROMPTS)
