"""Wrappers: a module of the user's own around a model, refused where it is none; the examples that come along."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Small
from PIL import Image
from readback import facts, ledger
from shared import BLUE, RED, ROOT, Paint
from torch import nn
from typer.testing import CliRunner
from wrappers import WRAPPERS, run

import camcli
from camcli import Explainer, RequestError
from camcli.cli import app
from camcli.engine.layers.paths import resolve
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job


@pytest.mark.parametrize("name", ["Plain", "function", "Listing"])
@pytest.mark.parametrize("layer", ["stem", "inside.0.stem", "inside[0].stem"])
def test_a_layer_is_found_in_the_wrapper_and_in_what_it_wraps(
    paint: Paint, tiny: str, wrap: str, name: str, layer: str
) -> None:
    paint("a.png", RED, box=(4, 4, 20, 20))
    ((one,), *_) = run(tiny, "a.png", layers=("stem",), out="alone")
    ((other,), *_) = run(tiny, "a.png", wrap=wrap + name, layers=(layer,))
    assert (other.layer, other.label, other.score) == ("inside.0.stem", one.label, one.score)
    np.testing.assert_array_equal(np.load("out/a.png.npy"), np.load("alone/a.png.npy"))
    assert facts()["job"]["wrap"] == wrap + name
    assert "wrapped by wrap.py" in facts()["model"]["origin"]


def test_a_model_that_takes_pictures_one_after_another_is_given_one_at_a_time(
    paint: Paint, tiny: str, wrap: str
) -> None:
    for name, colour in (("a", RED), ("b", BLUE)):
        paint(f"in/{name}.png", colour, box=(4, 4, 20, 20))
    job = Job(model=tiny, inputs=("in",), out="out", wrap=wrap + "Listing", layers=("stem",), save=("array",))
    with Run(job) as under_way:
        outcomes = [some[0] for some in under_way]
    assert any("returns 1 row for 2 images" in note for note in under_way.notes)
    alone = [some[0] for some in run(tiny, "in", layers=("stem",), out="alone")]
    assert [one.error for one in outcomes] == [None, None]
    assert [one.strongest for one in outcomes] == pytest.approx([one.strongest for one in alone])
    explain = Explainer(camcli.load(tiny, wrap=wrap + "Listing"), layers=["stem"])
    assert [one.index for [one] in explain(torch.rand(2, 3, 16, 16), [0, 2])] == [0, 2]
    assert any("returns 1 row for 2 images" in note for note in explain.notes)


def test_an_installed_module_will_do(
    paint: Paint, tiny: str, wrap: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "bundle_of_mine").mkdir()
    (here / "bundle_of_mine" / "__init__.py").write_text("")
    (here / "bundle_of_mine" / "part.py").write_text(WRAPPERS)
    importlib.invalidate_caches()
    paint("a.png", RED)
    ((one,),) = run(tiny, "a.png", wrap="bundle_of_mine.part:Plain", layers=("stem",))
    assert one.layer == "inside.0.stem"


def test_classes_keep_their_names_where_they_are_as_many_and_are_numbered_where_not(
    paint: Paint, tiny: str, wrap: str, here: Path
) -> None:
    paint("a.png", RED)
    assert camcli.load(tiny, wrap=wrap + "Plain").labels.names[0] == "red, crimson"
    network = camcli.load(tiny, wrap=wrap + "Two")
    assert network.labels.names == ("class 0", "class 1")
    assert any("the names of the 2 classes are unknown" in note for note in network.notes)
    (here / "names.txt").write_text("red\nother\n")
    ((one,),) = run(tiny, "a.png", wrap=wrap + "Two", labels="names.txt")
    assert one.label == "red"


def test_a_part_of_the_model_will_do_and_its_other_layers_are_refused(paint: Paint, tiny: str, wrap: str) -> None:
    paint("a.png", RED)
    ((one,),) = run(tiny, "a.png", wrap=wrap + "Body", layers=("stem",))
    assert one.layer == "part"
    with pytest.raises(
        RequestError, match=r"the layer 'body' belongs to the wrapped model, which the wrapper \(Body\) does not"
    ):
        run(tiny, "a.png", wrap=wrap + "Body", layers=("body",))
    with pytest.raises(
        RequestError, match=r"'stemm' does not exist: .*\(Tiny\) .*; nor has the wrapper \(Body\): part"
    ):
        run(tiny, "a.png", wrap=wrap + "Body", layers=("stemm",))


def test_a_wrappers_own_layer_goes_before_the_models(tiny: str) -> None:
    outer = nn.Module()
    outer.conv1 = nn.Sequential()
    outer.inner = Small()
    assert resolve(outer, ["conv1", "conv2", "inner.conv1"], outer.inner) == ["conv1", "inner.conv2", "inner.conv1"]


def test_a_model_that_takes_no_pictures_by_itself_can_be_wrapped(paint: Paint, wrap: str, here: Path) -> None:
    (here / "film.py").write_text(
        """
import torch
from torch import nn
from camcli import Preprocess

class Film(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, films):
        return self.fc(self.conv(films).relu().mean((2, 3, 4)))

