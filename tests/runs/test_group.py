import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Small, pictures, seeded
from readback import facts, files, ledger
from torch import Tensor, nn

import camcli
from camcli import Explainer, PictureError, RequestError
from camcli.images.find import group_items
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.worker.threads import split_by_length
from conftest import BLUE, GREEN, RED, Paint

COUNT = 3


class Grouped(nn.Module):
    """Small's features of each image, and a head that sees the images together."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Small()

    def features(self, images: Tensor) -> Tensor:
        net = self.network
        return net.conv2(net.pool(net.relu1(net.norm1(net.conv1(images)))))

    def tail(self, cells: Tensor) -> Tensor:
        """One row of scores an image, each by itself."""
        return self.network.fc(self.network.relu2(cells.clone()).square().mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.tail(self.features(images)))

    def head(self, rows: Tensor) -> Tensor:
        return rows


class One(Grouped):
    """One prediction for all, not linear in what each image says, nor alike in all of them."""

    def head(self, rows: Tensor) -> Tensor:
        weights = torch.linspace(1, 2, len(rows), dtype=rows.dtype)[:, None]
        return (rows * weights).square().sum(0, keepdim=True) + rows.prod(0, keepdim=True)


class Mixed(Grouped):
    """One prediction an image, which depends on the image before too."""

    def head(self, rows: Tensor) -> Tensor:
        return rows.square() + 0.5 * rows * rows.roll(1, 0)


def by_hand(model: Grouped, images: Tensor, score: int, row: int) -> tuple[Tensor, Tensor]:
    """The activation at conv2 and the gradient of one score by it, written out."""
    cells = model.features(images).detach().requires_grad_()
    scores = model.head(model.tail(cells))
    (gradient,) = torch.autograd.grad(scores[row, score], cells)
    return cells.detach(), gradient


def gradcams(cells: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.mean((2, 3), keepdim=True) * cells).sum(1)


def maps(explained: list) -> Tensor:
    return torch.stack([torch.from_numpy(one.map).double() for (one,) in explained])


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


LAYER = {"layers": ["network.conv2"], "group": True}


# ---- one prediction for the group


def test_the_maps_of_a_group_with_one_prediction_are_those_of_autograd_by_hand() -> None:
    model, images = One(), pictures(COUNT, 16)
    explained = Explainer(model, **LAYER)(images, 2)
    cells, gradient = by_hand(model, images, 2, 0)
    close(maps(explained), gradcams(cells, gradient))
    with torch.no_grad():
        score = float(model(images)[0, 2])
    assert [one.score for (one,) in explained] == pytest.approx([score] * COUNT)


@pytest.mark.parametrize(
    ("method", "formula"),
    [
        ("hirescam", lambda a, g: (a * g).sum(1)),
        ("layercam", lambda a, g: (a * g.relu()).sum(1).relu()),
    ],
)
def test_so_are_those_of_other_methods(method: str, formula) -> None:
    model, images = One(), pictures(COUNT, 16)
    close(maps(Explainer(model, method=method, **LAYER)(images, 1)), formula(*by_hand(model, images, 1, 0)))


def test_at_the_input_the_score_counts_once_too() -> None:
    model, images = One(), pictures(COUNT, 16)
    with torch.enable_grad():
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[0, 1], leaf)
    close(maps(Explainer(model, method="saliency", group=True)(images, 1)), gradient.abs().amax(1))


def test_a_mirrored_group_is_mirrored_as_a_whole() -> None:
    model, images = One(), pictures(COUNT, 16)
    both = maps(Explainer(model, flips=["flip"], **LAYER)(images, 2))
    turned = gradcams(*by_hand(model, images.flip(-1), 2, 0)).flip(-1)
    close(both, (gradcams(*by_hand(model, images, 2, 0)) + turned) / 2)


def test_the_comparison_of_finer_cam_counts_once() -> None:
    # Of twice the same image each has half a part in the mean.
    images = pictures(1, 16).expand(2, -1, -1, -1).contiguous()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Small()

        def forward(self, images: Tensor) -> Tensor:
            return self.one(images).mean(0, keepdim=True)

    twice = Twice()
    alone = maps(Explainer(twice.one, layers=["conv2"], method="finer-cam")(images[:1], 1))
    together = maps(Explainer(twice, layers=["one.conv2"], method="finer-cam", group=True)(images, 1))
    close(together, torch.cat([alone, alone]) / 2)


def test_fullgrad_of_a_group_is_complete_over_all_its_pictures() -> None:
    class Plain(nn.Module):
        """Piecewise linear, so that input and biases are all of the score."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = seeded(nn.Conv2d(3, 4, 3, padding=1))
            self.fc = seeded(nn.Linear(4, 3))

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(F.relu(self.conv(images)).mean((2, 3))).sum(0, keepdim=True)

    found = Explainer(Plain(), method="fullgrad", group=True)(pictures(COUNT, 16), 1)
    assert len(found) == COUNT


