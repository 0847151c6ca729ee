"""Tables and lists as people have them: what parts their cells, their titles, one-hot, ids without a suffix."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import camcli
from camcli.base import delimited
from camcli.base.errors import RequestError
from camcli.engine.network import make_two_sided
from camcli.images.features import FeatureFile
from camcli.images.manifest import Manifest
from camcli.images.numbers import NumberColumn
from camcli.runs.job.prompts import PROMPT_COLUMN
from camcli.targets import labels
from camcli.targets.labels import Labels
from camcli.targets.named import TargetManifest

INSECTS = Labels(("ant", "bee", "wasp"))
A, B = Path("a.jpg"), Path("b.jpg")


@pytest.fixture(autouse=True)
def photos(here: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "d, e.jpg"):
        (here / name).write_bytes(b"")
    return here


def listed(text: str, file: str = "t.csv") -> TargetManifest:
    Path(file).write_text(text, encoding="utf-8")
    return TargetManifest(Path(file), INSECTS)


# ---- what parts the cells


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,b\n", ","),
        ("a;b\nc;d\n", ";"),
        ("a\tb, c\nd\te\n", "\t"),
        ("a.jpg,a dog; asleep\nb.jpg,a cat\n", ","),  # as often in each row
        ("picture;age\na.jpg;1,5\n", ";"),  # the first row has no other
        ("a.jpg;1,5\nb.jpg;2,5\n", ";"),  # what comes first
        ('"d, e.jpg";bee\n', ";"),  # not in quotes
        ("val_1.JPEG 65\nval_2.JPEG 970\n", " "),
        ("one\ntwo\n", ","),
    ],
)
def test_what_parts_the_cells_of_a_table(text: str, parts: str) -> None:
    assert delimited.detect_delimiter(text) == parts


@pytest.mark.parametrize("parts", [",", ";", "\t"])
@pytest.mark.parametrize(
    "titles", ["image_id,class", "Image Path,Label", "filename,category", "id,y", "img,target", "file_name,class_name"]
)
def test_titles_and_delimiters_as_people_have_them(titles: str, parts: str) -> None:
    target = listed(f"{titles}\na.jpg,bee\nb.jpg,2\n".replace(",", parts))
    assert (target.get(A), target.get(B)) == ((1,), (2,))
    assert target.unmatched == []


def test_without_titles_too() -> None:
    for text in ("a.jpg;bee\nb.jpg;2\n", "a.jpg\tbee\nb.jpg\t2\n", "a.jpg bee\nb.jpg 2\n"):
        target = listed(text)
        assert (target.get(A), target.get(B)) == ((1,), (2,))


def test_an_id_is_the_picture_where_nothing_better_names_it(here: Path) -> None:
    assert listed("id,path,label\n7,a.jpg,bee\n").get(A) == (1,)
    assert listed("label,image_id\nbee,a\nwasp,b\n").get(B) == (2,)
    assert listed("image_id,label\na,bee\n").get(A) == (1,)
    (here / "a.txt").write_text("beside it")  # no image
    assert listed("a,bee\n").get(A) == (1,)
    (here / "a.png").write_bytes(b"")
    with pytest.raises(RequestError, match=r"line 1: 'a' can be 2 images"):
        listed("a,bee\n")


def test_two_columns_that_can_both_be_the_class_are_told() -> None:
    with pytest.raises(RequestError, match=r"line 1: the columns 'class' and 'label' can both be the target: 'image,"):
        listed("image,label,class\na.jpg,bee,wasp\n")
    assert listed("image,label,target\na.jpg,bee,wasp\n").get(A) == (2,)


def test_titles_nobody_knows_are_shown_and_are_no_data() -> None:
    with pytest.raises(RequestError, match=r"line 2: the column 'wasp' .* is neither 0 nor 1: 'a.jpg,bee'"):
        listed("image,wasp\na.jpg,bee\n")
    # A prompt may be any text, so nothing else would have told.
    Path("p.csv").write_text("image,remark\na.jpg,a red car\n")
    with pytest.raises(RequestError, match="line 1: 'image,remark' is a header row") as caught:
        Manifest(Path("p.csv"), PROMPT_COLUMN, str)
    assert "caption" in caught.value.hint


# ---- a column for each class


def test_one_hot_the_titles_are_the_classes() -> None:
    target = listed("image,ant,bee,wasp\na.jpg,0,1,0\nb.jpg,1,0,1\n")
    assert (target.get(A), target.get(B)) == ((1,), (0, 2))
    # As a data frame writes it, with numbers for titles, and beside a column that is of no class.
    target = listed("age,wasp,image,0\n31,1.0,a.jpg,0.0\n70,0.0,b.jpg,1.0\n")
    assert (target.get(A), target.get(B)) == ((2,), (0,))
    # An image that is of none of them is not listed.
    assert listed("image;ant;bee\na.jpg;0;0\nb.jpg;0;1\n").get(A) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,ant,sex\na.jpg,1,0\n",
            r"line 1: the column 'sex' has 0 and 1 in it, and its name is no class: 'image,ant,s",
        ),
        ("image,ant,bee\na.jpg,0,1\nb.jpg,0.3,1\n", r"line 3: the column 'ant' .* is neither 0 nor 1: 'b.jpg,0.3,1'"),
        ("image,ant,bee\na.jpg,0,1\nb.jpg,1\n", r"line 3: the column 'bee' .* is neither 0 nor 1: 'b.jpg,1'"),
        ("a.jpg,0,1,0\nb.jpg,1,0,0\n", r"line 1: 0 and 1 can be class indices or .*: 'a.jpg,0,1,0'"),
        ("image,label\na.jpg,bee,0\n", r"line 2: 3 cells under 2 titles: 'a.jpg,bee,0'"),
    ],
)
def test_what_can_be_one_hot_or_not_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        listed(text)


def test_one_hot_in_json_is_refused() -> None:
    with pytest.raises(RequestError, match=r"line 1: \[0, 1, 0\] is one-hot"):
        listed(json.dumps({"image": "a.jpg", "label": [0, 1, 0]}), "t.jsonl")


# ---- the same reader for numbers and features


def test_values_and_features_of_such_tables() -> None:
    Path("v.csv").write_text("image_id;age;dose\na;31;0.5\nb;70;2.5\n")
    assert NumberColumn("v.csv:dose")(B) == 2.5
    features = FeatureFile(Path("v.csv")).get([B, A])
    np.testing.assert_array_equal(features, np.array([[70, 2.5], [31, 0.5]], np.float32))
    Path("v.tsv").write_text("a.jpg\t31\nb.jpg\t70\n")
    assert NumberColumn("v.tsv")(B) == 70
    np.testing.assert_array_equal(FeatureFile(Path("v.tsv")).get([A]), [[31]])


def test_a_name_too_long_for_any_file_is_nobodys() -> None:
    long = "x" * 300
    assert listed(f"{long}.jpg,bee\na.jpg,ant\n").unmatched == [f"{long}.jpg"]


# ---- names of classes


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("n.txt", "0 ant\n1 bee\n2 wasp\n"),
        ("n.txt", "2,wasp\n0,ant\n\n1,bee\n"),
        ("n.txt", "0: ant\n1: bee\n2: wasp"),
        ("n.tsv", "ant\t0\nbee\t1\nwasp\t2\n"),
        ("n.csv", "index,name\n0,ant\n1,bee\n2,wasp\n"),
        ("n.csv", "name;class_id\nbee;1\nant;0\nwasp;2\n"),
        ("class_to_idx.json", '{"bee": 1, "ant": 0, "wasp": 2}'),
        ("config.json", '{"model_type": "vit", "id2label": {"0": "ant", "1": "bee", "2": "wasp"}, "hidden_size": 7}'),
        ("n.txt", '["ant", "bee", "wasp"]'),
        ("data.yaml", "path: ../x\nnc: 3\nnames: [ant, bee, wasp]\n"),
        ("data.yaml", "train: a\nnames:\n  0: ant\n  1: bee\n  2: wasp\n"),
    ],
)
def test_names_of_classes_as_libraries_write_them(file: str, text: str) -> None:
    Path(file).write_text(text)
    assert labels.read(Path(file)).names == ("ant", "bee", "wasp")


def test_what_only_looks_like_numbers_or_brackets_is_a_name() -> None:
    Path("n.txt").write_text("[none]\n3 wheeler\n10\nyes\n")
    assert labels.read(Path("n.txt")).names == ("[none]", "3 wheeler", "10", "yes")
    Path("n.txt").write_text("0\n1\n10\n2\n")
    assert labels.read(Path("n.txt")).names == ("0", "1", "10", "2")
    Path("n.yaml").write_text("names: [no, yes, 007]\n")
    assert labels.read(Path("n.yaml")).names == ("no", "yes", "007")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("n.txt", "1 ant\n2 bee\n", r"for 2 classes counted from 0: 2 is none of 0 to 1: line 2: '2 bee'"),
        ("n.txt", "0 ant\n0 bee\n", r"0 comes twice: line 2: '0 bee'"),
        ("n.json", '{"ant": 1, "bee": 2}', r"2 is none of 0 to 1: 'bee': 2"),
        ("n.json", '{"num_labels": 3, "model": "vit"}', "it contains 'num_labels': 3"),
        ("n.yaml", "names: [ant", "is not YAML"),
        ("n.yaml", "nc: 3\n", "is not a list of names"),
    ],
)
def test_names_of_classes_that_are_not_clear_are_refused(file: str, text: str, message: str) -> None:
    Path(file).write_text(text)
    with pytest.raises(RequestError, match=message):
        labels.read(Path(file))


def test_a_title_above_the_names_is_told(tiny: str) -> None:
    count = len(camcli.load(tiny).labels)
    Path("n.txt").write_text("label\n" + "".join(f"insect {number}\n" for number in "abcdefghij"[:count]))
    with pytest.raises(RequestError, match=f"has {count + 1} names, and .* has {count} classes") as caught:
        camcli.load(tiny, labels="n.txt")
    assert caught.value.hint == "its first line, 'label', looks like a header: remove it"


# ---- two names for one logit


class One(nn.Module):
    """One logit of an image."""

    def __init__(self, squeezed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(4, 1)
        self.squeezed = squeezed

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.head(self.body(images).mean((2, 3)))
        return found.squeeze() if self.squeezed else found


def network(module: nn.Module, names: tuple[str, ...] = ("healthy", "sick")) -> camcli.Network:
    preprocess = camcli.Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, (16, 16))
    return camcli.Network("one", module.eval(), preprocess, Labels(names), "pretrained", "here")


@pytest.mark.parametrize("squeezed", [False, True])
def test_of_two_names_for_one_logit_the_first_is_minus_it(squeezed: bool) -> None:
    module = One(squeezed)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    logit = module(images).reshape(3).detach()
    explainer = camcli.Explainer(network(module), layers="body", method="hirescam")
    sick, healthy = (torch.stack([torch.tensor(one.map) for [one] in explainer(images, at)]) for at in (1, 0))
    # By hand: the gradient of the logit by a cell of channel k is the head's weight over 64 cells.
    weight = module.head.weight.detach()[0] / 64
    by_hand = (module.body(images).detach() * weight[:, None, None]).sum(1)
    torch.testing.assert_close(sick, by_hand)
    torch.testing.assert_close(healthy, -by_hand)
    for row, [one, two] in enumerate(explainer(images, [[0, 1]] * 3)):
        assert (one.label, one.score) == ("healthy", pytest.approx(-float(logit[row])))
        assert (two.label, two.score) == ("sick", pytest.approx(float(logit[row])))
        assert two.probability == pytest.approx(float(logit[row].sigmoid()))
        assert one.probability == pytest.approx(1 - float(logit[row].sigmoid()))
        [best] = explainer(images)[row]
        assert best.label == ("sick" if logit[row] > 0 else "healthy")
    assert "its negative for the first" in explainer.describe_target()
    assert any("raising it is evidence for 'sick', lowering it for 'healthy'" in one for one in explainer.notes)


def test_of_two_names_for_one_probability_the_first_is_what_is_left_of_1() -> None:
    class Sure(One):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).sigmoid()

    images, labels = torch.rand(2, 3, 16, 16), Labels(("healthy", "sick"))
    sure = Sure().eval()
    for one in (network(sure), make_two_sided(network(sure), labels)):
        explainer = camcli.Explainer(one, layers="body")
        for row, [healthy, sick] in enumerate(explainer(images, [[0, 1]] * 2)):
            share = float(sure(images)[row, 0].detach())
            assert (sick.score, sick.probability) == (pytest.approx(share), pytest.approx(share))
            assert (healthy.score, healthy.probability) == (pytest.approx(1 - share), pytest.approx(1 - share))


MODEL = """
import torch
from torch import nn
from camcli import Preprocess

class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, images):
        return self.body(images).mean((2, 3)).sum(1)

PREPARE = Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, (16, 16))

def named():
    return One(), PREPARE, ["healthy", "sick"]

def bare():
    return One(), PREPARE
"""


def test_two_names_by_a_function_or_a_file(here: Path) -> None:
    (here / "m.py").write_text(MODEL)
    (here / "n.txt").write_text("healthy\nsick\n")
    for found in (camcli.load("m.py:named"), camcli.load("m.py:bare", labels="n.txt")):
        assert found.labels.names == ("healthy", "sick")
        assert found.activation == "sigmoid"
        images = torch.rand(2, 3, 16, 16)
        logit = found.module(images)
        torch.testing.assert_close(found.read(logit, 2).scores(1), torch.stack([-logit[1], logit[1]]).detach())
    with pytest.raises(RequestError, match=r"has 2 names, and .* has 1 classes"):
        camcli.load("m.py:bare", labels="n.txt", activation="none")
