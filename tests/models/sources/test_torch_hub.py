"""Folders of torch.hub: entries are called, nothing is fetched."""

import pytest
import torch

import camcli
from camcli.runs.job.job import Job

HUBCONF = """
dependencies = ["torch"]
import torch
from beside import CLASSES
from torch import nn
import camcli

def small(pretrained=True):
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    if pretrained:
        torch.hub.load_state_dict_from_url("http://nowhere.invalid/small.pth")
    return net

def plain():
    torch.manual_seed(0)
    return small(pretrained=False)

def whole():
    return plain(), camcli.Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3), ["cat", "cup", "bee"]

def fails():
    return 1 / 0
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "hubconf.py").write_text(HUBCONF, encoding="utf-8")
    (tmp_path / "repository" / "beside.py").write_text("CLASSES = 3\n", encoding="utf-8")
    return tmp_path / "repository"


def load(entry, **given):
    return camcli.load(f"hub:repository:{entry}", **given)


def test_an_entry_is_loaded_as_torch_hub_does(hub):
    network = load("plain", preprocess="imagenet", size="32")
    theirs = torch.hub.load("repository", "plain", source="local")
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(network.module.state_dict()[name], value, rtol=0, atol=0)
    [[one]] = camcli.Explainer(network)(torch.randn(1, 3, 32, 32), 1)
    assert one.map.shape == (8, 8)


def test_an_entry_may_say_its_preprocessing_and_then_nobody_else_does(hub):
    assert load("whole").labels.short(1) == "cup"
    with pytest.raises(camcli.RequestError, match="says itself how images are prepared"):
        load("whole", preprocess="imagenet")
    with pytest.raises(camcli.RequestError, match="without its preprocessing") as caught:
        load("plain")
    assert "--preprocess imagenet" in str(caught.value.hint)
    with pytest.raises(camcli.RequestError, match="how large the images are"):
        load("plain", preprocess="imagenet")


def test_nothing_is_fetched_and_other_weights_need_no_own_ones(hub):
    with pytest.raises(camcli.RequestError, match=r"downloads http://nowhere\.invalid"):
        load("small", preprocess="imagenet", size="16")
    state = torch.hub.load("repository", "plain", source="local").state_dict()
    torch.save({**state, "4.bias": state["4.bias"] + 1}, "best.pth")
    network = load("small", preprocess="imagenet", size="16", weights="best.pth")
    torch.testing.assert_close(network.module.state_dict()["4.bias"], state["4.bias"] + 1)


def test_what_is_missing_is_named(hub):
    with pytest.raises(camcli.RequestError, match="no entry 'plan'") as caught:
        load("plan")
    assert "did you mean 'plain'?" in str(caught.value.hint)
    with pytest.raises(camcli.RequestError, match="there is no folder 'nowhere'"):
        camcli.load("hub:nowhere:plain")
    with pytest.raises(camcli.RequestError, match="names no entry"):
        camcli.load("hub:repository")
    (hub.parent / "empty").mkdir()
    with pytest.raises(camcli.RequestError, match=r"has no hubconf\.py"):
        camcli.load("hub:empty:plain")
    with pytest.raises(camcli.RequestError, match="ZeroDivisionError"):
        load("fails")


def test_its_code_counts_in_the_job(hub):
    first = Job(model="hub:repository:whole").fingerprint
    (hub / "hubconf.py").write_text(HUBCONF + "\n", encoding="utf-8")
    assert Job(model="hub:repository:whole").fingerprint != first
