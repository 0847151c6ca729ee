"""The head of a fine-tuned network: taken where a file has one linear layer for it, else what would make it work."""

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import camcli
from camcli.base.errors import RequestError
from camcli.models.load import load
from camcli.models.weights import fit
from camcli.models.weights.checkpoint import Checkpoint, read


class Net(nn.Module):
    """A body of 6 features, and a head ``fc``."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


class Split(nn.Module):
    """The same body and a head of its own, by other names."""

    def __init__(self, body: str, head: str, classes: int) -> None:
        super().__init__()
        made = Net(classes)
        self.add_module(body, nn.ModuleDict({"body": made.body}))
        self.add_module(head, made.fc)


def build(classes=None):
    return Net(classes or 5)


def held(state):
    return Checkpoint(Path("weights.pth"), dict(state))


def sequential(*layers):
    net = Net()
    net.fc = nn.Sequential(*layers)
    return net.eval()


def test_a_dropout_before_the_linear_layer():
    made = sequential(nn.Dropout(), nn.Linear(6, 3))
    module, notes = fit.load_weights(build, held(made.state_dict()), "Net")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(module.eval()(images), made(images))
    assert notes == (
        "the head is 'fc.1' in the weights file, its only linear layer that fits: 6 features to 3 classes",
    )


@pytest.mark.parametrize(("body", "head"), [("backbone", "classifier"), ("model", "head"), ("encoder", "fc")])
def test_a_body_and_a_head_by_other_names(body, head):
    made = Split(body, head, 4)
    module, notes = fit.load_weights(build, held(made.state_dict()), "Net")
    assert torch.equal(module.fc.weight, getattr(made, head).weight)
    assert torch.equal(module.fc.bias, getattr(made, head).bias)
    assert torch.equal(module.body[0].weight, getattr(made, body)["body"][0].weight)
    assert f"the head is {head!r}" in notes[0]
    assert "to 4 classes" in notes[0]


def test_what_only_training_uses_is_left_out_and_said():
    made = Split("backbone", "classifier", 4)
    state = {**made.state_dict(), "criterion.weight": torch.ones(4), "arc_loss.weight": torch.ones(4, 6)}
    module, notes = fit.load_weights(build, held(state), "Net")
    assert torch.equal(module.fc.weight, made.classifier.weight)
    assert notes[1] == "not loaded from the weights file: criterion.weight, arc_loss.weight"


def test_a_linear_layer_without_bias_gives_a_bias_of_zero():
    state = {**Split("backbone", "classifier", 4).state_dict()}
    del state["classifier.bias"]
    module, _ = fit.load_weights(build, held(state), "Net")
    assert not module.fc.bias.any()


def test_a_model_that_comes_without_a_head():
    made = Split("backbone", "classifier", 4)

    def headless(classes=None):
        net = Net(classes or 1)
        if classes is None:
            net.fc = nn.Identity()
        return net

    module, _ = fit.load_weights(headless, held(made.state_dict()), "Net")
    assert torch.equal(module.fc.weight, made.classifier.weight)


@pytest.mark.parametrize(
    "extra",
    [{"neck.weight": torch.ones(6)}, {"proj.weight": torch.ones(4, 6)}, {"scale.weight": torch.ones(4)}],
    ids=["a norm before it", "another layer", "a norm behind it"],
)
def test_what_may_belong_to_the_head_is_no_guess(extra):
    with pytest.raises(RequestError, match="only its head 'fc' differs") as caught:
        fit.load_weights(build, held({**Split("backbone", "classifier", 4).state_dict(), **extra}), "Net")
    assert "architecture?" not in caught.value.hint


def test_another_architecture_is_still_asked_for_where_the_body_does_not_fit():
    state = {"conv.weight": torch.ones(9, 3, 3, 3), "fc.weight": torch.ones(4, 9), "fc.bias": torch.ones(4)}
    with pytest.raises(RequestError, match="do not fit Net") as caught:
        fit.load_weights(build, held(state), "Net")
    assert "another architecture?" in caught.value.hint


# ---- the program that is shown


def ran(hint, folder, monkeypatch):
    """The model that the Python in a hint makes."""
    monkeypatch.chdir(folder)
    Path("my_model.py").write_text(textwrap.dedent("\n".join(one for one in hint.splitlines() if one[:2] == "  ")))
    return load("my_model.py:make")


def resnet(weights=None):
    network = load("torchvision:resnet18", weights="random")
    return network.module


@pytest.mark.parametrize("wrapped", ["", "model."])
def test_a_head_of_several_layers(tmp_path, monkeypatch, wrapped):
    made = resnet()
    made.fc = nn.Sequential(nn.Linear(512, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    made.eval()
    torch.save({"state_dict": {wrapped + n: v for n, v in made.state_dict().items()}}, tmp_path / "best.pth")
    with pytest.raises(RequestError, match="only its head 'fc' differs") as caught:
        load("torchvision:resnet18", weights=str(tmp_path / "best.pth"))
    network = ran(caught.value.hint, tmp_path, monkeypatch)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(network.module(images), made(images))
    assert len(network.labels) == 3
    assert list(camcli.Explainer(network)(images))


def test_a_body_made_of_a_models_children(tmp_path, monkeypatch):
    made = resnet()
    body = nn.Sequential(*list(made.children())[:-1])
    net = nn.ModuleDict({"features": body, "classifier": nn.Linear(512, 3)}).eval()
    torch.save(net.state_dict(), tmp_path / "best.pth")
    with pytest.raises(RequestError, match="by order and shape of the layers") as caught:
        load("torchvision:resnet18", weights=str(tmp_path / "best.pth"))
    network = ran(caught.value.hint, tmp_path, monkeypatch)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(network.module(images), net["classifier"](body(images).flatten(1)))


def test_from_a_file_of_timm_by_another_name(tmp_path):
    made = load("timm:test_resnet", weights="random").module
    state = {f"backbone.{name}": value for name, value in made.state_dict().items() if not name.startswith("fc.")}
    state |= {"classifier.weight": torch.randn(7, made.num_features), "classifier.bias": torch.randn(7)}
    torch.save(state, tmp_path / "best.pth")
    network = load("timm:test_resnet", weights=str(tmp_path / "best.pth"))
    assert len(network.labels) == 7
    assert torch.equal(network.module.fc.weight, state["classifier.weight"])
    assert any("the head is 'classifier'" in note for note in network.notes)
    assert read(tmp_path / "best.pth").state.keys() == state.keys()
