"""Wrappers: a module of the user's own around a model, and extra features beside the images."""

import importlib
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Small, pictures, seeded
from PIL import Image
from readback import facts, ledger
from torch import Tensor, nn
from typer.testing import CliRunner

import camcli
from camcli import Explainer, RequestError
from camcli.cli import app
from camcli.engine.layers.paths import resolve
from camcli.images.features import ExtraInputs, FeatureFile
from camcli.methods import METHODS, works_at
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from conftest import BLUE, RED, ROOT, Paint

WRAPPERS = '''
import torch
from torch import nn


class Plain(nn.Module):
    """The same scores."""

    def __init__(self, network):
        super().__init__()
        self.inside = nn.Sequential(network)

    def forward(self, images):
        return self.inside(images)


class Two(Plain):
    """Red against the rest."""

    def forward(self, images):
        scores = self.inside(images)
        return torch.stack([scores[:, 0], scores[:, 1:].sum(1)], 1)


class Body(nn.Module):
    """A part of the model alone."""

    def __init__(self, network):
        super().__init__()
        self.part = network.stem

    def forward(self, images):
        return self.part(images).mean((2, 3))


class Scaled(Plain):
    """The scores times a feature, and another added."""

    def forward(self, images, features):
        assert len(features) == len(images)
        return self.inside(images) * features[:, :1] + features[:, 1:]


class Named(Plain):
    def forward(self, images, features):
        return self.inside(images) * features["weight"][:, None] + features["kind"][:, None]


class Listing(Plain):
    """A model that takes a list of (image, number) pairs."""

    def pairs(self, pairs):
        return torch.cat([self.inside(image[None]) * number for image, number in pairs])

    def forward(self, images):
        return self.pairs([(image, 1.0) for image in images])


class Raises(nn.Module):
    def __init__(self, network):
        super().__init__()
        raise ValueError("I do not like this model")


class Fails(Plain):
    def forward(self, images):
        return self.inside(images.flatten(1))


class First(Plain):
    def forward(self, images):
        return self.inside(images)[:1]


class Words(Plain):
    def forward(self, images):
        return "red"


class Map(Plain):
    def forward(self, images):
        return self.inside[0].stem(images)


class Empty(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.line = nn.Linear(3, 2)
        self.held = [network]

    def forward(self, images):
        return self.line(images.mean((2, 3)))


def function(network):
    return Plain(network)


def no_module(network):
    return lambda images: network(images)


number = 3
'''


@pytest.fixture
def wrap(here: Path) -> str:
    (here / "wrap.py").write_text(WRAPPERS)
    return "wrap.py:"


def run(tiny: str, *inputs: str, **options) -> list:
    given = {"model": tiny, "inputs": inputs, "out": "out", "device": "cpu", "save": ("array",)}
    with Run(Job(**(given | options))) as under_way:
        return list(under_way)


# ---- what is built around a model


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
    assert any("returns 1 row(s) for 2 images" in note for note in under_way.notes)
    alone = [some[0] for some in run(tiny, "in", layers=("stem",), out="alone")]
    assert [one.error for one in outcomes] == [None, None]
    assert [one.strongest for one in outcomes] == pytest.approx([one.strongest for one in alone])
    explain = Explainer(camcli.load(tiny, wrap=wrap + "Listing"), layers=["stem"])
    assert [one.index for [one] in explain(torch.rand(2, 3, 16, 16), [0, 2])] == [0, 2]
    assert any("returns 1 row(s) for 2 images" in note for note in explain.notes)


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


# ---- extra features


def extras(text: str, name: str = "x.csv") -> FeatureFile:
    Path(name).write_text(text)
    return FeatureFile(Path(name))


def test_features_of_a_csv_are_one_tensor(paint: Paint) -> None:
    for name in "ab":
        paint(f"{name}.png")
    for text in ("a.png,1,2.5\nb.png,-3,4e-1\n", "picture,age,height\nb.png,-3,0.4\n\na.png, 1, 2.5\n"):
        found = extras(text)
        assert torch.equal(found.get([Path("b.png"), Path("a.png")]), torch.tensor([[-3, 0.4], [1, 2.5]]))
        assert found.sample(3).shape == (3, 2)
    found = extras("age,Image\n7,a.png\n8,nowhere.png\n")
    assert torch.equal(found.get([Path("a.png")]), torch.tensor([[7.0]]))
    assert found.unmatched == ["nowhere.png"]


