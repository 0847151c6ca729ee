"""Weights from a file or at random, for models of every source."""

import pytest
import safetensors.torch
import timm
import timm.data
import torch
import torchvision
from model_sources import BUNDLED, in_the_papers_names, same_weights
from torch import nn

from camcli.base.errors import RequestError
from camcli.models.load import load
from camcli.models.sources import bundled

pytestmark = pytest.mark.usefixtures("empty_caches")


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
