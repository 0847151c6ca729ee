"""Concepts that all images of a run share: found, kept, found again when lost, and refused when they differ."""

from pathlib import Path

import numpy as np
import pytest
from readback import facts, files, ledger
from shared import BLUE, GREEN, RED, Go, Paint

import camcli
from camcli import RequestError
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job


@pytest.fixture
def set_of_three(paint: Paint) -> None:
    """Red beside green, red beside blue, and green beside blue."""
    paint("in/a.png", RED, box=(0, 0, 16, 32), ground=GREEN)
    paint("in/b.png", RED, box=(0, 0, 16, 32), ground=BLUE)
    paint("in/c.png", BLUE, box=(16, 0, 32, 32), ground=GREEN)


DFF = {"method": "dff", "layers": ("stem",), "options": ("concepts=3",)}


def where(name: str, out: str = "out") -> dict[str, str]:
    """By the class that it speaks for, on which side of an image a concept is."""
    row = next(one for one in ledger(out) if one["name"] == name)
    maps = np.load(Path(out, row["files"]["array"]))
    return {
        concept["classes"][0]["label"]: "left" if map[:, :8].sum() > map[:, 8:].sum() else "right"
        for concept, map in zip(row["concepts"], maps, strict=True)
        if concept["share"] > 0.05
    }


def numbers(out: str = "out") -> dict[str, set[int]]:
    """By class, the numbers of the concepts that speak for it, where they have a part in an image."""
    found: dict[str, set[int]] = {}
    for row in ledger(out):
        for concept in row["concepts"]:
            if concept["share"] > 0.05:
                found.setdefault(concept["classes"][0]["label"], set()).add(concept["number"])
    return found


@pytest.mark.usefixtures("set_of_three")
def test_a_run_has_one_picture_each_and_the_same_concepts_in_all(go: Go) -> None:
    outcomes = go("in", **DFF, save=("array", "overlay", "panel", "heatmap"), target=("top:3",))
    assert [len(one) for one in outcomes] == [1, 1, 1]
    assert [file for file in files() if "a.png" in file] == [
        "in/a.png.heatmap.png",
        "in/a.png.npy",
        "in/a.png.overlay.jpg",
        "in/a.png.panel.png",
    ]
    assert where("in/a.png") == {"red": "left", "green": "right"}
    assert where("in/b.png") == {"red": "left", "blue": "right"}
    assert where("in/c.png") == {"green": "left", "blue": "right"}
    assert sorted(map(tuple, numbers().values())) == [(1,), (2,), (3,)]
    [row, *_] = ledger()
    assert (row["index"], row["label"], row["probability"]) == (None, "3 concepts", None)
    assert row["score"] == pytest.approx(1, abs=1e-3)
    maps = np.load("out/in/a.png.npy")
    assert maps.shape == (3, 16, 16)
    assert (row["low"], row["high"], row["strongest"]) == pytest.approx((0, maps.max(), maps.max()), abs=1e-6)
    # Red in half of the image: 10 times its mean.
    red = next(one for one in row["concepts"] if [spoken["label"] for spoken in one["classes"]][:1] == ["red"])
    assert red["classes"] == [{"index": 0, "label": "red", "rise": pytest.approx(10 * 250 / 255 / 2, rel=1e-2)}]
    assert red["share"] == pytest.approx(0.5, abs=0.01)
    kept = facts()["concepts"]
    assert (kept["file"], kept["pictures"]) == ("concepts.npz", 3)
    assert Path("out/concepts.npz").exists()
    assert outcomes[0][0].about == "3 concepts"


@pytest.mark.usefixtures("set_of_three")
def test_a_resumed_run_keeps_its_concepts(go: Go, paint: Paint) -> None:
    go("in/a.png", "in/b.png", **DFF)
    before, kept = Path("out/concepts.npz").read_bytes(), facts()["concepts"]
    paint("in/d.png", BLUE)
    last = go("in", **DFF)
    assert [len(one) for one in last] == [0, 0, 1, 1]
    assert Path("out/concepts.npz").read_bytes() == before
    assert facts()["concepts"] == kept
    assert all(len(found) == 1 for found in numbers().values())
    go("in", **DFF, overwrite=True)
    assert facts()["concepts"]["pictures"] == 4
    assert facts()["concepts"]["sha256"] != kept["sha256"]
    # Other concepts make another job.
    with pytest.raises(RequestError, match="results of another job"):
        go("in", **{**DFF, "options": ("concepts=2",)})


@pytest.mark.usefixtures("set_of_three")
def test_what_other_concepts_drew_is_not_done_after_an_interruption(go: Go, paint: Paint, tiny: str) -> None:
    go("in", **DFF)
    paint("in/d.png", (200, 140, 60))  # which changes the concepts of all
    job = Job(model=tiny, inputs=("in",), out="out", device="cpu", overwrite=True, batch_size=1, workers=1, **DFF)
    with Run(job) as run:
        outcomes = iter(run)
        next(outcomes)
        outcomes.close()  # type: ignore[attr-defined]
    assert [len(one) for one in go("in", **DFF)] == [0, 1, 1, 1]
    # Nor are images that are not named left with concepts of before.
    paint("in/d.png", GREEN)
    with pytest.raises(RequestError, match=r"concepts are computed again, and 2 images in 'out'") as caught:
        go("in/a.png", "in/d.png", **DFF, overwrite=True)
    assert "name those images too" in caught.value.hint


