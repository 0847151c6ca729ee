"""Classifiers of transformers: from a folder or the hub's cache, with their own preprocessing, classes and weights."""

import json
import os
import pickle

import numpy as np
import pytest
import timm
import torch
from model_sources import in_hub_cache, same_weights, upright
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers", reason="transformers is an extra (hf)")

from hf_models import NAMES, SIDE, make_vit, save, save_vit, vit_config  # noqa: E402

from camcli import Explainer  # noqa: E402
from camcli.base.errors import RequestError  # noqa: E402
from camcli.models.listing import find_models, resolve  # noqa: E402
from camcli.models.load import load  # noqa: E402
from camcli.models.sources import hf  # noqa: E402
from camcli.models.sources.hf_config import WITHOUT_A_PLACE  # noqa: E402

pytestmark = pytest.mark.usefixtures("empty_caches")


@pytest.fixture
def folder(tmp_path):
    return save_vit(tmp_path / "vit")


def probabilities(network, image):
    tensor, _ = network.preprocess(image)
    with torch.no_grad():
        return network.read(network.module(tensor[None]), 1).scores(0).softmax(0)


class TestClassifier:
    def test_classes_and_probabilities_are_those_of_the_librarys_pipeline(self, folder):
        image = upright("chelsea.png")
        network = load(f"hf:{folder}")
        pipe = transformers.pipeline("image-classification", model=str(folder))
        theirs = {one["label"]: one["score"] for one in pipe(image)}
        ours = probabilities(network, image)
        assert network.labels.names == NAMES
        assert network.activation == "softmax"
        assert [theirs[name] for name in NAMES] == pytest.approx(ours.tolist(), abs=1e-6)

    def test_the_map_is_what_hooks_and_autograd_give(self, folder):
        network = load(f"hf:{folder}")
        theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
        images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        kept = []
        layer = theirs.get_submodule("vit.layers.2.layernorm_before")
        layer.register_forward_hook(lambda _, given, output: kept.append(output))
        score = theirs(pixel_values=images).logits[0, 1]
        [grad] = torch.autograd.grad(score, kept)
        tokens, slope = (one[0, 1:].detach().double() for one in (kept[0], grad))
        wanted = (tokens @ slope.mean(0)).reshape(8, 8)
        [[one]] = Explainer(network, layers=["vit.layers.2.layernorm_before"])(images, 1)
        assert np.allclose(one.map, wanted.numpy(), atol=1e-5 * wanted.abs().max().item())

    def test_where_it_looks_is_known_without_being_told(self, folder):
        network = load(f"hf:{folder}")
        assert (network.prefix, network.grid) == (1, (8, 8))
        explain = Explainer(network)
        [[one]] = explain(torch.rand(1, 3, SIDE, SIDE))
        assert one.map.shape == (8, 8)
        assert explain.layers == ("vit.layers.2.layernorm_before",)

    def test_a_name_that_nobody_gave_is_a_number(self, tmp_path):
        save_vit(tmp_path, id2label={0: "LABEL_0", 1: "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
        assert load(f"hf:{tmp_path}").labels.names == ("class 0", "class 1")

    @pytest.mark.parametrize(
        ("problem", "activation"),
        [("multi_label_classification", "sigmoid"), ("regression", "none"), ("single_label_classification", "softmax")],
    )
    def test_the_problem_says_what_scores_are(self, tmp_path, problem, activation):
        assert load(f"hf:{save_vit(tmp_path, problem_type=problem)}").activation == activation


class TestWeights:
    def test_shards_are_one_model(self, folder, tmp_path):
        shards = save(tmp_path / "shards", make_vit(), max_shard_size="50KB")
        assert len(list(shards.glob("*.safetensors"))) > 2
        assert load(f"hf:{shards}").sha256() == load(f"hf:{folder}").sha256()

    def test_half_precision_is_computed_in_full(self, tmp_path):
        save(tmp_path, make_vit().half())
        network = load(f"hf:{tmp_path}")
        assert {one.dtype for one in network.module.parameters()} == {torch.float32}
        assert same_weights(network.module, make_vit().half().float())

    def test_a_pickle_of_weights_is_read_and_one_with_code_is_not(self, folder, tmp_path):
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
        assert same_weights(load(f"hf:{folder}").module, make_vit())

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        torch.save({**state, "trap": Trap()}, folder / "pytorch_model.bin")
        with pytest.raises(RequestError, match="would run code that it names"):
            load(f"hf:{folder}")
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
        with pytest.raises(RequestError, match="cannot be loaded"):
            load(f"hf:{folder}")
        assert not (tmp_path / "ran").exists()

    def test_random_weights_need_none_and_come_from_the_seed(self, folder):
        (folder / "model.safetensors").unlink()
        first, second, other = (load(f"hf:{folder}", weights="random", seed=seed) for seed in (1, 1, 2))
        assert first.untrained
        assert first.sha256() == second.sha256() != other.sha256()

    def test_a_file_of_weights_with_another_number_of_classes(self, folder, tmp_path):
        five = make_vit(id2label={index: f"kind {index}" for index in range(5)}, label2id={})
        torch.save({"state_dict": {f"module.{key}": one for key, one in five.state_dict().items()}}, tmp_path / "w.pth")
        network = load(f"hf:{folder}", weights=str(tmp_path / "w.pth"))
        assert same_weights(network.module, five)
        assert len(network.labels) == 5
        assert network.weights == "file"

    def test_a_file_that_save_pretrained_wrote_has_names_of_an_earlier_version(self, folder, tmp_path):
        other = save(tmp_path / "other", make_vit(seed=1))
        file = other / "model.safetensors"
        assert not load_file(file).keys() <= make_vit().state_dict().keys()
        network = load(f"hf:{folder}", weights=str(file))
        assert same_weights(network.module, make_vit(seed=1))
        five = make_vit(id2label={index: f"kind {index}" for index in range(5)}, label2id={})
        file = save(tmp_path / "five", five) / "model.safetensors"
        assert same_weights(load(f"hf:{folder}", weights=str(file)).module, five)
        state = load_file(file)
        del state["vit.layernorm.weight"]
        save_file(state, file)
        with pytest.raises(RequestError, match="do not fit"):
            load(f"hf:{folder}", weights=str(file))

    def test_weights_without_a_head_are_refused(self, folder):
        state = {key: one for key, one in make_vit().state_dict().items() if "classifier" not in key}
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
        with pytest.raises(RequestError, match=r"lack 2 of the tensors .* classifier\.bias, classifier\.weight"):
            load(f"hf:{folder}")

    def test_a_damaged_file_is_refused(self, folder):
        (folder / "model.safetensors").write_bytes(b"nothing")
        with pytest.raises(RequestError, match="cannot be loaded"):
            load(f"hf:{folder}")


class TestOtherSizes:
    def test_positions_are_interpolated_as_the_library_does(self, folder):
        network = load(f"hf:{folder}", size="96x64")
        theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
        images = torch.randn(2, 3, 96, 64)
        with torch.no_grad():
            wanted = theirs(pixel_values=images, interpolate_pos_encoding=True).logits
            assert torch.equal(network.module(images).logits, wanted)
        assert network.grid == (12, 8)
        assert Explainer(network)(images[:1])[0][0].map.shape == (12, 8)

    def test_a_size_that_the_library_cannot_give_it_is_refused(self, tmp_path):
        small = {
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        }
        module = transformers.LevitForImageClassification(transformers.LevitConfig(image_size=64, **small))
        with pytest.raises(RequestError, match="does not take images of 96x96"):
            load(f"hf:{save(tmp_path, module)}", size="96")


class TestAttention:
    @pytest.mark.parametrize("asked", ["eager", "sdpa", "flash_attention_2"])
    def test_weights_are_the_same_however_attention_is_asked_for(self, tmp_path, asked):
        save_vit(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        wanted = Explainer(load(f"hf:{tmp_path}"), method="gae")(images, 0)[0][0].map
        (tmp_path / "config.json").write_text(json.dumps({**config, "attn_implementation": asked}))
        network = load(f"hf:{tmp_path}")
        assert any("flash_attention_2" in note for note in network.notes) == (asked == "flash_attention_2")
        assert np.array_equal(Explainer(network, method="gae")(images, 0)[0][0].map, wanted)

    def test_weights_are_those_that_the_library_returns(self, folder):
        theirs = transformers.AutoModelForImageClassification.from_pretrained(
            folder, attn_implementation="eager"
        ).eval()
        images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            last = theirs(pixel_values=images, output_attentions=True).attentions[-1]
        wanted = last[0].mean(0)[0, 1:].reshape(8, 8).numpy()
        [[one]] = Explainer(load(f"hf:{folder}"), method="attention")(images, 0)
        assert np.allclose(one.map, wanted, atol=1e-6)


class TestWithoutHead:
    def test_features_are_what_the_classifier_takes(self, folder):
        network = load(f"hf:{folder}", head="none")
        images = torch.randn(2, 3, SIDE, SIDE)
        module = make_vit()
        with torch.no_grad():
            features = module.vit(images).last_hidden_state[:, 0]
            assert torch.allclose(network.output_spec.read_rows(network.module(images), 2), features, atol=1e-6)
        assert len(network.labels) == 48
        assert network.headless

    def test_a_map_of_features_without_the_pooling(self, folder):
        network = load(f"hf:{folder}", head="none", pool="none")
        images = torch.randn(2, 3, SIDE, SIDE)
        with torch.no_grad():
            tokens = make_vit().vit(images).last_hidden_state[:, 1:]
            rows = network.output_spec.read_rows(network.module(images), 2, 48)
        assert torch.allclose(rows, tokens.mean(1), atol=1e-6)
        assert Explainer(network)(images[:1], 5)[0][0].map.shape == (8, 8)


class TestPlaces:
    def test_the_hubs_cache_needs_no_network(self, tmp_path, no_network):
        save_vit(in_hub_cache(tmp_path, "someone/vit"))
        network = load("hf:someone/vit")
        assert network.origin == "someone/vit on the Hugging Face hub"
        assert same_weights(network.module, make_vit())
        assert load("hf:someone/vit@main").sha256() == network.sha256()

    def test_shards_in_the_hubs_cache(self, tmp_path, no_network):
        save(in_hub_cache(tmp_path, "someone/vit"), make_vit(), max_shard_size="50KB")
        assert same_weights(load("hf:someone/vit").module, make_vit())

    def test_what_the_cache_holds_is_listed(self, tmp_path):
        save_vit(in_hub_cache(tmp_path, "someone/vit"))
        text = in_hub_cache(tmp_path, "someone/bert")
        (text / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
        assert hf.names() == ["someone/vit"]
        assert hf.has("someone/vit")
        assert hf.cached("someone/vit")
        assert find_models("hf:") == [("hf:someone/vit", True)]

    def test_an_unreachable_hub_is_given_up_on(self, tmp_path):
        save_vit(in_hub_cache(tmp_path, "someone/vit"))
        with pytest.raises(RequestError, match="are not in the cache and cannot be downloaded") as raised:
            load("hf:someone/vitt")
        assert "did you mean 'hf:someone/vit'?" in raised.value.hint
        assert "hf download someone/vitt" in raised.value.hint

    def test_timms_own_models_go_to_timm(self, tmp_path):
        made = timm.create_model("test_vit", num_classes=3)
        save_file(
            {f"timm_model.{name}": one for name, one in made.state_dict().items()}, tmp_path / "model.safetensors"
        )
        config = {"architecture": "test_vit", "num_classes": 3, "model_type": "timm_wrapper"}
        config["pretrained_cfg"] = {**made.pretrained_cfg, "num_classes": 3}
        (tmp_path / "config.json").write_text(json.dumps(config))
        network = load(f"hf:{tmp_path}")
        assert network.name == f"hf:{tmp_path}"
        assert same_weights(network.module, made)


class TestRefusals:
    @pytest.fixture(autouse=True)
    def here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def refuse(self, match, name="hf:./vit", **options):
        with pytest.raises(RequestError, match=match) as raised:
            load(name, **options)
        return raised.value.hint

    def test_no_folder_of_that_name(self, folder):
        assert "hf:vit" in self.refuse("there is no folder './vitt'", "hf:./vitt")
        self.refuse("is not a repository name", "hf:a b/c")
        self.refuse("a model of transformers is a folder", "hf:./vit/config.json")

    def test_a_folder_of_folders(self, folder, tmp_path):
        assert f"hf:{tmp_path / 'vit'}" in self.refuse("needs a config.json", f"hf:{tmp_path}")

    def test_another_librarys_folder(self, folder):
        (folder / "config.json").write_text('{"architecture": "resnet18"}')
        assert self.refuse("is timm's") == "name it -m local-dir:./vit"
        (folder / "config.json").write_text("[1]")
        self.refuse("it has no model_type")
        (folder / "config.json").write_text("{")
        self.refuse("is damaged")
        (folder / "config.json").unlink()
        (folder / "open_clip_config.json").write_text("{}")
        assert "open_clip:local-dir:" in self.refuse("needs a config.json")

    def test_a_file_that_is_missing(self, folder):
        (folder / "preprocessor_config.json").rename(folder / "kept.json")
        self.refuse("has no image processor")
        (folder / "kept.json").rename(folder / "preprocessor_config.json")
        (folder / "model.safetensors").unlink()
        assert "--weights FILE" in self.refuse("has no weights")
        save(folder, make_vit(), max_shard_size="50KB")
        (folder / "model-00002-of-00007.safetensors").unlink()
        self.refuse("lacks files of its weights .* model-00002-of-00007")

    def test_code_of_its_own_is_not_run(self, folder, tmp_path):
        config = json.loads((folder / "config.json").read_text())
        code = {"AutoConfig": "own.C", "AutoModelForImageClassification": "own.M"}
        (folder / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
        own = {**config, "model_type": "own", "architectures": ["OwnForImageClassification"], "auto_map": code}
        (folder / "config.json").write_text(json.dumps(own))
        assert "--trust-code" in self.refuse("runs Python code of its own")
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "OwnProcessor", "auto_map": {"AutoImageProcessor": "own.P"}})
        )
        self.refuse("the image processor of hf:./vit cannot be loaded")
        assert not (tmp_path / "ran").exists()

    def test_models_that_do_not_classify(self, folder):
        config = json.loads((folder / "config.json").read_text())
        for name, reason in (
            ("VitMatteForImageMatting", "is a VitMatteForImageMatting, which gives neither classes"),
            ("BertForMaskedLM", "is a BertForMaskedLM"),
            ("TomorrowsForImageClassification", "has no TomorrowsForImageClassification"),
        ):
            (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}))
            self.refuse(reason)

    @pytest.mark.parametrize("model_type", ["imagegpt", "perceiver", "shieldgemma2"])
    def test_classifiers_whose_numbers_have_no_place(self, folder, model_type):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"model_type": model_type, "id2label": config["id2label"]}))
        self.refuse(f"is a .*ForImageClassification.*: {WITHOUT_A_PLACE[model_type]}")

    def test_prompts_are_not_for_a_classifier(self, folder):
        self.refuse("has none", text=["a cat"])

    def test_a_processor_that_cannot_be_followed(self, folder):
        transformers.ViTImageProcessor(do_resize=False).save_pretrained(folder)
        self.refuse("leaves each image its own shape")
        transformers.PerceiverImageProcessor().save_pretrained(folder)
        self.refuse("its values differ from what its settings say")

    def test_the_library_must_be_there(self, folder, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "transformers.utils", None)
        assert self.refuse("need transformers") == "pip install 'camcli-vision[hf]'"


def test_a_bare_configuration_is_read_as_a_classifier_of_its_type(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load(f"hf:{folder}").labels.names == NAMES


def test_the_name_resolves_to_the_source(folder):
    assert resolve(f"hf:{folder}") == ("hf", str(folder))
    assert vit_config().num_labels == 3


def test_what_the_library_says_and_its_settings_stay(folder, capfd):
    before = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    load(f"hf:{folder}")
    assert (transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()) == before
    assert "".join(capfd.readouterr()) == ""
