"""Without --out each job has a folder of its own; how maps are drawn makes no other job."""

import json
from pathlib import Path

import numpy as np
import pytest
from readback import facts, files, ledger
from shared import GREEN, RED, Go, Paint

from camcli.base.errors import RequestError
from camcli.runs.channels import ChannelJob
from camcli.runs.channels.run import ChannelRun
from camcli.runs.explain.run import Run
from camcli.runs.job.folder_name import name_folder
from camcli.runs.job.job import Job

BOTH = {"target": ("top:2",), "layers": ("stem", "body")}


def folders() -> list[str]:
    return sorted(path.name for path in Path("camcli-out").iterdir() if path.is_dir() and not path.is_symlink())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"model": "resnet50"}, "resnet50-layer4-gradcam"),
        (
            {"model": "open_clip:ViT-B-32/openai", "text": ("a dog", "puppy")},
            "ViT-B-32-openai-layer4-gradcam-a-dog+puppy",
        ),
        ({"model": "nets/my.py:make", "target": ("tabby cat",)}, "my-layer4-gradcam-tabby-cat"),
        ({"model": "pack.nets:small", "size": "64x32"}, "nets-small-layer4-gradcam-64x32"),
        ({"model": "hf-hub:user/repo", "targets": "/a/b/wanted.csv"}, "repo-layer4-gradcam-wanted"),
        ({"model": "m", "crop": "none", "eigen_smooth": True}, "m-layer4-gradcam-crop-none-eigen-smooth"),
        ({"model": "m", "colormap": "jet", "save": ("array",), "batch_size": 3}, "m-layer4-gradcam"),
        ({"model": "../../etc/x.py:..", "target": ("similar:../a.jpg",)}, "x-layer4-gradcam-similar-..-a.jpg"),
    ],
)
def test_a_name_says_what_a_job_is(options: dict, name: str) -> None:
    assert name_folder(Job(**options), ["layer4"], ["gradcam"]) == name


def test_a_name_is_short_and_stays_in_one_folder() -> None:
    job = Job(model="m/" + "x" * 300, target=tuple("abcdef"), text=("é/" * 99,), versus=("../..",))
    name = name_folder(job, ["l" * 90] * 5, ["gradcam", "hirescam"])
    assert len(name.encode()) < 160
    assert "/" not in name


@pytest.mark.usefixtures("two")
def test_every_job_has_a_folder_and_finds_it_again(go: Go, tiny: str, here: Path) -> None:
    first = Job(model=tiny, inputs=("in",), device="cpu")
    jobs = {"": {}, "-top-1": {"target": ("top:1",)}, "-crop-none": {"crop": "none"}}
    for end, options in jobs.items():
        assert [len(one) for one in go("in", out="", **options)] == [1, 1]
        assert Path("camcli-out/latest").resolve().name == f"tiny-body-gradcam{end}"
    for options in jobs.values():
        assert go("in", out="", **options) == [[], []]
    assert len(folders()) == len(jobs)
    # The layer chosen by default is the same job when it is named.
    assert go("in", out="", layers=("body",)) == [[], []]
    # Jobs that differ in nothing that a name can say have a mark, and find their folders too.
    (here / "tiny.py").write_text(Path(tiny.partition(":")[0]).read_text() + "\n")
    for _ in range(2):
        go("in", out="", model="tiny.py:make")
    assert len(folders()) == len(jobs) + 1
    with Run(first) as run:
        assert list(run) == [[], []]
    # What a run recorded is a job file of the same folder; and results are never taken for pictures.
    job = json.loads(Path("camcli-out/tiny-body-gradcam/run.json").read_text())["job"]
    assert (job["out"], len(go(".", out=""))) == ("", 2)