def test_targets_of_one_prediction_are_one_or_agree() -> None:
    model, images = One(), pictures(COUNT, 16)
    explain = Explainer(model, **LAYER)
    wanted = maps(explain(images, 2))
    close(maps(explain(images, [2])), wanted)
    close(maps(explain(images, [2, 2, 2])), wanted)
    with pytest.raises(PictureError, match="one prediction for the group, and its images have different targets: 2"):
        explain(images, [2, 2, 1])
    for targets in ([2, 2], [2] * 4):
        with pytest.raises(RequestError, match=f"{len(targets)} targets were given for 3 images"):
            explain(images, targets)
    assert [one.index for (one,) in explain(images)] == [int(model(images)[0].argmax())] * COUNT


def test_groups_of_several_sizes_may_follow_one_another() -> None:
    model = One()
    explain = Explainer(model, **LAYER)
    for count in (2, 5, 1, 2):
        images = pictures(count, 16, seed=count)
        close(maps(explain(images, 0)), gradcams(*by_hand(model, images, 0, 0)))


# ---- one prediction an image


def test_pictures_that_do_not_mix_are_as_if_alone() -> None:
    model, images = Grouped(), pictures(9, 16)
    together = Explainer(model, **LAYER)
    close(
        maps(together(images, [0, 1, 2] * 3)), maps(Explainer(model, layers=["network.conv2"])(images, [0, 1, 2] * 3))
    )
    assert not any("depends on others" in note for note in together.notes)


@pytest.mark.parametrize("count", [2, 3, 9, 16])
def test_of_scores_that_depend_on_several_pictures_each_is_explained_by_itself(count: int) -> None:
    model, images = Mixed(), pictures(count, 16)
    targets = [row % 4 for row in range(count)]
    explain = Explainer(model, **LAYER)
    by_row = [gradcams(*by_hand(model, images, targets[row], row))[row] for row in range(count)]
    close(maps(explain(images, targets)), torch.stack(by_row))
    # The gradient of the sum is another: it holds what an image does for the next one's score.
    cells = model.features(images).detach().requires_grad_()
    total = model.head(model.tail(cells))[range(count), targets].sum()
    (mixed,) = torch.autograd.grad(total, cells)
    assert not torch.allclose(torch.stack(by_row), gradcams(cells.detach(), mixed), rtol=1e-3)
    assert any("depends on others of its group" in note for note in explain.notes)


def test_one_weak_link_among_many_pictures_is_seen() -> None:
    class Weak(Grouped):
        def head(self, rows: Tensor) -> Tensor:
            return torch.cat([rows[:4], rows[4:5] + 1e-4 * rows[11:12], rows[5:]])

    model, images = Weak(), pictures(12, 16)
    explain = Explainer(model, **LAYER)
    by_row = [gradcams(*by_hand(model, images, 1, row))[row] for row in range(12)]
    close(maps(explain(images, 1)), torch.stack(by_row))
    assert any("depends on others" in note for note in explain.notes)


def test_targets_of_one_prediction_a_picture_must_be_as_many() -> None:
    explain = Explainer(Mixed(), **LAYER)
    for targets in ([1], [1, 2], [0, 1, 2, 3]):
        with pytest.raises(RequestError, match=f"{len(targets)} targets were given for 3 images"):
            explain(pictures(COUNT, 16), targets)


