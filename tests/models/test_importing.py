"""Code of a user's own project: imports from its root and relative ones, by file and by module; what it prints."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import camcli
from camcli.base.errors import RequestError
from camcli.cli import app
from conftest import Paint

NETS = """
from dataclasses import dataclass
import os
import torch
from torch import nn
import camcli
from {layers} import Block

print("said while importing")

@dataclass
class Config:
    classes: int = 2

class Net(nn.Module):
    def __init__(self, config=Config()):
        super().__init__()
        torch.manual_seed(0)
        self.config, self.body, self.fc = config, Block(), nn.Linear(4, config.classes)

    def forward(self, images):
        print("said in forward")
        os.write(1, b"written by C\\n")
        return self.fc(self.body(images).mean((2, 3)))

def make():
    print("said in make")
    prepare = camcli.Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, (16, 16))
    return Net(), prepare, ["a", "b"]

class Wrapper(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images)

def broken():
    return helper()

def helper():
    raise ValueError("oh no")
"""
LAYERS = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
"""


@pytest.fixture
def project(here: Path) -> Iterator[Path]:
    """A project with a package of its own, one without ``__init__.py``, and a script outside of both."""
    files = {
        "pyproject.toml": "",
        "ownlib/__init__.py": "",
        "ownlib/nets.py": NETS.format(layers=".layers"),
        "ownlib/layers.py": LAYERS,
        "ownlib/value.py": "raise ValueError('at import')\n",
        "ownlib/lacks.py": "from ownlib.missing import x\n",
        "ownlib/ends.py": "import sys\nsys.exit(3)\n",
        "src/insrc/deep/nets.py": NETS.format(layers="..layers"),
        "src/insrc/layers.py": LAYERS,
        "plain/nets.py": NETS.format(layers=".layers"),
        "plain/layers.py": LAYERS,
        "scripts/model.py": "from ownlib.nets import make\n",
    }
    for name, text in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    before, known = list(sys.path), set(sys.modules)
    yield here
    assert sys.path == before
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("ownlib", "insrc", "plain") or name.startswith("camcli_local_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "words",
    [
        "ownlib.nets:make",
        "local:ownlib.nets:make",
        "ownlib/nets.py:make",
        "plain/nets.py:make",
        "src/insrc/deep/nets.py:make",
        "insrc.deep.nets:make",
        "scripts/model.py:make",
    ],
)
def test_a_network_of_a_project_by_file_and_by_module(project: Path, words: str) -> None:
    network = camcli.load(words)
    assert network.labels.names == ("a", "b")
    assert network.module(torch.zeros(1, 3, 16, 16)).shape == (1, 2)
    # Its module is known by its name, which data classes and pickles need.
    assert pickle.loads(pickle.dumps(network.module)).config.classes == 2


def test_from_below_the_root_and_from_elsewhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "scripts")
    assert len(camcli.load("model.py:make").labels) == 2
    assert len(camcli.load("ownlib.nets:make").labels) == 2
    (project / "other").mkdir()
    monkeypatch.chdir(project / "other")
    assert len(camcli.load("../scripts/model.py:make").labels) == 2


def test_a_wrapper_of_a_project(project: Path, tiny: str) -> None:
    for words in ("ownlib.nets:Wrapper", "ownlib/nets.py:Wrapper"):
        assert type(camcli.load(tiny, wrap=words).module).__name__ == "Wrapper"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("ownlib.value:make", "importing 'ownlib.value' failed: ValueError: at import", 'value.py", line 1'),
        ("ownlib/value.py:make", "importing 'ownlib/value.py' failed: ValueError: at import", 'value.py", line 1'),
        ("ownlib.lacks:make", "failed: ModuleNotFoundError: No module named 'ownlib.missing'", 'lacks.py", line 1'),
        ("ownlib.ends:make", "importing 'ownlib.ends' failed: SystemExit: 3", 'ends.py", line 2'),
        ("ownlib.nets:broken", "ownlib.nets:broken failed: ValueError: oh no", "in helper"),
        ("ownlib.nets:mak", "'ownlib.nets' has no function 'mak'", "did you mean 'make'"),
        (
            "ownlib.nothing:make",
            "'ownlib.nothing:make' begins with 'ownlib.nothing', which is neither a model source",
            "file.py:func",
        ),
        ("tim:resnet50", "nor a module that can be imported from here", "did you mean 'timm'"),
    ],
)
def test_what_fails_in_it_is_said_with_its_own_lines(project: Path, words: str, message: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        camcli.load(words)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_pythons_own_modules_are_not_hidden_by_a_projects(project: Path) -> None:
    (project / "colorsys.py").write_text("raise ValueError('hidden')\n")
    (project / "ownlib" / "uses.py").write_text("import colorsys\nfrom ownlib.nets import make\n")
    sys.modules.pop("colorsys", None)
    assert len(camcli.load("ownlib.uses:make").labels) == 2


def test_what_it_prints_is_never_among_what_machines_read(project: Path, paint: Paint) -> None:
    paint("a.png", (200, 100, 0), box=(0, 0, 10, 10))
    words = ["explain", "-m", "ownlib.nets:make", "a.png", "--json", "--out"]
    # As a process, since C writes by the number of the stream.
    done = subprocess.run([sys.executable, "-m", "camcli", *words, "one"], capture_output=True, text=True, check=True)
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == ["a.png"]
    for said in ("said while importing", "said in make", "said in forward", "written by C"):
        assert said in done.stderr
    layers = [sys.executable, "-m", "camcli", "layers", "ownlib.nets:make"]
    done = subprocess.run(layers, capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["body", "body.0", "body.1", "fc"]
    # And within a process, whose standard output is another stream.
    done = CliRunner().invoke(app, [*words, "two"])
    assert len(done.stdout.splitlines()) == 1
    assert "said in forward" in done.stderr