def test_features_of_an_npz_are_a_tensor_or_several_by_name(paint: Paint) -> None:
    for name in "ab":
        paint(f"{name}.png")
    paths = [Path("b.png"), Path("a.png")]
    names = np.array(["a.png", "b.png"])
    np.savez("one.npz", picture=names, heat=np.arange(12, dtype=np.float64).reshape(2, 2, 3))
    one = FeatureFile(Path("one.npz")).get(paths)
    assert isinstance(one, Tensor)
    assert (one.dtype, one.shape) == (torch.float32, (2, 2, 3))
    assert torch.equal(one[1], torch.arange(6.0).reshape(2, 3))
    np.savez("two.npz", picture=names.astype("S"), kind=np.array([3, 4], np.uint8), on=np.array([True, False]))
    two = FeatureFile(Path("two.npz")).get(paths)
    assert {name: (values.dtype, values.tolist()) for name, values in two.items()} == {
        "kind": (torch.int64, [4, 3]),
        "on": (torch.bool, [False, True]),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1\nb.png,nan\n", r"x\.csv, line 2: 'nan' is no finite number"),
        ("a.png,1\nb.png,1e99\n", r"x\.csv, line 2: '1e99' is no finite number"),
        ("picture,age\na.png,1\nb.png,old\n", r"x\.csv, line 3: 'old' in column 'age' is no finite number"),
        ("picture,age\na.png,\n", r"x\.csv, line 2: a value in column 'age' is missing"),
        ("a.png,1,2\nb.png,1\n", r"x\.csv, line 2: 2 cells, and the lines above have 3"),
        ("a.png,1\nnowhere.png,2\na.png,1\n", r"x\.csv, line 3: 'a.png' is listed twice"),
        ("name,age\na.png,1\n", r"x\.csv, line 1: 'age' is no finite number"),
        ("picture,age\n", "lists nothing"),
        ("a.png\nb.png\n", "lists no number"),
        ("", "lists nothing"),
        ("x.png,1\ny.png,2\n", r"none of the 2 names in x\.csv is an image that can be found, such as 'x.png'"),
        ('a.png,1\n"b.png,2\n', "is not CSV"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_line(paint: Paint, text: str, message: str) -> None:
    for name in "ab":
        paint(f"{name}.png")
    with pytest.raises(RequestError, match=message):
        extras(text)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"heat": np.zeros(2)}, "no array 'picture'"),
        ({"picture": np.zeros(2), "heat": np.zeros(2)}, "an array 'picture' of float64, 2"),
        ({"picture": np.array(["a.png"])}, "no array beside 'picture'"),
        (
            {"picture": np.array(["a.png", "b.png"]), "heat": np.zeros((3, 4))},
            "'heat' is 3x4, and 2 images are named",
        ),
        ({"picture": np.array(["a.png", "b.png"]), "heat": np.array([1, np.inf])}, "the first for 'b.png'"),
        ({"picture": np.array(["a.png"]), "heat": np.array(["hot"])}, "'heat' contains <U3, not numbers"),
        ({"picture": np.array(["a.png"]), "heat": np.array([{}], object)}, "cannot be read"),
    ],
)
def test_arrays_that_are_wrong_are_refused(paint: Paint, arrays: dict, message: str) -> None:
    for name in "ab":
        paint(f"{name}.png")
    np.savez("x.npz", **arrays)
    with pytest.raises(RequestError, match=message):
        FeatureFile(Path("x.npz"))


def test_files_of_other_types_are_refused(here: Path) -> None:
    (here / "x.json").write_text("{}")
    (here / "x.npz").write_text("no archive")
    (here / "x.csv").write_bytes(b"caf\xe9.png,1\n")
    for name, message in (
        ("x.json", "not .csv, .tsv or .npz"),
        ("x.npz", "cannot be read"),
        ("x.csv", "not UTF-8"),
        ("nowhere.csv", "No such file"),
    ):
        with pytest.raises(RequestError, match=message):
            FeatureFile(Path(name))


