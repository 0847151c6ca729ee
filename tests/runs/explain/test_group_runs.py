"""Groups of images from the shell to the disk: formed, failed, resumed as a whole; their targets."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from group_model import MEAN
from readback import facts, files, ledger
from shared import BLUE, GREEN, RED, Paint

import camcli
from camcli import RequestError
from camcli.images.grouping import group_items
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.worker.threads import split_by_length


def test_items_in_groups() -> None:
    paths = [Path(name) for name in ("a.png", "b/1.png", "b/c/2.png", "b/3.png", "d.png", "e/4.png")]

    def names(group: str) -> list[str]:
        return [" ".join(map(str, some)) for some in group_items(paths, group, lambda path: path)]

    assert names("folder") == ["b/c/2.png", "b/1.png b/3.png", "e/4.png", "a.png d.png"]
    assert names("4") == ["a.png b/1.png b/c/2.png b/3.png", "d.png e/4.png"]
    assert list(split_by_length([3, 0, 0, 1, 2, 9], lambda one: one)) == [[3, 0, 0], [1], [2, 9]]


@pytest.fixture
def mean(here: Path) -> str:
    (here / "wrap.py").write_text(MEAN)
    return "wrap.py:Mean"


def run(tiny: str, *inputs: str, stdin: bytes = b"", **options) -> list:
    given = {"model": tiny, "inputs": inputs, "out": "out", "device": "cpu", "layers": ("stem",), "save": ("array",)}
    Path("stdin").write_bytes(stdin)
    with Path("stdin").open("rb") as names, Run(Job(**(given | options)), names) as under_way:
        return list(under_way)


def test_groups_of_pictures_from_the_shell_to_the_disk(paint: Paint, tiny: str, mean: str) -> None:
    # The group's score of red is 10 times the mean over 2 images x 256 pixels, so every cell's part is 10/512.
    for name, colour in (("1", RED), ("2", BLUE), ("3", RED), ("4", GREEN)):
        paint(f"in/{name}.png", colour, box=(0, 0, 16, 32))
    outcomes = run(tiny, "in", wrap=mean, group="2", target=("red",))
    assert [some[0].name for some in outcomes] == ["in/1.png", "in/2.png", "in/3.png", "in/4.png"]
    assert [some[0].layer for some in outcomes[::2]] == ["network.stem"] * 2
    red = 250 / 255
    assert [some[0].score for some in outcomes[::2]] == pytest.approx([10 * red / 4] * 2)
    np.testing.assert_allclose(np.load("out/in/1.png.npy")[:, :8], 10 / 512 * red, rtol=1e-5)
    # An image without any red has no part in it.
    assert ["zero everywhere" in (some[0].error or "") for some in outcomes] == [False, True, False, True]
    assert facts()["batch_size"] == 2
    assert facts()["explained"].endswith("; one for all images of a group")


def test_folders_are_groups(paint: Paint, tiny: str, mean: str) -> None:
    for name in ("in/a/1.png", "in/a/2.png", "in/b/1.png", "in/b/2.png", "in/b/3.png", "in/9.png"):
        paint(name, (200, 100, 0))
    outcomes = run(tiny, "in", wrap=mean, group="folder", target=("red",))
    assert not any(some[0].error for some in outcomes)
    strongest = {some[0].name: some[0].strongest for some in outcomes}
    one = strongest["in/9.png"]
    assert strongest["in/a/2.png"] == pytest.approx(one / 2)
    assert strongest["in/b/3.png"] == pytest.approx(one / 3)


def test_a_picture_that_cannot_be_read_fails_its_group_and_no_other(paint: Paint, tiny: str, mean: str) -> None:
    for number in range(4):
        paint(f"in/{number}.png", RED)
    Path("in/1.png").write_bytes(b"no picture")
    outcomes = [some[0] for some in run(tiny, "in", wrap=mean, group="2", target=("red",))]
    assert [bool(one.error) for one in outcomes] == [True, True, False, False]
    assert outcomes[0].error.startswith("in/1.png, of its group, cannot be used: ")
    assert not outcomes[1].error.startswith("in/1.png, of its group")


def test_a_group_on_which_the_network_fails_fails_as_a_whole(paint: Paint, tiny: str, mean: str) -> None:
    for number, colour in enumerate([RED, RED, (255, 255, 255), RED]):
        paint(f"in/{number}.png", colour)
    outcomes = [some[0] for some in run(tiny, "in", wrap="wrap.py:Moody", group="2", target=("red",))]
    reason = "the network fails on its group of 2 images: too bright for us"
    assert [one.error for one in outcomes] == [None, None, reason, reason]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "2"}, "3 images do not make groups of 2: 1 left over"),
        ({"group": "5"}, "3 images do not make groups of 5: 3 left over"),
        ({"group": "3", "batch_size": 2}, r"both a group \(3\) and a batch size \(2\)"),
        ({"group": "3", "wrap": ""}, None),
    ],
)
def test_an_incomplete_group_is_refused_before_anything_is_written(
    paint: Paint, tiny: str, mean: str, options: dict, message: str | None
) -> None:
    for number in range(3):
        paint(f"in/{number}.png", RED)
    if message is None:  # one prediction an image will do as well
        assert not any(some[0].error for some in run(tiny, "in", **options))
        return
    with pytest.raises(RequestError, match=message):
        run(tiny, "in", **({"wrap": mean} | options))
    assert not Path("out").exists()


def test_a_folder_in_two_parts_is_refused(paint: Paint, tiny: str, mean: str) -> None:
    for name in ("a/1.png", "b/1.png", "a/2.png"):
        paint(name, RED)
    with pytest.raises(RequestError, match="the images of 'a' come in two parts"):
        run(tiny, "a/1.png", "b", "a/2.png", wrap=mean, group="folder")


def test_of_standard_input_an_incomplete_last_group_fails_with_the_reason(paint: Paint, tiny: str, mean: str) -> None:
    for number in range(3):
        paint(f"{number}.png", RED)
    stdin = b"0.png\n1.png\n2.png\n"
    outcomes = [some[0] for some in run(tiny, "-", stdin=stdin, wrap=mean, group="2", target=("red",))]
    assert [one.error for one in outcomes[:2]] == [None, None]
    assert "do not end with a group of 2: 1 left over" in outcomes[2].error


# ---- targets


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        ("0.png,red\n2.png,green\n", ["red", "red", "green", "green"]),
        ("0.png,red\n1.png,red\n2.png,green\n3.png,green\nnowhere.png,red\n", ["red", "red", "green", "green"]),
        (
            "0.png,red\n1.png,green\n2.png,green\n",
            "of group 1, in/0.png to in/1.png, in t.csv its images have different",
        ),
        ("0.png,red\n", "t.csv lists no target for group 2, in/2.png to in/3.png"),
    ],
)
def test_the_pictures_of_a_group_with_one_prediction_have_one_target(
    paint: Paint, tiny: str, mean: str, lines: str, labels: list[str] | str
) -> None:
    for number in range(4):
        paint(f"in/{number}.png", (200, 100, 50))
    Path("t.csv").write_text(lines)
    if isinstance(labels, list):
        outcomes = run(tiny, "in", wrap=mean, group="2", targets="t.csv")
        assert [some[0].label for some in outcomes] == labels
        return
    with pytest.raises(RequestError, match=labels):
        run(tiny, "in", wrap=mean, group="2", targets="t.csv")
    assert not Path("out").exists()


@pytest.mark.usefixtures("mean")
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0.png,red\n1.png,green\n2.png,red\n", "t.csv lists targets of 3 of the 4 images; not of in/3.png"),
        (
            "".join(f"{name}.png,red\n" for name in ("0", "1", "2", "3", "x")),
            "t.csv lists targets of 5 images, and there are 4: not among them is x.png",
        ),
        ("".join(f"{name}.png,red\n" for name in ("0", "1", "2", "3")), None),
    ],
)
def test_with_one_prediction_a_picture_the_targets_are_as_many(
    paint: Paint, tiny: str, lines: str, message: str | None
) -> None:
    for number in range(4):
        paint(f"in/{number}.png", (200, 100, 50))
    Path("t.csv").write_text(lines)
    if message is None:
        assert [some[0].label for some in run(tiny, "in", wrap="wrap.py:Each", group="2", targets="t.csv")] == [
            "red"
        ] * 4
        return
    with pytest.raises(RequestError, match=message):
        run(tiny, "in", wrap="wrap.py:Each", group="2", targets="t.csv")
    assert not Path("out").exists()


# ---- resumed


def test_a_group_of_which_one_is_left_is_done_as_a_whole(paint: Paint, tiny: str, mean: str) -> None:
    for number in range(6):
        paint(f"in/{number}.png", (200, 10 * number, 0))
    given = {"wrap": mean, "group": "2", "target": ("red",)}
    job = Job(model=tiny, inputs=("in",), out="out", layers=("stem",), save=("array",), workers=1, **given)
    with Run(job) as under_way:
        outcomes = iter(under_way)
        done = [next(outcomes) for _ in range(3)]
        with pytest.raises(KeyboardInterrupt):
            outcomes.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert [some[0].name for some in done] == ["in/0.png", "in/1.png", "in/2.png"]
    with Run(job) as under_way:
        again = list(under_way)
    # The first group is done; of the second one was, and is done again with the other.
    assert [bool(some) for some in again] == [False, False, True, True, True, True]
    assert len(ledger()) == len(files()) == 6
    fresh = run(tiny, "in", out="fresh", **given)
    for some in fresh:
        name = some[0].files["array"]
        np.testing.assert_array_equal(np.load(Path("out", name)), np.load(Path("fresh", name)))
    assert list(itertools.chain(*run(tiny, "in", **given))) == []


def test_a_group_that_lost_or_changed_a_picture_is_done_again(paint: Paint, tiny: str, mean: str) -> None:
    for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png"):
        paint(f"in/{name}", (200, 100, 0))
    given = {"wrap": mean, "group": "folder", "target": ("red",)}
    run(tiny, "in", **given)
    Path("in/a/2.png").unlink()
    assert [some[0].name for some in run(tiny, "in", **given) if some] == ["in/a/1.png", "in/a/3.png"]
    paint("in/b/2.png", (100, 200, 0))
    assert [some[0].name for some in run(tiny, "in", **given) if some] == ["in/b/1.png", "in/b/2.png"]


def test_pictures_of_a_group_are_drawn_at_the_runs_scale(paint: Paint, tiny: str, mean: str) -> None:
    for number in range(4):
        paint(f"in/{number}.png", (200, 10 * number, 0))
    options = {"wrap": mean, "group": "2", "target": ("red",), "normalize": "run", "save": ("heatmap",)}
    assert not any(some[0].error for some in run(tiny, "in", **options))
    assert sum(name.endswith("heatmap.png") for name in files()) == 4


# ---- in Python


def test_groups_in_python(paint: Paint, tiny: str, mean: str) -> None:
    for number in range(4):
        paint(f"in/{number}.png", (200, 100, 0))
    found = list(camcli.explain("in", model=tiny, wrap=mean, group=2, layer="stem", target="red"))
    alone = next(camcli.explain("in/0.png", model=tiny, layer="stem", target="red"))
    assert len(found) == 4
    np.testing.assert_allclose(found[0].map, alone.map / 2, rtol=1e-5)
    several = [Path(f"in/{number}.png") for number in range(3)]
    with pytest.raises(RequestError, match="3 images do not make groups of 2"):
        list(camcli.explain(several, model=tiny, wrap=mean, group=2))
