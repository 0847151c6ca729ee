"""What makes a job another one: each of these mixed old maps and new ones as done before."""

import importlib
import json
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch
from readback import facts, ledger
from shared import Bring, Go, Paint
from torch import nn

from camcli.base import registry
from camcli.base.errors import RequestError
from camcli.engine.network import Network
from camcli.images.transform import Preprocess
from camcli.models import imported_files
from camcli.runs.explain.run import Run
from camcli.runs.job import fingerprint
from camcli.runs.job.job import Job
from camcli.runs.worker.worker import Worker
from camcli.targets.labels import Labels

MADE = """
from camcli import Labels, Preprocess
import torch
from torch import nn
{imports}


def make():
    module = Module()
    prepare = Preprocess(size=(16, 16), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=(16, 16), fit="squash")
    return module, prepare, Labels(("a", "b", "c"))
"""
MODULE = """
import torch
from torch import nn
from {parts} import FACTOR


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.stem.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
            self.stem.bias.zero_()

    def forward(self, images):
        return FACTOR * self.stem(images).mean((2, 3))
"""


DEEP = {"lib/__init__.py", "lib/deep/__init__.py", "lib/deep/numbers.py"}


@pytest.fixture
def project(here: Path):
    """A model whose factor stands two imports away, in a package of its own; forgotten afterwards."""
    (here / "lib/deep").mkdir(parents=True)
    (here / "model.py").write_text(MADE.format(imports="from lib.network import Module"))
    (here / "lib/__init__.py").write_text("")
    (here / "lib/network.py").write_text(MODULE.format(parts=".deep"))
    (here / "lib/deep/__init__.py").write_text("from .numbers import FACTOR\n")
    (here / "lib/deep/numbers.py").write_text("FACTOR = 10\n")
    (here / "lib/deep/up.py").write_text("from ..network import Module\n")
    (here / "beside.py").write_text("NOTHING = 0\n")
    before = set(sys.modules)

    def forget() -> None:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "lib":
                del sys.modules[name]
        importlib.invalidate_caches()

    yield forget
    forget()


def test_a_module_that_the_models_file_imports_from_afar_counts(project, paint: Paint, go: Go, here: Path) -> None:
    paint("a.png")
    ((one,),) = go("a.png", model="model.py:make", target=("a",), save=("array",))
    assert set(facts()["counted"]) >= {
        f"code of lib/{name}.py" for name in ("network", "deep/numbers", "deep/__init__")
    }
    project()
    (here / "beside.py").write_text("NOTHING = 1\n")  # nobody imports it
    assert go("a.png", model="model.py:make", target=("a",), save=("array",)) == [[]]
    project()
    (here / "lib/deep/numbers.py").write_text("FACTOR = 200\n")
    with pytest.raises(RequestError, match=r"another job: the code of lib/deep/numbers.py changed$") as caught:
        go("a.png", model="model.py:make", target=("a",), save=("array",))
    assert "--overwrite" in caught.value.hint
    project()
    ((other,),) = go("a.png", model="model.py:make", target=("a",), save=("array",), overwrite=True)
    assert other.score == pytest.approx(20 * one.score)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import lib.network", {*DEEP, "lib/network.py"}),
        ("from lib import deep", DEEP),
        ("def late():\n    from lib.deep.numbers import FACTOR", DEEP),
        ("from lib.deep import *", DEEP),
        ("import json, torch, timm, nowhere, beside", {"beside.py"}),
        ("from . import beside", {"beside.py"}),
        ("import lib.deep.up", {*DEEP, "lib/network.py", "lib/deep/up.py"}),
    ],
)
def test_which_files_are_imported(project, here: Path, source: str, found: set[str]) -> None:
    (here / "start.py").write_text(source + "\n")
    assert set(imported_files.hash_imported_files(here / "start.py")) == {"start.py", *found}


def test_the_files_of_a_package_that_brings_a_method_count(here: Path, monkeypatch, paint: Paint, go: Go) -> None:
    package = here / "site-packages/camcli_brings"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "numbers.py").write_text("FACTOR = 1\n")
    (package / "method.py").write_text(
        "from camcli_brings import numbers\n\n\ndef twice(act, grad):\n"
        '    """Nobody 2026."""\n    return numbers.FACTOR * (grad * act).sum(1)\n'
    )
    monkeypatch.syspath_prepend(str(here / "site-packages"))
    point = EntryPoint("gradient.twice", "camcli_brings.method:twice", "camcli.methods")
    monkeypatch.setattr(registry, "find_entry_points", lambda: EntryPoints([point]))
    from camcli.methods import METHODS

    monkeypatch.setattr(METHODS, "rows", (*METHODS.builtin_rows, *METHODS.read_entry_points()))
    paint("a.png")
    go("a.png", method="twice")
    assert "code of camcli_brings/numbers.py" in facts()["counted"]
    (package / "numbers.py").write_text("FACTOR = 3\n")
    with pytest.raises(RequestError, match=r"another job: the code of camcli_brings/numbers.py changed$"):
        go("a.png", method="twice")
    for name in [name for name in sys.modules if name.startswith("camcli_brings")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("camcli", "0.0.9", "camcli was 0.0.9, is "),
        ("torch", "1.0", "torch was 1.0, is 2."),
        ("layers", "stem", "layers was stem, is body"),
        ("buffers", "sha256:00", "the buffers changed"),
        ("weights", "sha256:00", "the weights changed"),
        ("timm", "1.0", "timm was 1.0, is nothing"),
    ],
)
def test_what_differs_behind_the_same_words_is_named(paint: Paint, go: Go, name: str, value: str, said: str) -> None:
    paint("a.png")
    go("a.png")
    # As if the run before had been another: its lines and its run.json have another fingerprint.
    run = facts()
    run["counted"][name] = value
    run["fingerprint"] = fingerprint.compute_fingerprint(run["counted"])
    ledger = Path("out/outcomes.jsonl")
    ledger.write_text(ledger.read_text().replace(facts()["fingerprint"], run["fingerprint"]))
    Path("out/run.json").write_text(json.dumps(run))
    with pytest.raises(RequestError, match="'out' contains the results of another job") as caught:
        go("a.png")
    assert said in caught.value.message


