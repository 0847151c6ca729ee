"""A job: what it cannot be, and which of its fields make it another job."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from camcli.base.errors import RequestError
from camcli.runs.job import content
from camcli.runs.job.content import DRAWING_OPTIONS, NOT_IN_FINGERPRINT
from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Counts, Outcome

# For each field another value than its default; files are made where a name is a file's.
CHANGED = {
    "model": "resnet50",
    "weights": "random",
    "labels": "labels.txt",
    "text": ("a cat",),
    "texts": "prompts.txt",
    "template": ("a photo of a {}.",),
    "text_tower": "tower.py:embed",
    "trust_code": True,
    "size": "256x384",
    "crop": "none",
    "preprocess": "imagenet",
    "wrap": "wrapper.py:Wrapper",
    "group": "4",
    "extras": "extras.csv",
    "layers": ("layer4",),
    "layout": "tokens:1:14x14",
    "call": 2,
    "method": "hirescam",
    "options": ("samples=8",),
    "fuse": "max",
    "scales": "0.5,1",
    "augment": ("flip",),
    "eigen_smooth": True,
    "backward": "libra",
    "target": ("top:2",),
    "targets": "targets.csv",
    "true_boxes": "boxes.csv",
    "output": "logits",
    "region": "mask.png",
    "min_score": 0.25,
    "inputs": ("photos",),
    "null_separated": True,
    "out": "elsewhere",
    "root": "/",
    "save": ("panel",),
    "colormap": "jet",
    "outside": "hatch",
    "panel_size": 640,
    "head": "none",
    "pool": "none",
    "activation": "sigmoid",
    "score": "margin",
    "versus": ("tabby",),
    "counterfactual": True,
    "alpha": 0.4,
    "normalize": "run",
    "decode": "reduced",
    "background": "#000000",
    "range": "0,4095",
    "bands": "4,3,2",
    "rgb": "1,2,3",
    "pages": "all",
    "every": "2s",
    "carry": ("site", "camera"),
    "limit": 2,
    "shard": "2/3",
    "overwrite": True,
    "drop_others": True,
    "accept_versions": True,
    "durable": True,
    "placement": "even",
    "batch_size": 3,
    "recompute": True,
    "workers": 3,
    "timeout": 5.0,
    "device": "cpu",
    "precision": "bf16",
    "compile": "on",
    "linear": "onednn",
    "seed": 1,
}
HOW = {
    *("inputs", "null_separated", "out", "root", "overwrite", "drop_others", "accept_versions", "durable", "pages"),
    *("every", "carry", "limit", "shard"),
    *("batch_size", "recompute", "workers", "timeout", "device", "compile", "linear", "seed", "save"),
}
DRAWN = {"colormap", "alpha", "outside", "normalize", "panel_size", "rgb"}


@pytest.fixture
def files(here: Path) -> Path:
    for name in (
        "labels.txt",
        "targets.csv",
        "boxes.csv",
        "weights.pth",
        "mask.png",
        "extras.csv",
        "wrapper.py",
        "prompts.txt",
        "tower.py",
    ):
        (here / name).write_text("one")
    return here


def test_an_option_that_a_version_adds_changes_nothing_as_it_is_by_default(monkeypatch) -> None:
    asked = content.collect_options
    before, other = Job(min_score=0.2).fingerprint, Job(min_score=0.3).fingerprint
    monkeypatch.setattr(content, "collect_options", lambda job: {**asked(job), "later": 0})
    assert Job(min_score=0.2).fingerprint == before != other
    monkeypatch.setattr(content, "collect_options", lambda job: {**asked(job), "later": int(job.min_score == 0.2)})
    assert Job(min_score=0.2).fingerprint != before


def test_every_field_is_tried_here() -> None:
    assert set(CHANGED) == {field.name for field in fields(Job)}
    assert all(getattr(Job(), name) != value for name, value in CHANGED.items())
    assert (NOT_IN_FINGERPRINT, set(DRAWING_OPTIONS)) == (HOW, DRAWN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": -1}, "batch_size cannot be -1"),
        ({"workers": -1}, "workers cannot be -1"),
        ({"panel_size": 9}, "panel_size cannot be 9"),
        ({"timeout": -1.0}, "timeout cannot be -1"),
        ({"timeout": float("nan")}, "timeout cannot be nan"),
        ({"timeout": float("inf")}, "timeout cannot be inf"),
        ({"call": -1}, "call cannot be -1"),
        *(
            ({"layout": word}, f"layout cannot be '{word}'")
            for word in (
                "nchv",
                "tokens",
                "tokens:1",
                "tokens:1:14",
                "tokens:-1:2x2",
                "tokens:1:0x7",
                "nhwc:0:7x7",
                "ncl:1:7x7 ",
            )
        ),
        *(({"scales": words}, f"scales cannot be '{words}'") for words in ("", "0", "x", "1,,2", "nan", "11", "1;2")),
        ({"augment": ("flop",)}, "augment cannot be 'flop'"),
        ({"alpha": 1.01}, "alpha cannot be 1.01"),
        ({"alpha": -0.1}, "alpha cannot be -0.1"),
        ({"alpha": float("nan")}, "alpha cannot be nan"),
        ({"min_score": 1.01}, "min_score cannot be 1.01"),
        ({"target": ()}, "no target is given"),
        *(
            ({"size": size}, f"size cannot be '{size}'")
            for size in ("0", "-1", "x", "256x", "x256", "1x2x3", "256 x 384", "0x224", "224.0", "big", "1000000")
        ),
        ({"save": ()}, "no output format is given"),
        *(({"wrap": words}, f"wrap cannot be '{words}'") for words in ("w.py", "w.py:", ":Wrapper")),
        *(({"text_tower": words}, f"text_tower cannot be '{words}'") for words in ("w.py", "w.py:", ":embed")),
        ({"template": ("a photo",)}, "'a photo' has no places for a prompt"),
        ({"template": ("imagenet", "{} {}")}, "'{} {}' has 2 places for a prompt"),
        *(({"group": word}, f"group cannot be '{word}'") for word in ("0", "-1", "4x", "folders", "01", "2.0")),
        ({"target": ("red",), "targets": "t.csv"}, r"both a target \(red\) and a file of targets \(t.csv\)"),
    ],
)
def test_what_no_job_can_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Job(**options)


@pytest.mark.parametrize("word", ["normalize", "precision", "crop", "fuse", "compile", "linear"])
def test_a_word_that_is_not_among_the_choices_is_refused(word: str) -> None:
    # In a process of its own, where the tests' check of types does not come first.
    code = f"from camcli.runs.job.job import Job; Job({word}='sometimes')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"RequestError: {word} cannot be 'sometimes'" in done.stderr


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", sorted(set(CHANGED) - HOW - DRAWN))
def test_the_fingerprint_changes_with_whatever_changes_a_pictures_files(name: str) -> None:
    assert replace(Job(), **{name: CHANGED[name]}).fingerprint != Job().fingerprint


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", sorted(HOW | DRAWN))
def test_the_fingerprint_does_not_change_with_how_or_where_the_work_is_done(name: str) -> None:
    assert replace(Job(), **{name: CHANGED[name]}).fingerprint == Job().fingerprint


def test_the_fingerprint_is_16_hex_digits_and_the_same_each_time() -> None:
    assert Job().fingerprint == Job().fingerprint
    assert len(Job().fingerprint) == 16
    int(Job().fingerprint, 16)


def test_order_and_division_count() -> None:
    assert Job(text=("a cat", "a dog")).fingerprint != Job(text=("a dog", "a cat")).fingerprint
    assert Job(text=("a, b",)).fingerprint != Job(text=("a", "b")).fingerprint


@pytest.mark.parametrize("name", ["weights", "labels", "targets", "extras", "texts"])
def test_a_named_file_counts_by_its_content_not_by_its_name(files: Path, name: str) -> None:
    first, second = files / "first", files / "second"
    first.write_text("1")
    second.write_text("1")
    before = replace(Job(), **{name: str(first)}).fingerprint
    assert replace(Job(), **{name: str(second)}).fingerprint == before
    first.write_text("2")
    assert replace(Job(), **{name: str(first)}).fingerprint != before


def test_a_picture_to_compare_with_counts_by_its_content(here: Path) -> None:
    (here / "a.png").write_text("1")
    before = Job(target=("similar:a.png",)).fingerprint
    assert Job(target=("similar:a.png",)).fingerprint == before
    (here / "a.png").write_text("2")
    assert Job(target=("similar:a.png",)).fingerprint != before
    with pytest.raises(RequestError, match=r"the target file 'b.png' cannot be read"):
        _ = Job(target=("similar:b.png",)).fingerprint


def test_a_model_of_the_users_own_counts_by_its_code_and_function(here: Path) -> None:
    for name in ("a.py", "b.py"):
        (here / name).write_text("def make(): ...")
    before = Job(model="a.py:make").fingerprint
    assert Job(model="b.py:make").fingerprint == before
    assert Job(model=f"{here}/a.py:make").fingerprint == before
    assert Job(model="a.py:other").fingerprint != before
    (here / "a.py").write_text("def make(): return 1")
    assert Job(model="a.py:make").fingerprint != before


def test_a_wrapper_counts_by_its_code_and_class(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    for name in ("a.py", "bundle/__init__.py", "bundle/part.py"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("class Wrapper: ...")
    before = Job(wrap="a.py:Wrapper").fingerprint
    assert Job(wrap=f"{here}/a.py:Wrapper").fingerprint == before
    assert Job(wrap="bundle.part:Wrapper").fingerprint == before
    assert Job(wrap="a.py:Other").fingerprint != before
    for name, words in (("a.py", "a.py:Wrapper"), ("bundle/part.py", "bundle.part:Wrapper")):
        (here / name).write_text("class Wrapper: x = 1")
        assert Job(wrap=words).fingerprint != before
    for words in ("nowhere.part:Wrapper", "bundle.nowhere:Wrapper", "sys:Wrapper"):
        with pytest.raises(RequestError, match="there is no module"):
            _ = Job(wrap=words).fingerprint


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"extras": "nowhere.csv"}, "the extras file 'nowhere.csv'"),
        ({"wrap": "nowhere.py:Wrapper"}, "the wrap file 'nowhere.py'"),
        ({"weights": "nowhere.pth"}, "the weights file 'nowhere.pth'"),
        ({"labels": "nowhere.txt"}, "the labels file 'nowhere.txt'"),
        ({"targets": "nowhere.csv"}, "the targets file 'nowhere.csv'"),
        ({"model": "nowhere.py:make"}, "the model file 'nowhere.py'"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_named_file_that_cannot_be_read_is_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(RequestError, match="No such file") as caught:
        _ = Job(**options).fingerprint
    assert named in caught.value.message


@pytest.mark.parametrize("kept", ["target", "targets", "true_boxes"])  # there cannot be two of them
def test_a_job_survives_json(kept: str) -> None:
    # Neither can a shard be with a scale, or groups, of all images.
    left_out = {"target", "targets", "true_boxes", "shard"} - {kept}
    job = Job(**{name: value for name, value in CHANGED.items() if name not in left_out})
    read = json.loads(json.dumps(job.as_dict()))
    assert Job(**{name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}) == job
    assert set(read) == set(CHANGED)


def test_an_outcome_is_one_line_of_json_whatever_the_name() -> None:
    line = Outcome(source="a\nb\u2028c\udcff.jpg", name="x", stamp="", job="j", run="r", peak=(1.5, 2.0)).as_line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    read = json.loads(line.decode("utf-8"))
    assert read["source"] == "a\nb\u2028c\udcff.jpg"
    assert read["peak"] == [1.5, 2.0]
    assert read["error"] is None


def test_a_tally_counts_pictures_not_maps() -> None:
    good = Outcome(source="a", name="a", stamp="", job="j", run="r")
    bad = replace(good, error="empty")
    counts = Counts()
    assert counts.exit_code == 0
    for outcomes in ([good, good, good], [good, bad], [], [bad]):
        counts.add(outcomes)
    assert (counts.done, counts.failed, counts.skipped, counts.processed) == (1, 2, 1, 4)
    assert counts.exit_code == 1