# ---- what a layer gives


class Film(nn.Module):
    """The images of a group are the frames of one film (1, 3, t, h, w)."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 5, 3, padding=1, stride=(stride, 1, 1))
        self.fc = nn.Linear(5, 4)
        seeded(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images.transpose(0, 1)[None]).relu().square().mean((2, 3, 4)))


def test_the_frames_of_a_film_are_the_pictures_of_its_group() -> None:
    model, images = Film(), pictures(4, 12)
    explain = Explainer(model, layers=["conv"], group=True)
    cells = model.conv(images.transpose(0, 1)[None]).detach().requires_grad_()
    score = model.fc(cells.relu().square().mean((2, 3, 4)))[0, 2]
    (gradient,) = torch.autograd.grad(score, cells)
    frames = [one[0].transpose(0, 1) for one in (cells.detach(), gradient)]
    close(maps(explain(images, 2)), gradcams(*frames))
    assert any("the images of a group are mixed before the layer 'conv'" in note for note in explain.notes)


class Cut(Grouped):
    """Every image is cut into two, one above the other."""

    def features(self, images: Tensor) -> Tensor:
        return super().features(torch.cat(images.chunk(2, 2)))

    def head(self, rows: Tensor) -> Tensor:
        return rows.mean(0, keepdim=True)


class Shuffled(Grouped):
    def features(self, images: Tensor) -> Tensor:
        return super().features(images.reshape(2, 2, *images.shape[1:]).transpose(0, 1).flatten(0, 1))

    def head(self, rows: Tensor) -> Tensor:
        return rows.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Cut(), {}, r"'network.conv2': its output has 8 rows \(8x6x4x8\) for a group of 4 images"),
        (Film(2), {"layers": ["conv"]}, r"'conv': its output has 2 frames \(1x5x2x16x16\) for a group of 4 images"),
        (Shuffled(), {}, "another order at the layer 'network.conv2': row 2 of 4 is of image 3"),
        (One(), {"method": "scorecam"}, "scorecam scores many changed images"),
        (One(), {"method": "smoothgrad", "layers": []}, "smoothgrad scores many changed images"),
    ],
)
def test_what_cannot_be_said_of_each_picture_is_refused(model, options, message) -> None:
    with pytest.raises(RequestError, match=message):
        Explainer(model, **(LAYER | options))(pictures(4, 16), 0)


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda rows: rows[:2], "gives 2x4 for a group of 4 picture.s., neither one row of class scores for the group"),
        (lambda rows: rows.sum(), "gives one number|gives  for a group"),
        (lambda rows: {"a": rows, "b": rows[:1] * 2}, "gives 2 tensors that could be its scores"),
    ],
)
def test_what_is_no_answer_for_a_group_is_refused(gives, message) -> None:
    class Wrong(Grouped):
        def head(self, rows: Tensor):
            return gives(rows)

    with pytest.raises(RequestError, match=message):
        Explainer(Wrong(), **LAYER)(pictures(4, 16), 0)


# ---- images in groups


def test_items_in_groups() -> None:
    paths = [Path(name) for name in ("a.png", "b/1.png", "b/c/2.png", "b/3.png", "d.png", "e/4.png")]

    def names(group: str) -> list[str]:
        return [" ".join(map(str, some)) for some in group_items(paths, group, lambda path: path)]

    assert names("folder") == ["b/c/2.png", "b/1.png b/3.png", "e/4.png", "a.png d.png"]
    assert names("4") == ["a.png b/1.png b/c/2.png b/3.png", "d.png e/4.png"]
    assert list(split_by_length([3, 0, 0, 1, 2, 9], lambda one: one)) == [[3, 0, 0], [1], [2, 9]]


MEAN = '''
from torch import nn


class Mean(nn.Module):
    """The mean of what is said of each image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).mean(0, keepdim=True)


class Each(Mean):
    def forward(self, images):
        rows = self.network(images)
        return rows + rows.mean(0)


class Moody(Mean):
    def forward(self, images):
        if images.amin() >= 0 and images.amax() > 0.99:
            raise RuntimeError("too bright for us")
        return super().forward(images)
'''


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