def made_otherwise(**parts: str) -> str:
    """As if the last run had had these parts: its lines and its run.json have another fingerprint, which is given."""
    run = facts()
    now = run["fingerprint"]
    run["counted"] |= parts
    run["fingerprint"] = fingerprint.compute_fingerprint(run["counted"])
    ledger = Path("out/outcomes.jsonl")
    ledger.write_text(ledger.read_text().replace(now, run["fingerprint"]))
    Path("out/run.json").write_text(json.dumps(run))
    return run["fingerprint"]


def done(inputs: str, **options) -> Run:
    run = Run(Job(inputs=(inputs,), out="out", device="cpu", **options))
    with run:
        list(run)
    return run


@pytest.mark.usefixtures("two")
def test_results_of_other_versions_stay_where_that_is_asked_for(paint: Paint, go: Go, tiny: str) -> None:
    go("in", save=("array",))
    then = made_otherwise(camcli="0.0.9", torch="1.0")
    paint("in/c.png")
    with pytest.raises(RequestError, match=r"camcli was 0\.0\.9, is .*; torch was 1\.0, is 2") as caught:
        go("in", save=("array",))
    assert caught.value.hint.startswith("keep them beside the new ones with --accept-versions, choose another folder")
    run = done("in", model=tiny, save=("array",), accept_versions=True)
    note = "earlier results made by camcli 0.0.9, torch 1.0 count as done (--accept-versions)"
    assert note in run.notes
    assert note in facts()["notes"]
    assert (facts()["skipped"], facts()["pictures"]) == (2, 3)
    # Each line says which versions made it, by its job.
    now = facts()["fingerprint"]
    assert [row["job"] for row in ledger()] == [then, then, now]
    assert facts()["accepted"] == {then: {"camcli": "0.0.9", "torch": "1.0"}}
    # It was agreed to, so the same command goes on; and when versions change again, it is asked again.
    assert go("in", save=("array",)) == [[], [], []]
    assert facts()["accepted"] == {then: {"camcli": "0.0.9", "torch": "1.0"}}
    second = made_otherwise(torch="1.1")
    with pytest.raises(RequestError, match=r"torch was 1\.1, is 2"):
        go("in", save=("array",))
    assert go("in", save=("array",), accept_versions=True) == [[], [], []]
    assert facts()["accepted"].keys() == {then, second}
    # What is done again is this version's, and what nobody made is not listed.
    go("in", save=("array",), overwrite=True)
    assert {row["job"] for row in ledger()} == {now}
    go("in", save=("array",))
    assert "accepted" not in facts()


@pytest.mark.usefixtures("two")
def test_overwriting_some_of_other_versions_results_keeps_the_rest_only_by_that_word(go: Go) -> None:
    go("in", save=("array",))
    then = made_otherwise(camcli="0.0.9")
    with pytest.raises(RequestError, match=r"not in this run: in/b\.png") as caught:
        go("in/a.png", save=("array",), overwrite=True)
    assert "keep them beside the new ones with --accept-versions" in caught.value.hint
    go("in/a.png", save=("array",), overwrite=True, accept_versions=True)
    assert {row["name"]: row["job"] for row in ledger()} == {"in/a.png": facts()["fingerprint"], "in/b.png": then}


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        ({"weights": "sha256:00"}, {}),
        ({"camcli": "0.0.9", "layers": "stem"}, {}),
        ({"timm": "1.0"}, {}),
        ({"camcli": "0.0.9"}, {"background": "#000000"}),
        ({"camcli": "0.0.9", "code of tiny.py": "sha256:00"}, {}),
    ],
)
def test_versions_are_accepted_only_where_nothing_else_differs(paint: Paint, go: Go, parts, options) -> None:
    paint("a.png")
    go("a.png")
    made_otherwise(**parts)
    rows = ledger()
    with pytest.raises(RequestError, match=r"--accept-versions is for results that differ only in versions$") as it:
        go("a.png", accept_versions=True, **options)
    assert "accept" not in it.value.hint
    assert ledger() == rows