@pytest.mark.usefixtures("set_of_three")
def test_lost_concepts_are_found_again_where_they_are_the_same_and_else_refused(go: Go) -> None:
    go("in/a.png", "in/b.png", **DFF)
    Path("out/concepts.npz").unlink()
    assert go("in/a.png", "in/b.png", **DFF) == [[], []]
    Path("out/concepts.npz").unlink()
    with pytest.raises(RequestError, match="drawn with concepts that are lost") as caught:
        go("in", **DFF)
    assert "--overwrite" in caught.value.hint
    Path("out/concepts.npz").write_bytes(b"PK nothing")
    with pytest.raises(RequestError, match=r"concepts.npz' cannot be read"):
        go("in", **DFF)
    assert len(go("in", **DFF, overwrite=True)) == 3


@pytest.mark.usefixtures("set_of_three")
def test_the_concepts_do_not_hang_on_batches_or_threads(go: Go) -> None:
    go("in", **DFF, save=("array",))
    go("in", **DFF, save=("array",), batch_size=1, workers=1, out="two")
    for name in "abc":
        one, two = (np.load(f"{out}/in/{name}.png.npy") for out in ("out", "two"))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("set_of_three")
def test_broken_pictures_are_passed_over(go: Go) -> None:
    Path("in/aa.png").write_text("no image")
    outcomes = go("in", **DFF)
    assert [bool(one.error) for [one] in outcomes] == [False, True, False, False]
    assert facts()["concepts"]["pictures"] == 3
    only = go("in/aa.png", **DFF, out="two")
    assert [bool(one.error) for [one] in only] == [True]


@pytest.mark.usefixtures("set_of_three")
def test_each_picture_may_have_concepts_of_its_own(go: Go) -> None:
    options = ("concepts=2", "over=picture")
    go("in", **{**DFF, "options": options})
    assert not Path("out/concepts.npz").exists()
    assert "concepts" not in facts()
    assert all(row["score"] == pytest.approx(1, abs=1e-3) for row in ledger())


def test_pictures_on_standard_input_are_refused(go: Go) -> None:
    with pytest.raises(RequestError, match="standard input arrive one by one") as caught:
        go("-", **DFF)
    assert "over=picture" in caught.value.hint


@pytest.mark.usefixtures("set_of_three")
def test_run_wide_strength(go: Go, paint: Paint, pixels) -> None:
    paint("in/d.png", (50, 0, 0))
    go("in", **DFF, normalize="run", save=("heatmap",))
    scale = facts()["scale"]
    assert scale == pytest.approx(250 / 255, rel=1e-2)
    bright, dim = (pixels(f"out/in/{name}.png.heatmap.png")[16, 4].astype(int).sum() for name in "ad")
    assert dim == pytest.approx(bright / 5, abs=6)


@pytest.mark.usefixtures("set_of_three")
def test_the_stream_in_python_has_the_same_concepts_in_all(tiny: str) -> None:
    found = list(
        camcli.explain(
            ["in"], model=tiny, device="cpu", batch_size=1, method="dff", options={"concepts": 3}, layer="stem"
        )
    )
    by_class: dict[str, set[int]] = {}
    for one in found:
        for concept in one.concepts:
            if concept.share > 0.05:
                by_class.setdefault(concept.classes[0].label, set()).add(concept.number)
    assert sorted(map(tuple, by_class.values())) == [(1,), (2,), (3,)]
    with pytest.raises(RequestError, match="come one by one"):
        camcli.explain(iter(["in"]), model=tiny, method="dff", options={"concepts": 3}, layer="stem")


@pytest.mark.usefixtures("set_of_three")
@pytest.mark.parametrize("target", ["green", "no such class"])
def test_a_target_is_not_looked_up_where_maps_belong_to_no_class(go: Go, target: str) -> None:
    """Neither one class nor several, nor none of the name: the note says that a target has no effect."""
    go("in", **DFF, target=(target,))
    assert "a target has no effect" in " ".join(facts()["notes"])
    with pytest.raises(RequestError, match="no such class"):
        go("in", out="both", target=("no such class",), method="gradcam,dff", layers=("stem",), options=("concepts=3",))


@pytest.mark.usefixtures("set_of_three")
def test_importance_is_recorded_for_the_targets(go: Go) -> None:
    options = ("concepts=3", "importance=256")
    go("in", method="dff", layers=("stem",), options=options, target=("red", "green"))
    for row in ledger():
        for concept in row["concepts"]:
            assert [one["label"] for one in concept["importances"]] == ["red", "green"]
    # Red beside green: what speaks for red is all that red's score varies by.
    row = next(one for one in ledger() if one["name"] == "in/a.png")
    red = next(one for one in row["concepts"] if one["classes"] and one["classes"][0]["label"] == "red")
    assert [one["total"] for one in red["importances"]] == [pytest.approx(1, abs=0.05), pytest.approx(0, abs=0.01)]
    with pytest.raises(RequestError, match="'purple'"):
        go("in", method="dff", layers=("stem",), options=options, target=("purple",), out="other")