def make():
    torch.manual_seed(0)
    preprocess = Preprocess(size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3, resize=(16, 16), fit="squash")
    return Film(), preprocess, ["no", "yes"]

class Frames(nn.Module):
    def __init__(self, film):
        super().__init__()
        self.film = film

    def forward(self, images):
        return self.film(images.transpose(0, 1)[None])
"""
    )
    for number in range(4):
        paint(f"in/{number}.png", (60 * number, 100, 200), box=(4, 4, 20, 20))
    options = {"wrap": "film.py:Frames", "group": "4", "layers": ("conv",), "target": ("yes",)}
    outcomes = [some[0] for some in run("film.py:make", "in", **options)]
    assert [one.error for one in outcomes] == [None] * 4
    assert len({one.score for one in outcomes}) == 1


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("nowhere.py:Plain", "there is no file 'nowhere.py'", "path/to/file.py:Class"),
        ("nowhere.part:Plain", "there is no module 'nowhere.part'", "package.module:Class"),
        ("wrap.py:Plane", "'wrap.py' has no class 'Plane'", "did you mean 'Plain'"),
        ("wrap.py:number", "'wrap.py' has no class 'number'", "there are: "),
        ("wrap.py:Raises", "wrap.py:Raises failed: ValueError: I do not like this model", 'raise ValueError("I do not'),
        ("wrap.py:no_module", "wrap.py:no_module returns a function, not a torch.nn.Module", "from images"),
        ("wrap.py:Empty", "does not contain the model", "self.network = network"),
        ("wrap.py:Fails", "wrap.py:Fails fails on images of shape 2x3x16x16: RuntimeError", "images.flatten(1)"),
        ("wrap.py:First", "given images of shape 2x3x16x16: the model returns 1x3 for 2 image", "--group N"),
        ("wrap.py:Words", "given images of shape 2x3x16x16: the model returns str for 2 image", ""),
        ("wrap.py:Map", "given images of shape 2x3x16x16: the model returns 2x3x16x16 for 2 image", ""),
        ("wrap.py:Scaled", "wrap.py:Scaled fails on images of shape 2x3x16x16: TypeError", "--group"),
        ("broken.py:Plain", "importing 'broken.py' failed: SyntaxError", ""),
    ],
)
def test_what_is_no_wrapper_is_refused_before_anything_is_written(
    paint: Paint, tiny: str, wrap: str, here: Path, words: str, message: str, hint: str
) -> None:
    (here / "broken.py").write_text("class Plain(:\n")
    paint("a.png", RED)
    with pytest.raises(RequestError) as caught:
        run(tiny, "a.png", wrap=words)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert not Path("out").exists()


def test_an_edited_wrapper_makes_another_job(paint: Paint, tiny: str, wrap: str, here: Path) -> None:
    paint("a.png", RED)
    run(tiny, "a.png", wrap=wrap + "Plain")
    assert run(tiny, "a.png", wrap=wrap + "Plain") == [[]]
    (here / "wrap.py").write_text(WRAPPERS.replace("The same scores", "Still the same scores"))
    with pytest.raises(RequestError, match="another job"):
        run(tiny, "a.png", wrap=wrap + "Plain")


# ---- the examples that come along


@pytest.fixture
def examples(here: Path, sample_images: Path) -> Path:
    """The job files and their wrappers, with small copies of the sample images."""
    shutil.copytree(ROOT / "configs", here / "configs")
    (here / "sample_images").mkdir()
    for path in sample_images.iterdir():
        if path.suffix != ".md":
            with Image.open(path) as picture:
                picture.thumbnail((96, 96))
                picture.save(here / "sample_images" / path.name)
    return here


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    ("name", "layer", "count"),
    [
        ("crops-and-frames", "film.backbone.bn2", 4),
        ("with-features", "network.bn2", 7),
        ("one-prediction", "network.bn2", 7),
    ],
)
def test_the_examples_run(name: str, layer: str, count: int) -> None:
    done = CliRunner().invoke(
        app, ["explain", "--config", f"configs/{name}.toml", "--trust-config", "--out", "out", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.stderr
    outcomes = ledger()
    assert [one["error"] for one in outcomes] == [None] * count
    assert {one["layer"] for one in outcomes} == {layer}
    scores = {one["score"] for one in outcomes}
    assert len(scores) == (count if name == "with-features" else 1)


@pytest.mark.usefixtures("examples")
def test_the_features_of_the_example_count() -> None:
    options = {"wrap": "configs/with_features.py:Wrapper", "target": "espresso"}
    text = Path("configs/with_features.csv").read_text()
    before = next(camcli.explain("sample_images/coffee.png", extras="configs/with_features.csv", **options))
    Path("configs/with_features.csv").write_text(text.replace("coffee.png,1.0", "coffee.png,0.0"))
    after = next(camcli.explain("sample_images/coffee.png", extras="configs/with_features.csv", **options))
    assert before.score == pytest.approx(2 * after.score, rel=1e-5)
    np.testing.assert_allclose(before.map, 2 * after.map, rtol=1e-3, atol=1e-6)