def test_a_record_that_was_written_by_hand_is_not_accepted(paint: Paint, go: Go) -> None:
    paint("a.png")
    go("a.png")
    made_otherwise(camcli="0.0.9")
    run = facts()
    run["counted"]["camcli"] = "0.0.8"  # its fingerprint is that of 0.0.9
    Path("out/run.json").write_text(json.dumps(run))
    with pytest.raises(RequestError, match="only in versions"):
        go("a.png", accept_versions=True)


def test_pictures_drawn_by_one_scale_and_with_shared_concepts_stay_with_other_versions(two: None, go: Go) -> None:
    shared = {"method": "dff", "options": ("concepts=2",), "save": ("overlay",), "normalize": "run"}
    go("in/a.png", "in/b.png", **shared)
    then = made_otherwise(camcli="0.0.9")
    with pytest.raises(RequestError, match=r"another job: camcli was 0\.0\.9"):
        go("in", **shared)
    with np.load("out/concepts.npz") as arrays:
        np.savez("out/concepts.npz", **{**arrays, "job": np.array(then)})
    assert go("in", accept_versions=True, **shared) == [[], []]
    assert facts()["accepted"].keys() == {then}


def test_versions_are_of_the_libraries_that_the_network_is_made_of() -> None:
    import timm
    import torchvision

    def first_two(version: str) -> str:
        return ".".join(version.split(".")[:2])

    plain = fingerprint.find_versions(nn.Sequential(nn.Conv2d(3, 3, 1)))
    assert set(plain) == {"camcli", "torch"}
    assert plain["torch"] == first_two(torch.__version__)
    assert "+" not in plain["torch"]
    both = fingerprint.find_versions(
        nn.Sequential(timm.create_model("test_resnet"), torchvision.ops.FrozenBatchNorm2d(3))
    )
    assert both == {**plain, "timm": timm.__version__, "torchvision": first_two(torchvision.__version__)}


class Scaled(nn.Module):
    def __init__(self, factor: float, persistent: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.stem.weight.fill_(1)
            self.stem.bias.zero_()
        self.register_buffer("factor", torch.tensor(factor), persistent=persistent)


def test_buffers_that_no_file_holds_count(tiny: str) -> None:
    from dataclasses import replace

    network = Worker(Job(model=tiny, device="cpu")).network
    one, same, other = (replace(network, module=Scaled(factor)) for factor in (1.0, 1.0, 2.0))
    assert one.sha256() == other.sha256()  # the weights are the same
    assert one.unsaved_sha256() == same.unsaved_sha256() != other.unsaved_sha256()
    saved = [replace(network, module=Scaled(factor, persistent=True)) for factor in (1.0, 2.0)]
    assert saved[0].unsaved_sha256() == saved[1].unsaved_sha256() == network.unsaved_sha256()


def test_the_layer_chosen_by_default_counts(tiny: str, monkeypatch) -> None:
    chosen = Worker(Job(model=tiny, device="cpu"))
    named = Worker(Job(model=tiny, device="cpu", layers=("body",)))
    assert chosen.fingerprint_parts["layers"] == named.fingerprint_parts["layers"] == "body"
    monkeypatch.setattr("camcli.engine.checks.layer_choice.find_default_layer", lambda *more, **options: "stem")
    other = Worker(Job(model=tiny, device="cpu"))
    assert other.explainer.layers == ("stem",)
    assert other.fingerprint != chosen.fingerprint


def test_the_fingerprint_is_that_of_the_parts(tiny: str) -> None:
    worker = Worker(Job(model=tiny, device="cpu"))
    parts = {"job", "weights", "buffers", "preprocessing", "labels", "layers", "camcli", "torch", "code of tiny.py"}
    assert set(worker.fingerprint_parts) == parts
    assert worker.fingerprint == fingerprint.compute_fingerprint(worker.fingerprint_parts)
    for name in parts:
        assert fingerprint.compute_fingerprint({**worker.fingerprint_parts, name: "another"}) != worker.fingerprint


def test_a_row_brought_in_by_a_test_has_no_file(bring: Bring, paint: Paint, go: Go) -> None:
    def own(act):
        """Nobody 2026."""
        return act.sum(1)

    paint("a.png")
    ((one,),) = go("a.png", method=bring(own))
    assert one.error is None


def test_the_preprocessing_counts_as_it_did_under_its_classs_first_name() -> None:
    preprocess = Preprocess(size=(16, 16), mean=(0.0,), std=(1.0,), resize=(16, 16), fit="squash")
    network = Network("n", nn.Identity(), preprocess, Labels(("a",)), "pretrained", "here")
    written = fingerprint.collect_parts(Job(), network, "0")["preprocessing"]
    assert written == fingerprint.hash_part(
        "Prepare(size=(16, 16), mean=(0.0,), std=(1.0,), resize=(16, 16), fit='squash', "
        "interpolation='bicubic', fill=0)"
    )
