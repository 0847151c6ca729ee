"""A run of explain: the numbers and files that come out, their names, and run.json."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from readback import facts, files, ledger
from shared import BLUE, RED, Go, Paint

from camcli.base.errors import NothingFoundError, RequestError
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job


def test_an_outcome_holds_the_numbers_worked_out_by_hand(paint: Paint, go: Go) -> None:
    # On 16 x 16 the box is rows 2..5, columns 10..13: 16 of 256 cells of red 250/255. Score: 10 times the mean.
    picture = paint("a.png", RED, box=(20, 4, 28, 12))
    ((one,),) = go("a.png", layers=("stem",), save=("array", "overlay"))
    red = 250 / 255
    score = 10 * 16 / 256 * red
    assert (one.source, one.name, one.index, one.label, one.layer) == ("a.png", "a.png", 0, "red", "stem")
    assert one.method == "gradcam"
    assert one.score == pytest.approx(score, rel=1e-6)
    assert one.probability == pytest.approx(math.exp(score) / (math.exp(score) + 2), rel=1e-6)
    assert (one.low, one.high) == (0, pytest.approx(10 / 256 * red, rel=1e-6))
    assert one.strongest == one.high
    assert one.peak == (21, 5)  # the middle of row 2, column 10: 2 pixels a cell
    assert (one.part, one.error, one.notes, one.untrained) == ("1/1", None, (), False)
    assert one.stamp == f"{picture.stat().st_size}-{picture.stat().st_mtime_ns}"
    assert 0 < (one.seconds or 0) < 60
    assert one.files == {"array": "a.png.npy", "overlay": "a.png.overlay.jpg"}
    expected = np.zeros((16, 16), np.float32)
    expected[2:6, 10:14] = 10 / 256 * red
    np.testing.assert_allclose(np.load("out/a.png.npy"), expected, rtol=1e-6)
    assert ledger() == [json.loads(one.as_line())]


def test_a_picture_of_one_colour_has_a_note_and_others_have_not(paint: Paint, go: Go) -> None:
    from camcli.runs.worker.prepare import ONE_COLOUR

    paint("a.png", RED)
    paint("b.png", RED, box=(0, 31, 32, 32), ground=RED)
    paint("c.png", RED, box=(0, 31, 1, 32), ground=BLUE)
    outcomes = [one for (one,) in go("a.png", "b.png", "c.png", layers=("stem",), target=("red",))]
    flat = "the map is constant at the layer 'stem', so it locates nothing"
    assert [one.notes for one in outcomes] == [(flat, ONE_COLOUR), (flat, ONE_COLOUR), ()]


def test_the_overlay_mutes_cold_places_and_colours_hot_ones(paint: Paint, go: Go, pixels) -> None:
    paint("a.png", RED, box=(16, 0, 32, 32), ground=(0, 40, 90))
    go("a.png", layers=("stem",), target=("red",), save=("overlay-png", "heatmap", "panel"), colormap="jet", alpha=1.0)
    overlay, heatmap = pixels("out/a.png.overlay.png"), pixels("out/a.png.heatmap.png")
    assert overlay.shape == heatmap.shape == (32, 32, 3)
    # Half way to its grey, 34, and half as light: the map has a cell for each pixel of the input.
    assert overlay[10, 4].tolist() == [9, 19, 31]
    # jet ends in dark red and begins in dark blue
    assert overlay[10, 28].tolist() == heatmap[10, 28].tolist() == [128, 0, 0]
    assert heatmap[10, 4].tolist() == [0, 0, 128]
    assert pixels("out/a.png.panel.png").shape[1] > 3 * 32


def test_the_tree_of_inputs_is_mirrored_and_a_jpg_lies_beside_a_png(paint: Paint, go: Go) -> None:
    for name in ("in/a.jpg", "in/a.png", "in/deep/er/b.bmp", "in/spa ce[1] (2).png", "in/katze-\u732b.png"):
        paint(name)
    assert len(go("in")) == 5
    assert files() == [
        "in/a.jpg.overlay.jpg",
        "in/a.png.overlay.jpg",
        "in/deep/er/b.bmp.overlay.jpg",
        "in/katze-\u732b.png.overlay.jpg",
        "in/spa ce[1] (2).png.overlay.jpg",
    ]


def test_a_pictures_output_name_does_not_depend_on_what_else_is_in_the_run(paint: Paint, go: Go) -> None:
    paint("in/a/x.png")
    paint("in/b/x.png")
    go("in/a/x.png", out="alone")
    go("in", out="all")
    go("in/b", "in/a", out="two")
    assert set(files("alone")) < set(files("all")) == set(files("two"))


def test_pictures_outside_the_root_and_the_root_itself(paint: Paint, go: Go, here: Path, monkeypatch) -> None:
    paint("photos/a.png")
    go("photos", root="photos")
    assert files() == ["a.png.overlay.jpg"]
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    go("../photos")
    assert files() == ["photos/a.png.overlay.jpg"]


def test_layers_by_targets_have_a_file_each(paint: Paint, go: Go) -> None:
    paint("a.png", (200, 100, 50))
    (outcomes,) = go("a.png", layers=("stem", "body"), target=("blue", "top:2"), save=("array",))
    assert [(one.part, one.label, one.layer, one.files["array"]) for one in outcomes] == [
        ("1/6", "blue", "stem", "a.png.stem.2-blue.npy"),
        ("2/6", "blue", "body", "a.png.body.2-blue.npy"),
        ("3/6", "red", "stem", "a.png.stem.0-red.npy"),
        ("4/6", "red", "body", "a.png.body.0-red.npy"),
        ("5/6", "green", "stem", "a.png.stem.1-green.npy"),
        ("6/6", "green", "body", "a.png.body.1-green.npy"),
    ]
    assert files() == sorted(one.files["array"] for one in outcomes)
    for one, (cells, value) in zip(
        outcomes, [(256, 50), (64, 50), (256, 200), (64, 200), (256, 100), (64, 100)], strict=True
    ):
        map = np.load(Path("out", one.files["array"]))
        np.testing.assert_allclose(map, np.full(map.shape, 10 / cells * value / 255), rtol=1e-6)
        assert map.size == cells


def test_a_map_that_is_zero_everywhere_is_a_failure_beside_the_good_ones(paint: Paint, go: Go) -> None:
    paint("a.png", RED)
    ((good, bad),) = go("a.png", target=("red", "blue"))
    assert good.error is None
    assert "the map of class 2 (blue) is zero everywhere" in (bad.error or "")
    assert (bad.part, bad.files, bad.index, bad.score) == ("2/2", {}, None, None)
    assert facts()["failed"] == 1


def test_the_names_of_several_maps_hold_layer_index_and_label(paint: Paint, go: Go) -> None:
    paint("a.png", RED, box=(0, 0, 16, 16), ground=(0, 0, 99))
    go("a.png", layers=("stem", "body"), target=("top:2",))
    assert files() == [
        f"a.png.{layer}.{label}.overlay.jpg" for layer in ("body", "stem") for label in ("0-red", "2-blue")
    ]
    # one layer, one named class: neither is in the name
    go("a.png", target=("blue",), out="one")
    assert files("one") == ["a.png.overlay.jpg"]


def test_targets_of_a_file_picture_by_picture(paint: Paint, tiny: str, here: Path) -> None:
    paint("in/a.png", (200, 100, 0))
    paint("in/b.png", (0, 100, 200))
    (here / "t.csv").write_text("picture,target,target\na.png,green,red\nb.png,n00000003\nnowhere.png,red\n")
    job = Job(model=tiny, inputs=("in",), targets="t.csv", out="out")
    with Run(job) as run:
        assert list(run.notes) == ["t.csv lists 1 that are not among the images: nowhere.png"]
        first, second = list(run)
    assert [one.label for one in first] == ["green", "red"]
    assert [one.label for one in second] == ["blue"]
    assert files() == [
        "in/a.png.0-red.overlay.jpg",
        "in/a.png.1-green.overlay.jpg",
        "in/b.png.2-blue.overlay.jpg",
    ]


def test_a_file_of_targets_that_lacks_pictures_is_refused_with_both_counts(paint: Paint, go: Go, here: Path) -> None:
    for name in "abcdefgh":
        paint(f"in/{name}.png", (200, 100, 0))
    (here / "t.csv").write_text("a.png,green\n")
    message = r"t\.csv lists targets of 1 of the 8 images; not of in/b.png, .*, in/f.png and 2 more"
    with pytest.raises(RequestError, match=message):
        go("in", targets="t.csv")
    assert not Path("out").exists()


def test_of_pictures_on_standard_input_each_that_is_not_listed_fails(paint: Paint, tiny: str, here: Path) -> None:
    paint("a.png", (200, 100, 0))
    paint("b.png", (200, 100, 0))
    (here / "t.csv").write_text("a.png,green\n")
    (here / "names").write_bytes(b"a.png\nb.png\n")
    job = Job(model=tiny, inputs=("-",), targets="t.csv", out="out")
    with Path("names").open("rb") as names, Run(job, names) as run:
        (good,), (bad,) = list(run)
    assert good.label == "green"
    assert "t.csv lists no target for this image" in (bad.error or "")


def test_the_folder_as_target(paint: Paint, go: Go) -> None:
    paint("val/green/a.png", (200, 100, 0))
    paint("val/zebra/a.png")
    (good,), (bad,) = go("val", target=("folder",))
    assert good.label == "green"
    assert "folder 'zebra' names no class" in (bad.error or "")


def test_very_long_names_are_cut_and_told_apart(paint: Paint, go: Go) -> None:
    names = ["n" * 240 + end + ".png" for end in ("1", "2")]
    for name in names:
        paint(name)
    layers, target = ("stem", "body"), ("top:1",)
    outcomes = go(*names, layers=layers, target=target, save=("array", "overlay"))
    assert all(one.error is None for each in outcomes for one in each)
    assert len(files()) == 2 * 2 * 2
    assert all(len(os.fsencode(name)) <= 255 for name in files())
    assert go(*names, layers=layers, target=target, save=("array", "overlay")) == [[], []]


def test_names_that_only_the_tags_make_too_long_are_cut_and_told_apart_too(
    paint: Paint, go: Go, here: Path, tiny_file: Path
) -> None:
    long = "a_layer_whose_name_is_almost_without_end_and_says_little"
    (here / "long.py").write_text(tiny_file.read_text().replace("stem", long + "_1").replace("body", long + "_2"))
    paint("n" * 176 + ".png")
    (outcomes,) = go(".", model="long.py:make", target=("top:1",), layers=("*_1", "*_2"))
    assert [one.error for one in outcomes] == [None, None]
    assert files() == sorted(one.files["overlay"] for one in outcomes)
    for name in files():
        assert len(name) == 255
        assert name.endswith(".overlay.jpg")


def test_untrained_weights_mark_every_output(paint: Paint, go: Go, pixels) -> None:
    paint("a.png", size=(200, 120))
    ((one,),) = go("a.png", weights="random", seed=5, save=("overlay", "heatmap", "array", "panel"), target=("red",))
    assert one.error is None
    assert one.untrained
    assert all(".untrained." in file for file in files())
    assert len(files()) == 4
    assert facts()["model"]["weights"] == "random"
    yellow = [255, 196, 0]
    assert pixels("out/a.png.untrained.heatmap.png")[-1, 0].tolist() == yellow  # the banner
    assert np.abs(pixels("out/a.png.untrained.overlay.jpg")[-1, 0] - np.array(yellow)).max() <= 12
    panel = pixels("out/a.png.untrained.panel.png")
    assert (panel == yellow).all(2).sum() > 1000


def test_one_seed_one_network(paint: Paint, go: Go) -> None:
    paint("a.png", box=(0, 0, 16, 16))
    maps = []
    for number, seed in enumerate((1, 1, 2)):
        go("a.png", weights="random", seed=seed, save=("array",), target=("red",), out=f"out{number}")
        maps.append(np.load(f"out{number}/a.png.untrained.npy"))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "no images were named"),
        ({"inputs": ("nowhere.png",)}, "there is no file or folder 'nowhere.png'"),
        ({"inputs": ("out",)}, "is the output folder"),
        ({"colormap": "infern"}, "there is no colour map 'infern'"),
        ({"save": ("overly",)}, "there is no output format 'overly'"),
        ({"method": "gradcm"}, "there is no method 'gradcm'"),
        ({"layers": ("stm",)}, "stm"),
        ({"target": ("purple",)}, "there is no class 'purple'"),
        ({"target": ("top:4",)}, "top:4"),
        ({"device": "cuda:99"}, "there is no device 'cuda:99'"),
        ({"background": "#12"}, "'#12' is not a colour"),
        ({"weights": "nowhere.pth"}, "the weights file 'nowhere.pth' cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    paint: Paint, go: Go, here: Path, options: dict, message: str
) -> None:
    paint("a.png")
    (here / "out").mkdir()
    with pytest.raises(RequestError) as caught:
        go(**{"inputs": ("a.png",), **options})
    assert message in caught.value.message
    assert list((here / "out").iterdir()) == []


def test_outputs_do_not_come_to_lie_among_the_pictures(paint: Paint, go: Go, here: Path) -> None:
    paint("in/a.png")
    with pytest.raises(RequestError, match="the outputs would lie among the images in 'in'"):
        go("in", out=".")
    assert [path.name for path in (here / "in").iterdir()] == ["a.png"]


def test_nothing_to_do_is_said(go: Go, here: Path) -> None:
    (here / "in").mkdir()
    with pytest.raises(NothingFoundError, match="no image in in"):
        go("in")
    assert not (here / "out").exists()


# ---- run.json


@pytest.mark.usefixtures("two")
def test_run_json_holds_what_is_needed_to_repeat_the_run(go: Go, tiny: str, here: Path) -> None:
    ((one,), _) = go("in", save=("array",), batch_size=5)
    run = facts()
    assert (
        run["job"] == Job(model=tiny, inputs=("in",), out="out", device="cpu", save=("array",), batch_size=5).as_dict()
    )
    assert (run["fingerprint"], run["run"]) == (one.job, one.run)
    [method] = run["methods"]
    assert method == {"name": "gradcam", "paper": "Selvaraju 2017, arXiv:1610.02391", "options": {}}
    assert run["layers"] == ["body"]  # the chosen one
    assert run["model"]["preprocessing"]["size"] == [16, 16]
    assert run["model"]["classes"] == 3
    assert len(run["model"]["sha256"]) == 64
    assert {"python", "torch", "timm", "pillow"} <= set(run["versions"])
    assert (run["device"], run["batch_size"]) == ("cpu", 5)
    assert run["began"] <= run["finished"]
    go("in", weights="random", out="random", target=("red",))
    assert facts("random")["model"]["sha256"] != run["model"]["sha256"]


# ---- methods at the input


def test_a_method_at_the_input_names_no_layer(paint: Paint, go: Go) -> None:
    paint("a.png", RED, box=(0, 0, 16, 16))
    with pytest.raises(RequestError, match="ReLU"):
        go("a.png", method="guided-backprop")
    with pytest.raises(RequestError, match="works at the input"):
        go("a.png", method="guided-backprop", layers=("stem",))
    assert not Path("out").exists() or not files()