def test_features_come_to_the_wrapper_picture_by_picture(paint: Paint, tiny: str, wrap: str) -> None:
    # Scores times the first feature plus the second: maps times the first.
    for name, colour in (("a", RED), ("b", BLUE), ("c", RED)):
        paint(f"in/{name}.png", colour)
    Path("x.csv").write_text("picture,weight,shift\nb.png,2,0\nc.png,3,5\na.png,1,-1\n")
    outcomes = [some[0] for some in run(tiny, "in", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",))]
    score = 10 * 250 / 255
    assert [one.score for one in outcomes] == pytest.approx([score - 1, 2 * score, 3 * score + 5])
    part = 10 / 256 * 250 / 255
    assert [one.strongest for one in outcomes] == pytest.approx([part, 2 * part, 3 * part])
    # Whatever the batches are.
    single = run(tiny, "in", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",), batch_size=1, out="one")
    assert [some[0].score for some in single] == [one.score for one in outcomes]
    # Other features, another job.
    Path("x.csv").write_text("picture,weight,shift\nb.png,2,0\nc.png,3,5\na.png,1,-2\n")
    with pytest.raises(RequestError, match="another job"):
        run(tiny, "in", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",))


def test_several_features_come_by_name(paint: Paint, tiny: str, wrap: str) -> None:
    paint("a.png", RED)
    np.savez("x.npz", picture=np.array(["a.png"]), weight=np.array([2.0]), kind=np.array([7]))
    ((one,),) = run(tiny, "a.png", wrap=wrap + "Named", extras="x.npz", layers=("stem",))
    assert one.score == pytest.approx(20 * 250 / 255 + 7)


def test_pictures_without_features_and_features_without_a_wrapper_are_refused(
    paint: Paint, tiny: str, wrap: str
) -> None:
    for name in "abc":
        paint(f"in/{name}.png", RED)
    Path("x.csv").write_text("a.png,1,2\n")
    for options, message in (
        ({"wrap": wrap + "Scaled"}, r"x\.csv has features of 1 of the 3 images; not of in/b.png, in/c.png"),
        ({}, r"features of the images \(x\.csv\) were given, but no wrapper takes them"),
    ):
        with pytest.raises(RequestError, match=message):
            run(tiny, "in", extras="x.csv", **options)
    Path("x.csv").write_text("a.png,1,2,3\nb.png,1,2,3\nc.png,1,2,3\n")
    with pytest.raises(RequestError, match=r"Plain fails on images of shape 2x3x16x16 and features of shape 2x3"):
        run(tiny, "in", extras="x.csv", wrap=wrap + "Plain")
    assert not Path("out").exists()


def test_from_standard_input_only_the_picture_without_features_fails(paint: Paint, tiny: str, wrap: str) -> None:
    for name in "ab":
        paint(f"{name}.png", RED)
    Path("x.csv").write_text("b.png,1,2\n")
    Path("names").write_text("a.png\nb.png\n")
    job = Job(model=tiny, inputs=("-",), out="out", wrap=wrap + "Scaled", extras="x.csv", layers=("stem",))
    with Path("names").open("rb") as names, Run(job, names) as under_way:
        (bad,), (good,) = list(under_way)
    assert "x.csv has no features of this image" in bad.error
    assert good.error is None


class Beside(nn.Module):
    """Features change what the network says in the middle, and at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Small()
        self.line = seeded(nn.Linear(2, 6))

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        net = self.network
        cells = net.conv2(net.pool(net.relu1(net.norm1(net.conv1(images)))))
        cells = cells * (1 + self.line(features).square()[:, :, None, None])
        return net.fc(net.relu2(cells).square().mean((2, 3))) * features[:, :1]


FEATURES = torch.tensor([[1.0, 2.0], [0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)
OPTIONS = {"rise": {"samples": 6}, "smoothgrad": {"samples": 3}, "dff": {"over": "picture"}}
TRIED = [
    row.name
    for row in METHODS.rows
    if works_at(row) != "attention" and row.name not in ("cam", "fullgrad", "activation")
]


@pytest.mark.parametrize("method", TRIED)
def test_features_follow_their_picture_also_into_its_variants(method: str) -> None:
    model, images = Beside(), pictures(3, 16)
    place = {"layers": ["network.conv2"]} if "layer" in works_at(METHODS.find(method)) else {}
    place["options"] = OPTIONS.get(method, {})
    explain = Explainer(model, method=method, batch_size=4, **place)
    together = explain(images, [1, 2, 1], extras=FEATURES)
    for row, found in enumerate(together):
        alone = Explainer(model, method=method, batch_size=4, **place)(
            images[row : row + 1], [1, 2, 1][row : row + 1], extras=FEATURES[row : row + 1]
        )
        for one, other in zip(found, alone[0], strict=True):
            np.testing.assert_allclose(one.map, other.map, rtol=1e-4, atol=1e-6)
    assert not model._forward_pre_hooks


def test_one_pictures_features_alone_change_its_map_alone() -> None:
    model, images = Beside(), pictures(3, 16)
    explain = Explainer(model, layers=["network.conv2"])
    before = explain(images, 1, extras=FEATURES)
    other = FEATURES.clone()
    other[1] += 1
    after = explain(images, 1, extras=other)
    same = [np.array_equal(one.map, two.map) for (one,), (two,) in zip(before, after, strict=True)]
    assert same == [True, False, True]


def test_features_are_spread_over_the_variants_of_each_image() -> None:
    class Hears(nn.Module):
        def forward(self, images: Tensor, features: Tensor) -> Tensor:
            return features

    module = Hears()
    feed = ExtraInputs(module)
    features = torch.tensor([[1.0], [2.0], [3.0]])
    with feed.providing(features):
        assert module(torch.zeros(6, 3, 2, 2)).flatten().tolist() == [1, 1, 2, 2, 3, 3]
        with feed.restricted_to([2, 0]):
            assert module(torch.zeros(4, 3, 2, 2)).flatten().tolist() == [3, 3, 1, 1]
        assert module(torch.zeros(3, 3, 2, 2).half()).dtype == torch.float16
        with pytest.raises(ValueError, match="features of 3 images cannot be used with 4 images"):
            module(torch.zeros(4, 3, 2, 2))
    assert not module._forward_pre_hooks


def test_wrappers_and_features_in_python(paint: Paint, tiny: str, wrap: str) -> None:
    for name in "ab":
        paint(f"in/{name}.png", RED)
    Path("x.csv").write_text("a.png,1,0\nb.png,4,0\n")
    found = list(camcli.explain("in", model=tiny, wrap=wrap + "Scaled", extras="x.csv", layer="stem"))
    np.testing.assert_allclose(found[1].map, 4 * found[0].map, rtol=1e-6)


def test_features_go_with_groups(paint: Paint, tiny: str, wrap: str, here: Path) -> None:
    text = "\n\nclass Both(Scaled):\n    def forward(self, images, features):\n"
    text += "        return super().forward(images, features).sum(0, keepdim=True)\n"
    (here / "wrap.py").write_text(WRAPPERS + text)
    for name in "abcd":
        paint(f"in/{name}.png", RED)
    Path("x.csv").write_text("a.png,1,0\nb.png,2,0\nc.png,3,0\nd.png,4,0\n")
    options = {"wrap": wrap + "Both", "group": "2", "extras": "x.csv", "layers": ("stem",)}
    outcomes = [some[0] for some in run(tiny, "in", **options)]
    score = 10 * 250 / 255
    assert [one.score for one in outcomes] == pytest.approx([3 * score] * 2 + [7 * score] * 2)
    strongest = [one.strongest for one in outcomes]
    assert strongest == pytest.approx([number * strongest[0] for number in (1, 2, 3, 4)])
    assert len(ledger()) == 4
    assert list(itertools.chain(*run(tiny, "in", **options))) == []


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
