"""A network that a user's function hands out stays as it was, whatever is made of it."""

import sys

import pytest
import torch
from networks import state
from torch import nn

import camcli
from camcli.base.errors import RequestError
from camcli.models.load import load

SHARED = '''
import torch, timm
from torch import nn
import camcli

PREPARE = camcli.Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, resize=(32, 32))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        norms = [part for _ in range(3) for part in (nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))]
        self.body = nn.Sequential(*norms, nn.Conv2d(3, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4)
    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

torch.manual_seed(0)
NET = Net().train()
TIMM = timm.create_model("test_vit", num_classes=4)
INNER = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

class Around(nn.Module):
    """Made anew each time, around what is always the same."""
    def __init__(self):
        super().__init__()
        self.inner, self.head = INNER, nn.Linear(4, 4)
    def forward(self, x):
        return self.head(self.inner(x).mean((2, 3)))

class Tied(Net):
    """A network whose copies run the network itself."""
    def __init__(self):
        super().__init__()
        self.run = lambda x: self.body(x)
    def forward(self, x):
        return self.head(self.run(x).mean((2, 3)))

TIED = Tied()

def plain(): return NET, PREPARE
LABELS = camcli.Labels.numbered(4)
def network(): return camcli.Network("mine", NET, PREPARE, LABELS, "pretrained", "", wrapped_module=NET.body)
def of_timm(): return TIMM
def around(): return Around(), PREPARE
def tied(): return TIED, PREPARE
def fresh(): return Tied(), PREPARE
'''


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A module that is imported once, as by a program that holds its networks; the file hands out what it has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held.py").write_text(SHARED)
    (tmp_path / "f.py").write_text("from held import *\n")
    load("f.py:plain")
    yield sys.modules["held"]
    sys.modules.pop("held")


def explained(function, sample_images, **options):
    return list(camcli.explain(str(sample_images / "chelsea.png"), model=f"f.py:{function}", **options))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("function", "held"), [("plain", "NET"), ("network", "NET"), ("of_timm", "TIMM"), ("around", "INNER")]
)
def test_a_network_that_is_handed_out_again_stays_as_it_was(kept, sample_images, function, held, precision):
    module = getattr(kept, held)
    before, types = state(module), [type(part) for part in module.modules()]
    forwards = [vars(part).get("forward") for part in module.modules()]
    first = explained(function, sample_images, precision=precision)
    assert state(module) == before
    assert [type(part) for part in module.modules()] == types
    assert [vars(part).get("forward") for part in module.modules()] == forwards
    again = explained(function, sample_images, precision=precision)
    if function != "around":
        assert [one.map.tobytes() for one in first] == [one.map.tobytes() for one in again]


@pytest.mark.parametrize("function", ["plain", "of_timm"])
def test_weights_put_into_it_are_put_into_a_copy(kept, tmp_path, sample_images, function):
    module = kept.NET if function == "plain" else kept.TIMM
    torch.save({name: value + 1 for name, value in module.state_dict().items()}, tmp_path / "w.pth")
    before = state(module)
    for weights in ("w.pth", "random") if function == "plain" else ("w.pth",):
        assert explained(function, sample_images, weights=weights)
        assert state(module) == before
    assert load(f"f.py:{function}").module.training is False
    if function == "of_timm":
        assert load("f.py:of_timm", head="none").headless
    assert state(module) == before


def test_nothing_is_held_twice(kept):
    made = load("f.py:plain").module
    assert made is not kept.NET
    assert made.head.weight.data_ptr() == kept.NET.head.weight.data_ptr()
    assert made.body[1].running_mean.data_ptr() != kept.NET.body[1].running_mean.data_ptr()


def test_one_that_cannot_be_copied_is_used_as_it_stands(kept, sample_images):
    before, types = state(kept.TIED), [type(part) for part in kept.TIED.modules()]
    assert explained("tied", sample_images)
    assert state(kept.TIED) == before
    assert [type(part) for part in kept.TIED.modules()] == types
    network = load("f.py:tied")
    assert "returns the same network in each call" in network.shared + " ".join(network.notes)
    with pytest.raises(RequestError, match="returns the same network in each call") as caught:
        explained("tied", sample_images, precision="bf16")
    assert "build a new one" in caught.value.hint
    with pytest.raises(RequestError, match="returns the same network"):
        load("f.py:tied", weights="random")


def test_one_that_cannot_be_copied_but_is_new_each_time_is_nobody_elses(kept, sample_images):
    network = load("f.py:fresh")
    assert network.shared == ""
    assert explained("fresh", sample_images, precision="bf16")


# ---- numbers that are not real


class Filter(nn.Module):
    """A filter in the frequencies, by a table of complex numbers: what is added to the score is 7, by its phase."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([0.0 + 7.0j]))
        self.body = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, 2)

    def forward(self, images):
        turned = (self.table * torch.tensor([0.0 - 1.0j])).real.to(images.dtype)
        return self.head(self.body(images).relu().mean((2, 3))) * 0 + turned


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_complex_numbers_stay_complex(tmp_path, monkeypatch, sample_images, precision):
    """(0 + 7i) (0 - i) = 7; made real, 7i is 0."""
    monkeypatch.setattr(sys.modules[__name__], "Filter", Filter, raising=False)
    (tmp_path / "f.py").write_text(
        "import camcli\nfrom test_owning import Filter\n"
        "def make():\n    return Filter(), camcli.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3, (8, 8))\n"
    )
    found = []
    options = {"model": f"{tmp_path / 'f.py'}:make", "precision": precision, "method": "eigencam", "layer": "body"}
    found += camcli.explain(str(sample_images / "chelsea.png"), **options)
    assert [one.score for one in found] == [7.0]