@pytest.mark.usefixtures("two")
def test_other_versions_have_a_folder_of_their_own_unless_they_are_accepted(go: Go, monkeypatch, tiny: str) -> None:
    with monkeypatch.context() as then:
        then.setattr("camcli.runs.job.fingerprint.__version__", "0.0.9")
        go("in/a.png", out="")
    with Run(Job(model=tiny, inputs=("in/a.png",))) as run:
        assert "has results of the same job by other versions: camcli was 0.0.9" in " ".join(run.notes)
        assert run.session.out.name.startswith("tiny-body-gradcam-")
    assert go("in", out="", accept_versions=True)[0] == []
    assert [one["name"] for one in ledger("camcli-out/tiny-body-gradcam")] == ["in/a.png", "in/b.png"]


@pytest.mark.usefixtures("two")
def test_latest_replaces_a_link_and_nothing_else(go: Go) -> None:
    Path("camcli-out").mkdir()
    Path("camcli-out/latest").write_text("mine")
    go("in", out="")
    assert Path("camcli-out/latest").read_text() == "mine"


def rank(model: str, **options) -> list[str]:
    """Rank channels of ``a.png``; return the notes."""
    job = Job(model=model, inputs=("a.png",), method="activation", target=("channel:0",), out=options.pop("out", ""))
    with ChannelRun(ChannelJob(job=job, **options)) as run:
        list(run)
        run.write()
    return run.notes


def test_channels_have_folders_too_and_latest_stays_with_the_maps(paint: Paint, tiny: str, go: Go) -> None:
    paint("a.png", RED)
    go("a.png", out="")
    for options in ({}, {"channels": (1,)}, {"top": 1}):
        rank(tiny, **options)
    assert folders() == ["channels-tiny-body", "channels-tiny-body-channel1", "tiny-body-gradcam"]
    assert Path("camcli-out/latest").resolve().name == "tiny-body-gradcam"


def test_a_ranking_of_other_versions_is_named_as_such(paint: Paint, tiny: str, monkeypatch) -> None:
    paint("a.png", RED)
    with monkeypatch.context() as then:
        then.setattr("camcli.runs.job.fingerprint.__version__", "0.0.9")
        rank(tiny)
    notes = " ".join(rank(tiny))
    assert "has results of the same job by other versions: camcli was 0.0.9" in notes
    assert "--accept-versions" not in notes  # a ranking is one whole
    first, second = (Path("camcli-out", name) for name in folders())
    with pytest.raises(RequestError, match="another ranking of channels: camcli was"):
        rank(tiny, out=str(first))
    with pytest.raises(RequestError, match="of channels: with other --values or --pictures"):
        rank(tiny, out=str(second), pictures=2)


# ---- how maps are drawn


