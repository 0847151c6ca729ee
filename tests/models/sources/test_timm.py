"""Models of timm: preprocessing, names and weights as timm has them."""

import hashlib
import json
import time

import pytest
import safetensors.torch
import timm
import timm.data
import torch
from model_sources import in_hub_cache, in_the_papers_names, same_weights, upright
from torch import nn

from camcli.base.errors import RequestError
from camcli.models.load import load
from camcli.models.sources import timm as timm_source
from camcli.models.sources.timm_config import read_preprocess
from camcli.models.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("empty_caches")


class TestTimm:
    def test_cached_weights_need_no_network(self, tmp_path, no_network):
        made = timm.create_model("test_efficientnet").eval()
        folder = in_hub_cache(tmp_path, "timm/test_efficientnet.r160_in1k")
        safetensors.torch.save_file(made.state_dict(), folder / "model.safetensors")
        network = load("test_efficientnet")
        assert same_weights(network.module, made)
        assert network.name == "timm:test_efficientnet.r160_in1k"
        assert network.weights == "pretrained"
        assert network.origin == "timm/test_efficientnet.r160_in1k on the Hugging Face hub"
        assert network.labels.find("tabby") == 281
        assert timm_source.cached("test_efficientnet")
        assert not timm_source.cached("test_resnet")

    def test_weights_that_timm_converts_when_loading(self, tmp_path, no_network):
        made = timm.create_model("test_convnext").eval()
        folder = in_hub_cache(tmp_path, "timm/test_convnext.r160_in1k")
        torch.save({"model": in_the_papers_names(made)}, folder / "pytorch_model.bin")
        assert same_weights(load("test_convnext").module, made)

    def test_a_damaged_file_in_the_cache_is_named(self, tmp_path):
        folder = in_hub_cache(tmp_path, "timm/test_efficientnet.r160_in1k")
        (folder / "model.safetensors").write_bytes(b"not what it should be")
        with pytest.raises(RequestError, match=r"cannot be loaded.*") as caught:
            load("test_efficientnet")
        assert str(folder) in caught.value.message
        assert "to download it again: mv " in caught.value.hint

    def test_a_damaged_file_of_the_users_own_is_not_to_be_put_aside(self, tmp_path):
        timm.models.save_for_hf(timm.create_model("test_vit"), tmp_path, safe_serialization=False)
        (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1")
        with pytest.raises(RequestError, match="Git LFS pointer") as caught:
            load(f"local-dir:{tmp_path}")
        assert caught.value.hint == "git lfs pull"

    def test_a_file_in_the_hubs_cache_that_is_another_is_refused(self, tmp_path):
        folder = in_hub_cache(tmp_path, "timm/test_efficientnet.r160_in1k")
        blob = folder / ("0" * 64)
        safetensors.torch.save_file(timm.create_model("test_efficientnet").state_dict(), blob)
        (folder / "model.safetensors").symlink_to(blob)
        with pytest.raises(RequestError, match="not with 0000") as caught:
            load("test_efficientnet")
        assert "mv " in caught.value.hint
        good = folder / hashlib.sha256(blob.read_bytes()).hexdigest()
        (folder / "model.safetensors").unlink()
        blob.rename(good)
        (folder / "model.safetensors").symlink_to(good)
        assert load("test_efficientnet").weights == "pretrained"

    @pytest.mark.parametrize("name", ["a/b/c", "", "a b", "ä/b", "a//b", "../x", "-a/b", "a/b@../../x", "a--b/c"])
    @pytest.mark.parametrize("source", ["", "timm:", "open_clip:"])
    def test_names_that_no_repository_can_have(self, name, source):
        with pytest.raises(RequestError, match=r"is not a repository name|there is no revision") as caught:
            load(f"{source}hf-hub:{name}", text=("a cat",) if source == "open_clip:" else ())
        assert caught.value.hint.startswith(("write ", "give "))

    def test_a_folder_that_transformers_wrote_around_a_model_of_timms(self, tmp_path, no_network):
        made = timm.create_model("test_resnet", num_classes=2).eval()
        config = {
            "architecture": "test_resnet",
            "architectures": ["TimmWrapperForImageClassification"],
            "model_type": "timm_wrapper",
            "do_pooling": True,
            "num_classes": 2,
            "label_names": ["cat", "dog"],
            "num_features": made.num_features,
            "pretrained_cfg": {**made.pretrained_cfg, "num_classes": 2, "tag": "mine"},
            "transformers_version": "4.57.0",
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        state = {f"timm_model.{name}": value for name, value in made.state_dict().items()}
        safetensors.torch.save_file(state, tmp_path / "model.safetensors")
        network = load(f"local-dir:{tmp_path}")
        assert same_weights(network.module, made)
        assert network.labels.names == ("cat", "dog")

    @pytest.mark.parametrize("where", ["hf-hub:someone/model", "local-dir:{folder}"])
    def test_models_of_others_with_their_own_classes(self, tmp_path, no_network, where):
        folder = in_hub_cache(tmp_path, "someone/model")
        made = timm.create_model("test_vit", num_classes=3).eval()
        names = {"label_names": ["n02123045", "n02099601", "n02084071"]}
        described = {"label_descriptions": {"n02123045": "tabby", "n02099601": "golden retriever", "n02084071": "dog"}}
        timm.models.save_for_hf(made, folder, model_config=names | described, safe_serialization=True)
        network = load(where.format(folder=folder))
        assert same_weights(network.module, made)
        assert network.name == f"timm:{where.format(folder=folder)}"
        assert network.labels.names == ("tabby", "golden retriever", "dog")
        assert network.labels.find("n02099601") == 1
        assert (network.prefix, network.grid) == (1, (10, 10))

    def test_a_thousand_classes_are_not_imagenets_unless_the_tag_says_so(self, tmp_path):
        made = timm.create_model("test_vit", num_classes=1000)
        made.pretrained_cfg["tag"] = "landmarks"
        timm.models.save_for_hf(made, tmp_path / "it", safe_serialization=True)
        network = load(f"local-dir:{tmp_path / 'it'}")
        assert network.labels.names[281] == "class 281"
        assert any("--labels FILE" in note for note in network.notes)

    def test_a_repository_without_a_model_of_timm(self, tmp_path):
        folder = in_hub_cache(tmp_path, "someone/model")
        (folder / "config.json").write_text('{"architectures": ["BertModel"]}')
        with pytest.raises(RequestError, match="names no architecture"):
            load("hf-hub:someone/model", weights="random")

    def test_an_architecture_of_a_newer_timm(self, tmp_path):
        (tmp_path / "config.json").write_text('{"architecture": "resnet5000"}')
        with pytest.raises(RequestError, match="no architecture 'resnet5000'") as caught:
            load(f"local-dir:{tmp_path}")
        assert timm.__version__ in caught.value.hint

    @pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3"])
    def test_the_tokens_it_tells_of_are_those_it_makes(self, name):
        network = load(name, weights="random")
        tokens = network.module.forward_features(torch.zeros(1, 3, *network.preprocess.size))
        assert tokens.shape[1] == network.prefix + network.grid[0] * network.grid[1]

    @pytest.mark.parametrize("name", ["cait_xxs24_224", "xcit_nano_12_p16_224", "convit_tiny"])
    def test_a_class_token_that_joins_late_is_not_told_of(self, name):
        """In the first blocks of these all tokens are patches, whatever timm's number of prefix tokens says."""
        network = load(name, weights="random")
        assert (network.prefix, network.grid) == (None, None)
        assert network.module.num_prefix_tokens == 1

    def test_a_convolutional_model_has_no_tokens(self):
        network = load("test_resnet", weights="random")
        assert (network.prefix, network.grid) == (None, None)

    @pytest.mark.parametrize(
        "name",
        [
            "test_vit.r160_in1k",
            "convnext_atto.d2_in1k",
            "resnetv2_50x1_bit.goog_in21k_ft_in1k",
            "mobilevit_xxs.cvnets_in1k",
        ],
    )
    def test_pictures_are_prepared_as_timm_does(self, name):
        """Center and squash, bilinear and bicubic."""
        module = timm.create_model(name)
        expected = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
        prepared, _ = read_preprocess(module, name)(upright("chelsea.png"))
        assert torch.equal(prepared, expected(upright("chelsea.png")))

    def test_border_mode_too(self):
        name = "naflexvit_base_patch16_gap.e300_s576_in1k"
        borders = [
            tagged
            for tagged in timm.list_pretrained()
            if timm.get_pretrained_cfg(tagged).crop_mode == "border" and "test" not in tagged
        ]
        module = nn.Identity()
        module.pretrained_cfg = timm.get_pretrained_cfg((borders or [name])[0]).to_dict()
        expected = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
        prepared, _ = read_preprocess(module, name)(upright("chelsea.png"))
        assert torch.equal(prepared, expected(upright("chelsea.png")))

    def test_a_model_without_a_head_gives_no_scores(self):
        headless = timm.create_model("test_vit", num_classes=0)
        with pytest.raises(RequestError, match="timm:test_vit returns features, not class scores"):
            timm_source.build_network(headless, "timm:test_vit", ModelSpec("test_vit"), "")

    def test_retired_names_lead_to_todays(self):
        with pytest.raises(RequestError, match=r"timm:tf_efficientnet_b0\.ns_jft_in1k are not in the cache"):
            load("tf_efficientnet_b0_ns")

    def test_what_it_knows_of_names_is_quick(self):
        start = time.process_time()  # which a busy machine does not lengthen
        assert len(timm_source.names()) > 1500
        assert all(timm_source.has(name) for name in timm_source.names())
        assert time.process_time() - start < 2
