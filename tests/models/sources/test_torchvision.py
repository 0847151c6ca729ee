"""Models of torchvision: preprocessing, names and weights as torchvision has them."""

import hashlib
import os
import warnings

import pytest
import timm
import timm.data
import torch
import torchvision
from model_sources import same_weights, upright

from camcli.base.errors import RequestError
from camcli.models.load import load
from camcli.models.sources import torchvision as torchvision_source
from camcli.models.sources import torchvision_config
from camcli.models.sources.torchvision_weights import find_task, resolve_weights

pytestmark = pytest.mark.usefixtures("empty_caches")


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