@pytest.mark.parametrize("shared", [{}, BOTH], ids=["one map", "four maps"])
def test_what_is_kept_is_drawn_again_as_if_at_once_and_nothing_is_lost(
    paint: Paint, go: Go, monkeypatch, pixels, shared: dict
) -> None:
    for name in ("in/a.png", "in/b.png"):
        paint(name, (200, 100, 50), box=(3, 4, 20, 30), ground=(90, 140, 30))
    go("in", save=("array", "overlay-png"), **shared)
    arrays = {name: Path("out", name).stat().st_mtime_ns for name in files() if name.endswith(".npy")}
    looks = {"colormap": "jet", "alpha": 0.9, "save": ("heatmap", "overlay-png"), **shared}
    go("in", **looks, out="once")
    before = files()
    with monkeypatch.context() as without:
        without.setattr("camcli.runs.worker.pipeline.find_results", None)  # the network is not asked
        assert [len(one) for one in go("in", **looks)] == [len(arrays) // 2] * 2
        assert go("in", **looks) == [[], []]
    assert set(before) < set(files())
    assert {name: Path("out", name).stat().st_mtime_ns for name in arrays} == arrays
    for name in files("once"):
        assert (pixels(Path("once", name)) == pixels(Path("out", name))).all(), name
    assert sorted(file for row in ledger() for file in row["files"].values()) == files()
    first = ledger()[0]
    assert [*first["files"]][:2] == ["heatmap", "overlay-png"]


@pytest.mark.usefixtures("two")
def test_without_arrays_it_is_computed_again_and_other_formats_stay(go: Go, pixels) -> None:
    go("in", save=("heatmap",))
    assert [len(one) for one in go("in", save=("overlay-png",), colormap="jet")] == [1, 1]
    assert len(files()) == 4
    assert sorted(file for row in ledger() for file in row["files"].values()) == files()
    # The heatmaps are those of before, and the overlays as they were asked for.
    assert go("in", save=("heatmap",)) == [[], []]
    assert go("in", save=("overlay-png",), colormap="jet") == [[], []]
    assert [len(one) for one in go("in", save=("heatmap", "overlay-png"))] == [1, 1]
    go("in", save=("heatmap", "overlay-png"), out="once")
    for name in files():
        assert (pixels(Path("once", name)) == pixels(Path("out", name))).all(), name


@pytest.mark.usefixtures("two")
def test_one_scale_for_all_and_back(go: Go, paint: Paint, pixels) -> None:
    paint("in/a.png", (120, 0, 0))
    options = {"target": ("red",), "save": ("heatmap",)}
    go("in", **options)
    whole = {name: pixels(Path("out", name)) for name in files()}
    go("in", **options, normalize="run")
    assert facts()["scale"] is not None
    go("in", **options, normalize="run", colormap="jet")
    go("in", **options, normalize="run", colormap="jet", out="once")
    for name in files("once"):
        if name.endswith("png"):
            assert (pixels(Path("once", name)) == pixels(Path("out", name))).all(), name
    go("in", **options)
    assert all((pixels(Path("out", name)) == one).all() for name, one in whole.items())
    assert len(ledger()) == 2


@pytest.mark.usefixtures("two")
def test_what_an_earlier_version_drew_in_its_own_way_is_drawn_again(go: Go) -> None:
    go("in")
    rows = [{name: one for name, one in row.items() if name not in ("looks", "root")} for row in ledger()]
    Path("out/outcomes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [len(one) for one in go("in")] == [1, 1]
    assert go("in") == [[], []]


# ---- another job, another image


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": ("red",)}, "target was ['auto'], is ['red']"),
        ({"layers": ("stem",)}, "layers was [], is ['stem']"),
        ({"method": "hirescam"}, "method was 'auto', is 'hirescam'"),
    ],
)
def test_another_job_is_refused_before_the_model_is_loaded(go: Go, monkeypatch, options: dict, words: str) -> None:
    go("in")
    monkeypatch.setattr("camcli.runs.explain.run.Worker", None)
    with pytest.raises(RequestError) as caught:
        go("in", **options)
    assert words in caught.value.message
    assert "without --out each job has a folder of its own" in caught.value.hint


def test_another_image_of_the_same_name_never_takes_its_place(paint: Paint, go: Go, here: Path, monkeypatch) -> None:
    for name, colour in (("a", RED), ("b", GREEN)):
        paint(f"{name}/x.png", colour)
        (here / f"{name}/sub").mkdir()
    out = str(here / "out")
    for folder in ("a", "b", "b", "a"):
        monkeypatch.chdir(here / folder)
        go("x.png", out=out)
    monkeypatch.chdir(here)
    rows = ledger()
    assert [row["label"] for row in rows] == ["red", "green"]
    assert rows[0]["name"] == "x.png"
    assert rows[1]["name"].startswith("x~")
    assert rows[1]["name"].endswith(".png")
    assert len(files()) == 2
    # A folder that moves with its results is the same.
    go("a/x.png", out="a/own", root="a")
    (here / "a").rename(here / "moved")
    paint("moved/x.png", GREEN)
    assert [[one.name for one in each] for each in go("moved/x.png", out="moved/own", root="moved")] == [["x.png"]]


def test_arrays_of_other_jobs_differ(paint: Paint, go: Go) -> None:
    paint("a.png", RED)
    go("a.png", out="", save=("array",))
    go("a.png", out="", save=("array",), method="layercam")
    one, other = (np.load(Path("camcli-out", name, "a.png.npy")) for name in folders())
    assert one.shape == other.shape
