"""Models of open_clip: prompts become classes, from the hub's cache or a folder."""

from pathlib import Path

import open_clip
import pytest
import torch
from clips import PROMPTS, TINY, tiny_clip
from model_sources import in_hub_cache, upright

from camcli.base.errors import RequestError
from camcli.models.adapters import zero_shot
from camcli.models.listing import resolve
from camcli.models.load import load
from camcli.models.sources import open_clip as open_clip_source

pytestmark = pytest.mark.usefixtures("empty_caches")


class TestOpenClip:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return in_hub_cache(tmp_path, "someone/clip")

    @pytest.mark.parametrize("where", ["open_clip:hf-hub:someone/clip", "open_clip:local-dir:{folder}"])
    def test_prompts_are_the_classes_and_similarities_the_scores(self, folder, no_network, where):
        made = tiny_clip(folder)
        network = load(where.format(folder=folder), text=PROMPTS)
        images = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            expected, _ = made.get_logits(images, open_clip.get_tokenizer("ViT-B-32")(list(PROMPTS)))
            assert torch.allclose(network.module(images), expected, atol=1e-6)
        assert network.labels.names == PROMPTS
        assert network.activation == "softmax"
        assert network.weights == "pretrained"
        assert (network.prefix, network.grid) == (1, (2, 2))

    def test_a_published_name_from_the_cache(self, folder, no_network, monkeypatch):
        made = tiny_clip(folder)
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-16", TINY)
        published = {"hf_hub": "someone/clip/", "mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2), "quick_gelu": True}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-16", {"us": published})
        assert resolve("Tiny-16/us")[0] == "open_clip"
        assert open_clip_source.cached("Tiny-16/us")
        network = load("Tiny-16/us", text=PROMPTS)
        assert torch.equal(network.module.visual.proj, made.visual.proj)
        assert network.preprocess.mean == (0.4, 0.4, 0.4)
        assert any(isinstance(part, open_clip.transformer.QuickGELU) for part in network.module.modules())

    def test_a_bias_makes_it_a_sigmoid(self, folder):
        made = tiny_clip(folder, init_logit_bias=-10)
        network = load(f"open_clip:local-dir:{folder}", text=PROMPTS)
        assert network.activation == "sigmoid"
        images = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            expected, _ = made.get_logits(images, open_clip.get_tokenizer("ViT-B-32")(list(PROMPTS)))
            assert torch.allclose(network.module(images), expected, atol=1e-6)

    def test_pictures_are_prepared_as_open_clip_does(self, folder):
        tiny_clip(folder)
        network = load(f"open_clip:local-dir:{folder}", text=PROMPTS)
        model, _, expected = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        del model
        assert torch.equal(network.preprocess(upright("coffee.png"))[0], expected(upright("coffee.png")))

    def test_the_text_tower_is_not_kept(self, folder):
        tiny_clip(folder)
        network = load(f"open_clip:local-dir:{folder}", text=PROMPTS)
        assert {name.partition(".")[0] for name in network.module.state_dict()} == {
            "visual",
            "prompts",
            "blank",
            "scale",
            "bias",
        }
        assert network.module.get_submodule("visual.transformer.resblocks.1.ln_1")

    def test_gradients_reach_the_tower(self, folder):
        tiny_clip(folder)
        network = load(f"open_clip:local-dir:{folder}", text=PROMPTS)
        images = torch.rand(1, 3, 32, 32, requires_grad=True)
        network.module(images)[0, 1].backward()
        assert images.grad.abs().sum() > 0

    def test_many_prompts_in_parts_are_the_same(self, folder, monkeypatch):
        tiny_clip(folder)
        whole = load(f"open_clip:local-dir:{folder}", text=PROMPTS).module.prompts
        monkeypatch.setattr(zero_shot, "BATCH_SIZE", 2)
        assert torch.allclose(load(f"open_clip:local-dir:{folder}", text=PROMPTS).module.prompts, whole, atol=1e-6)

    def test_a_file_and_random_weights(self, folder, tmp_path):
        made = tiny_clip(folder)
        wrapped = {"state_dict": {f"module.{name}": value * 2 for name, value in made.state_dict().items()}}
        torch.save(wrapped, tmp_path / "w.pth")
        given = load(f"open_clip:local-dir:{folder}", text=PROMPTS, weights=str(tmp_path / "w.pth"))
        assert torch.equal(given.module.visual.proj, made.visual.proj * 2)
        untrained = load(f"open_clip:local-dir:{folder}", text=PROMPTS, weights="random")
        assert untrained.untrained
        assert untrained.notes == ()

    def test_a_damaged_file_in_the_cache_is_named(self, folder):
        tiny_clip(folder)
        (folder / "open_clip_pytorch_model.bin").write_bytes(b"not what it should be")
        with pytest.raises(RequestError, match="cannot be loaded") as caught:
            load("open_clip:hf-hub:someone/clip", text=PROMPTS)
        assert "to download it again: mv " in caught.value.hint

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ((), "no classes of its own"),
            (("a cat", " "), "an empty prompt describes nothing"),
            (("a cat", "a dog", "a cat"), "'a cat' is given more than once"),
        ],
    )
    def test_prompts_that_cannot_be_classes(self, folder, text, said):
        tiny_clip(folder)
        with pytest.raises(RequestError, match=said):
            load(f"open_clip:local-dir:{folder}", text=text)

    def test_an_untrained_network_needs_no_prompts(self, folder):
        tiny_clip(folder)
        network = load(f"open_clip:local-dir:{folder}", weights="random")
        assert len(network.labels) == 10
        assert "10 random embeddings stand for classes" in network.notes[0]
        scores = network.module(torch.randn(2, 3, *network.preprocess.size))
        assert scores.shape == (2, 10)
        again = load(f"open_clip:local-dir:{folder}", weights="random")
        assert torch.equal(again.module.prompts, network.module.prompts)

    def test_nothing_is_written_to_the_terminal(self, folder, capfd):
        tiny_clip(folder)
        capfd.readouterr()
        load(f"open_clip:local-dir:{folder}", text=PROMPTS, weights="random")
        assert capfd.readouterr() == ("", "")
