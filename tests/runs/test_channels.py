"""``camcli channels``: statistics of channels over images, worked out by hand and held against NumPy."""

import csv
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Small, pictures, unruly, untouched
from PIL import Image
from readback import files
from torch import nn
from typer.testing import CliRunner, Result

from camcli.base.errors import PictureError, RequestError
from camcli.cli import app
from camcli.engine.hooks import watch
from camcli.engine.hooks.capture import capture_activations
from camcli.engine.hooks.watch import layer_output
from camcli.images.find import find
from camcli.images.numbers import NumberColumn
from camcli.images.transform import Preprocess
from camcli.images.view import View
from camcli.metrics.statistics import RunningStats, TopK, chance_correlation
from camcli.outputs import banner, draw
from camcli.outputs.sheet import THUMBNAIL_SIDE, SheetRow, SheetTile, compose_sheet, make_thumbnail
from camcli.outputs.style import Style
from camcli.runs.channels import ChannelJob, activations
from camcli.runs.channels.activations import pool_channels
from camcli.runs.channels.run import ChannelRun
from camcli.runs.job.job import Job
from conftest import BLACK, BLUE, GREEN, RED, Paint

MODELS = '''
"""Models whose layers can be worked out by hand."""

import torch
from torch import nn

from camcli import Labels, Preprocess

PREPARE = Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, (16, 16), "squash", "nearest")
LABELS = Labels(("red", "green"))


class Tokens(nn.Module):
    """Patches of 4 x 4 as 16 tokens of their mean colour, less a half in red; a class token of thousands in front."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.norm = nn.Identity()
        self.norm1 = nn.Linear(3, 3, bias=False)
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        tokens = self.pool(images).flatten(2).transpose(1, 2) - torch.tensor([0.5, 0.0, 0.0])
        tokens = torch.cat([torch.full_like(tokens[:, :1], 1000.0), tokens], 1)
        tokens = self.norm1(tokens)
        return self.head(tokens[:, 1:].mean(1))


def tokens():
    module = Tokens()
    with torch.no_grad():
        module.norm1.weight.copy_(torch.eye(3))
    return module, PREPARE, LABELS


class Holed(nn.Module):
    """The image as it is; where it is wholly green, NaN."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1, bias=False)
        self.holes = nn.Hardtanh(-10, 10)
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        cells = self.holes(self.stem(images) * torch.where(images[:, :1].sum((2, 3), keepdim=True) == 0, torch.nan, 1))
        return self.head(cells.mean((2, 3)))


def holed():
    module = Holed()
    with torch.no_grad():
        module.stem.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
    return module, PREPARE, LABELS


class Last(nn.Module):
    """What lies behind the layer counts how often it runs."""

    ran = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, images):
        images = self.layer(images)
        Last.ran += 1
        return images.mean((2, 3))


def last():
    return Last(), PREPARE, LABELS
'''


@pytest.fixture(scope="session")
def models_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.py"
    path.write_text(MODELS, encoding="utf-8")
    return path


def rank(model: str, *words: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["channels", model, *words, "--out", "out", "--device", "cpu"], input=stdin)


def table(name: str = "channels.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path("out", name).read_text(encoding="utf-8"))))


def column(name: str, rows: list[dict[str, str]] | None = None) -> list[float]:
    return [float(row[name]) for row in rows or table()]


def contest(model: str, *inputs: str, channels: tuple[int, ...] = (), overwrite: bool = False, **options) -> ChannelJob:
    named = {name: options.pop(name) for name in ("layers", "batch_size", "workers") if name in options}
    job = Job(
        model=model,
        inputs=inputs,
        out="out",
        device="cpu",
        method="activation",
        target=(f"channel:{','.join(map(str, channels or (0,)))}",),
        overwrite=overwrite,
        **named,
    )
    return ChannelJob(job=job, channels=channels, **options)


# ---- statistics in one pass


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_statistics_of_batches_are_those_of_the_whole_matrix(offset: float) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(500, 7)) * random.uniform(0.1, 10, 7) + offset
    beside = values[:, 3] * 0.1 + random.normal(size=500) - offset
    moments = RunningStats(7)
    start = 0
    while start < 500:
        stop = min(500, start + int(random.integers(1, 40)))
        moments.add(values[start:stop], beside[start:stop])
        start = stop
    found = moments.compute()
    assert found.count == 500
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(0), rtol=1e-9)
    np.testing.assert_array_equal(found.max, values.max(0))
    np.testing.assert_array_equal(found.active, (values > 0).mean(0))
    wanted = [np.corrcoef(values[:, channel], beside)[0, 1] for channel in range(7)]
    # Spreads of less than a millionth of the value are taken for rounding: none here is.
    np.testing.assert_allclose(found.correlation, wanted, rtol=1e-7, atol=1e-9)


def test_statistics_by_hand() -> None:
    moments = RunningStats(2)
    moments.add(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([10.0, 20.0]))
    moments.add(np.array([[5.0, -2.0]]), np.array([60.0]))
    found = moments.compute()
    assert found.mean.tolist() == pytest.approx([3, -2 / 3])
    assert found.max.tolist() == [5, 0]
    assert found.std.tolist() == pytest.approx([(8 / 3) ** 0.5, (8 / 9) ** 0.5])
    assert found.active.tolist() == [1, 0]
    # Deviations (-2, 0, 2), (2/3, 2/3, -4/3) and (-20, -10, 30).
    assert found.correlation[0] == pytest.approx(100 / (8 * 1400) ** 0.5)
    assert found.correlation[1] == pytest.approx(-60 / (8 / 3 * 1400) ** 0.5)


def test_what_is_constant_has_no_spread_and_no_correlation() -> None:
    moments = RunningStats(3)
    for batch in (3, 1, 5):  # 0.1 and its sums are no binary numbers
        values = np.tile([0.1, 1.0, 7.0], (batch, 1))
        values[0, 1] = -1
        values[0, 2] += 1e-8  # rounding
        moments.add(values, np.arange(batch, dtype=float))
    found = moments.compute()
    assert found.std[0] == 0
    assert np.isnan(found.correlation).tolist() == [True, False, True]
    moments = RunningStats(1)
    for value in (1.0, 2.0, 3.0):
        moments.add(np.array([[value]]), np.array([0.1]))
    assert np.isnan(moments.compute().correlation).all()


def test_one_picture_has_a_mean_and_nothing_to_correlate() -> None:
    moments = RunningStats(1)
    moments.add(np.array([[2.0]]), np.array([5.0]))
    found = moments.compute()
    assert (found.count, found.mean[0], found.max[0], found.std[0], found.active[0]) == (1, 2, 2, 0, 1)
    assert np.isnan(found.correlation[0])


def test_of_nothing_there_are_no_statistics() -> None:
    moments = RunningStats(1)
    moments.add(np.empty((0, 1)))
    with pytest.raises(ValueError, match="no values"):
        moments.compute()


def test_a_correlation_is_never_beyond_one() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(9, 200)).astype(np.float32)
    moments = RunningStats(200)
    for row in values:
        moments.add(np.tile(row[:1], (1, 200)) * np.linspace(-3, 3, 200), row[:1])
    found = moments.compute().correlation
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(found, np.sign(np.linspace(-3, 3, 200)), rtol=1e-12)


def test_the_greatest_are_those_of_a_sort_of_all_and_of_equal_ones_the_first() -> None:
    random = np.random.default_rng(1)
    values = random.integers(-4, 5, (101, 6)).astype(np.float32)
    greatest = TopK[str](6, 4)
    for start in range(0, 101, 7):
        some = values[start : start + 7]
        greatest.add(some, [f"p{start + row}" for row in range(len(some))])
    for channel in range(6):
        own = values[:, channel]
        order = [row for row in np.argsort(-own, kind="stable") if own[row] != 0][:4]
        assert greatest.top_of(channel) == [(f"p{row}", own[row]) for row in order]


def test_where_a_channel_says_nothing_no_picture_drives_it_and_what_is_negative_can() -> None:
    greatest = TopK[str](3, 5)
    greatest.add(np.array([[0.0, -1.0, 2.0], [0.0, -0.5, 0.0]]), ["a", "b"])
    assert [greatest.top_of(channel) for channel in range(3)] == [[], [("b", -0.5), ("a", -1.0)], [("a", 2.0)]]


def test_names_are_kept_of_as_many_pictures_as_can_be_shown_and_no_more() -> None:
    greatest = TopK[str](5, 3)
    random = np.random.default_rng(0)
    for batch in range(500):
        greatest.add(random.normal(size=(8, 5)), [f"{batch}-{row}" for row in range(8)])
        assert len(greatest._items) <= 2 * 5 * 3 + 8


def test_what_chance_alone_reaches() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(400):
        values, beside = random.normal(size=(30, 50)), random.normal(size=30)
        moments = RunningStats(50)
        moments.add(values, beside)
        found.append(np.abs(moments.compute().correlation).max())
    assert chance_correlation(50, 30) == pytest.approx(np.median(found), abs=0.01)
    assert chance_correlation(50, 3) is None


# ---- where an image is pooled


def test_pooled_is_the_mean_over_the_cells_that_show_the_picture() -> None:
    cells = torch.arange(32.0).reshape(2, 1, 4, 4)
    whole = View((8, 8), (8, 8), (0.0, 0.0, 8.0, 8.0))
    # Of a wide image, padded above and below, the rows in the middle show something.
    wide = View((4, 8), (8, 8), (0.0, -2.0, 8.0, 6.0))
    assert pool_channels(cells, [whole, wide]).tolist() == [[7.5], [23.5]]
    assert pool_channels(cells[:1] + torch.tensor([[1e6], [0], [0], [1e6]]), [wide]).tolist() == [[7.5]]
    assert pool_channels(cells[:1], [whole]).tolist() == [[7.5]]


def test_the_part_that_the_model_saw_is_cut_out_with_its_own_view() -> None:
    view = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3, (8, 8), "shorter", "bilinear").view(32, 16)
    rows, columns, own = view.crop()
    assert (rows, columns) == (slice(0, 16), slice(8, 24))
    assert own == View((16, 16), (8, 8), (0.0, 0.0, 16.0, 16.0))
    map = np.random.default_rng(0).random((4, 4), np.float32)
    np.testing.assert_array_equal(own.onto_picture(map), view.onto_picture(map)[rows, columns])


def test_what_is_small_keeps_what_was_seen_in_its_proportions() -> None:
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    drawn, view = make_thumbnail(pixels, View((60, 200), (8, 16), (40.0, 0.0, 160.0, 60.0)))
    assert drawn.shape == (THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE, 3)
    assert view.sees_whole_picture
    assert drawn[0, THUMBNAIL_SIDE // 2 - 4].max() <= 1
    assert drawn[0, THUMBNAIL_SIDE // 2 + 3].min() >= 254


# ---- what a layer says


@pytest.mark.parametrize("layer", ["conv1", "relu1", "conv2"])
def test_a_layers_output_is_what_it_says_in_a_whole_forward(layer: str) -> None:
    model, images = Small(), pictures(3)
    with capture_activations({layer: model.get_submodule(layer)}) as taps:
        model(images)
    for turn in (0, 1):
        assert torch.equal(layer_output(model, layer, images, turn), taps[layer].detach())


def test_a_forward_ends_at_the_layer() -> None:
    model = Small()
    model.fc.register_forward_hook(lambda *_: pytest.fail("it ran"))
    layer_output(model, "conv2", pictures(1), 1)


def test_the_run_that_is_asked_for_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.ReLU()

        def forward(self, x):
            return self.layer(self.layer(x) - 1)

    images = torch.tensor([0.5, 3.0]).reshape(1, 1, 1, 2)
    said = [layer_output(Twice(), "layer", images, turn).flatten().tolist() for turn in (1, 2, 0)]
    assert said == [[0.5, 3], [0, 2], [0, 2]]
    with pytest.raises(RequestError, match="has no call 3 for these images"):
        layer_output(Twice(), "layer", images, 3)


def test_asking_leaves_no_trace_even_if_the_model_fails() -> None:
    model = unruly(Small())
    with untouched(model):
        layer_output(model, "conv2", pictures(2), 1)
        layer_output(model, "conv2", pictures(2))
        with pytest.raises(RuntimeError):
            layer_output(model, "conv2", pictures(2)[:, :2], 1)
    assert watch.StopForward not in (Exception, RuntimeError)
    assert not issubclass(watch.StopForward, Exception)


def test_what_lies_behind_the_layer_does_not_run(paint: Paint, models_file: Path, monkeypatch) -> None:
    for number in range(8):
        paint(f"in/{number}.png", (number, 0, 0))
    ranking = ChannelRun(contest(f"{models_file}:last", "in", layers=("layer",), batch_size=2))
    kind = type(ranking.worker.network.module)
    before = kind.ran
    assert len(list(ranking)) == 8
    ranking.write()
    assert kind.ran == before


# ---- the command


def test_the_numbers_by_hand(paint: Paint, tiny: str) -> None:
    # `stem` hands on red, green and blue of each pixel, in 0..1.
    for name, colour in (("a", (255, 51, 0)), ("b", (0, 51, 0)), ("c", (102, 51, 0))):
        paint(f"in/{name}.png", colour)
    result = rank(tiny, "in", "--layer", "stem", "--pictures", "2")
    assert result.exit_code == 0, result.output
    rows = table()
    assert [row["channel"] for row in rows] == ["0", "1", "2"]
    assert column("mean") == pytest.approx([1.4 / 3, 0.2, 0])
    assert column("max") == pytest.approx([1, 0.2, 0])
    assert column("std") == pytest.approx([np.std([1, 0, 0.4]), 0, 0], abs=1e-7)
    assert float(rows[1]["std"]) == 0
    assert column("active") == pytest.approx([2 / 3, 1, 0])
    assert [row["pictures"] for row in rows] == ["3"] * 3
    assert [row["correlation"] for row in rows] == [""] * 3
    strongest = [[row[f"picture_{rank}"] for rank in (1, 2)] for row in rows]
    # Of equal ones the first; of a channel that says nothing none.
    assert strongest == [["in/a.png", "in/c.png"], ["in/a.png", "in/b.png"], ["", ""]]
    assert float(rows[0]["value_2"]) == pytest.approx(0.4)
    assert "nan" not in Path("out/channels.csv").read_text().lower()
    facts = json.loads(Path("out/channels.json").read_text())
    assert (facts["layer"], facts["pictures"], facts["failed"], facts["untrained"]) == ("stem", 3, 0, False)
    assert files() == ["channels.csv", "channels.json", "channels.png"]


def test_the_table_is_on_stdout_and_the_rest_beside_it(paint: Paint, tiny: str) -> None:
    paint("in/a.png", (255, 51, 0))
    paint("in/b.png", (0, 51, 0))
    result = rank(tiny, "in", "--layer", "stem", "--top", "2")
    assert result.stdout.splitlines() == ["0\t0.5\t1\t0.5\t0.500\tin/a.png", "1\t0.2\t0.2\t0\t1.000\tin/a.png"]
    lines = result.stderr.splitlines()
    assert lines[0] == f"model: {tiny}, as built by {tiny}"
    assert lines[1] == "channels: of stem, on cpu"
    assert lines[-1].startswith("2 done in ")
    assert lines[-1].endswith("out/channels.csv, out/channels.png, out/channels.json")
    assert "chosen; --layer names another" in rank(tiny, "in", "--overwrite").stderr
    assert rank(tiny, "in", "--quiet").output == ""


def test_json_has_a_line_for_each_channel_shown(paint: Paint, here: Path, tiny: str) -> None:
    paint("in/a.png", (255, 51, 0))
    paint("in/b.png", (0, 102, 0))
    (here / "v.csv").write_text("in/a.png,1\nin/b.png,2\n")
    result = rank(tiny, "in", "-l", "stem", "--json", "--values", "v.csv", "--sort", "active")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    # Of equal ones the lower number.
    assert [row["channel"] for row in rows] == [1, 0, 2]
    assert [row["correlation"] for row in rows] == [pytest.approx(1), pytest.approx(-1), None]
    assert rows[1]["strongest"] == [{"source": "in/a.png", "page": 0, "value": 1.0}]
    assert rows[2]["strongest"] == []
    assert [row["pictures"] for row in rows] == [2, 2, 2]
    whole = table()
    for row in rows:  # full precision
        assert {name: float(whole[row["channel"]][name]) for name in ("mean", "std", "max", "active")} == {
            name: row[name] for name in ("mean", "std", "max", "active")
        }


@pytest.mark.parametrize(
    ("sort", "order"), [("mean", [0, 1, 2]), ("max", [0, 2, 1]), ("std", [0, 2, 1]), ("active", [1, 0, 2])]
)
def test_channels_are_sorted_by_what_is_asked_of_equal_ones_the_lower_first(
    paint: Paint, tiny: str, sort: str, order: list[int]
) -> None:
    paint("in/a.png", (255, 102, 0))
    paint("in/b.png", (255, 102, 153))
    paint("in/c.png", (0, 102, 0))
    result = rank(tiny, "in", "-l", "stem", "--sort", sort)
    assert [int(line.split("\t")[0]) for line in result.stdout.splitlines()] == order


def test_only_channels_that_are_named_are_shown_and_the_file_has_all(paint: Paint, tiny: str) -> None:
    paint("a.png", (255, 102, 51))
    result = rank(tiny, "a.png", "-l", "stem", "--channel", "2,1")
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["1", "2"]
    assert len(table()) == 3
    more = rank(tiny, "a.png", "-l", "stem", "--channel", "2", "--channel", "0", "--top", "1", "--overwrite")
    assert [line.split("\t")[0] for line in more.stdout.splitlines()] == ["0"]


def test_correlation_is_numpys_over_all_pictures(paint: Paint, here: Path, tiny: str) -> None:
    random = np.random.default_rng(5)
    colours = random.integers(1, 255, (23, 3))
    ages = random.normal(size=23)
    lines = ["file,sex,age"]
    for number, (colour, age) in enumerate(zip(colours, ages, strict=True)):
        paint(f"in/{number}.png", tuple(map(int, colour)))
        lines.append(f"{number}.png,1,{float(age)!r}")  # a path from the folder
    (here / "people.csv").write_text("\n".join(lines))
    result = rank(tiny, "in", "-l", "stem", "--values", "people.csv:age", "--batch-size", "4")
    assert result.exit_code == 0, result.output
    wanted = [np.corrcoef(colours[:, channel], ages)[0, 1] for channel in range(3)]
    assert column("correlation") == pytest.approx(wanted, abs=1e-6)
    order = [int(line.split("\t")[0]) for line in result.stdout.splitlines()]
    assert order == sorted(range(3), key=lambda channel: -abs(wanted[channel]))
    assert "by chance alone, the best of 3 channels over 23 images reaches |r| of about" in result.stderr
    assert json.loads(Path("out/channels.json").read_text())["values"] == {"file": "people.csv", "column": "age"}


def test_tokens_are_read_as_a_grid_and_what_is_no_patch_is_left_out(paint: Paint, models_file: Path) -> None:
    paint("a.png", (255, 0, 51), box=(0, 0, 8, 8))  # a sixteenth of the image
    paint("b.png", (0, 255, 0))
    result = rank(f"{models_file}:tokens", "a.png", "b.png", "--layer", "norm1", "--layout", "tokens:1:4x4")
    assert result.exit_code == 0, result.output
    rows = table()
    assert column("mean", rows) == pytest.approx([(1 / 16 - 0.5 - 0.5) / 2, 0.5, 0.2 / 16 / 2])
    # A channel that is below zero has its strongest images too, and a note says what active means then.
    assert rows[0]["picture_1"] == "a.png"
    assert float(rows[0]["active"]) == 0
    assert "the layer has negative values" in result.stderr


def test_broken_pictures_are_named_and_the_others_count(paint: Paint, here: Path, tiny: str) -> None:
    paint("in/a.png", (255, 0, 0))
    (here / "in/b.png").write_bytes(b"")
    paint("in/c.png", (0, 0, 0))
    result = rank(tiny, "in", "-l", "stem")
    assert result.exit_code == 1
    assert "failed: in/b.png: the file is empty" in result.stderr
    assert "2 done, 1 failed in" in result.stderr
    assert [row["pictures"] for row in table()] == ["2"] * 3
    assert column("mean")[0] == 0.5
    assert json.loads(Path("out/channels.json").read_text())["failed"] == 1


def test_all_failures_are_told_since_nothing_else_keeps_them(paint: Paint, here: Path, tiny: str) -> None:
    paint("in/a.png")
    for number in range(25):
        (here / f"in/broken{number}.png").write_bytes(b"")
    assert rank(tiny, "in", "-l", "stem").stderr.count("failed: ") == 25


def test_if_no_picture_can_be_done_nothing_is_written(here: Path, tiny: str) -> None:
    (here / "a.png").write_bytes(b"")
    result = rank(tiny, "a.png")
    assert result.exit_code == 1
    assert "no image could be processed, so there is nothing to rank" in result.stderr
    assert not Path("out").exists()


def test_a_picture_of_which_the_layer_says_no_number_has_failed(paint: Paint, models_file: Path) -> None:
    paint("a.png", RED)
    paint("b.png", GREEN)
    result = rank(f"{models_file}:holed", "a.png", "b.png", "--layer", "holes")
    assert result.exit_code == 1
    assert "failed: b.png: the layer 'holes' returns NaN or infinite values for this image" in result.stderr
    assert [row["pictures"] for row in table()] == ["1"] * 3


def test_a_batch_that_fails_is_done_picture_by_picture(paint: Paint, tiny_file: Path, monkeypatch) -> None:
    paint("in/a.png", RED)
    paint("in/b.png", (255, 255, 255))
    ranking = ChannelRun(contest(f"{tiny_file}:make", "in", layers=("stem",)))
    whole = activations.read_activations

    def forward(worker, layer, explainer, items, kept):
        if any(item.source.path.name == "b.png" for item in items):
            raise RuntimeError("too bright for me")
        return whole(worker, layer, explainer, items, kept)

    monkeypatch.setattr(activations, "read_activations", forward)
    outcomes = [one for [one] in ranking]
    assert [one.error for one in outcomes] == [None, "the network fails on this image: too bright for me"]
    assert "a batch failed and was processed image by image: too bright for me" in ranking.notes
    assert ranking.write()[0].pictures == 1


def test_a_picture_that_is_gone_when_the_sheet_is_drawn_is_a_note(paint: Paint, tiny: str) -> None:
    paint("in/a.png", RED)
    gone = paint("in/b.png", (200, 0, 0))
    ranking = ChannelRun(contest(tiny, "in", layers=("stem",)))
    list(ranking)
    gone.unlink()
    [first, *_] = ranking.write()
    assert [source.path.name for source, _ in first.strongest] == ["a.png", "b.png"]
    assert "1 image(s) could not be read again for the contact sheet: in/b.png" in ranking.notes


def test_names_come_from_standard_input(paint: Paint, here: Path, tiny: str) -> None:
    paint("a.png", (255, 0, 0))
    paint("b.png", (0, 0, 0))
    (here / "v.csv").write_text("a.png,1\n")
    result = rank(tiny, "-", "-l", "stem", stdin=b"a.png\nb.png\n")
    assert result.exit_code == 0, result.output
    assert column("mean")[0] == 0.5
    some = rank(tiny, "-", "-l", "stem", "--values", "v.csv", "--overwrite", stdin=b"a.png\nb.png\n")
    assert some.exit_code == 1
    assert "failed: b.png: v.csv has no value for this image" in some.stderr
    assert rank(tiny, "-", "--overwrite", stdin=b"").exit_code == 3


def test_what_an_untrained_network_gives_says_so(paint: Paint, tiny: str, pixels) -> None:
    paint("a.png", (100, 90, 80))
    trained = rank(tiny, "a.png", "-l", "stem")
    assert trained.exit_code == 0
    result = rank(tiny, "a.png", "-l", "stem", "--weights", "random", "--json", "--overwrite")
    assert result.exit_code == 0, result.output
    # What was there of the other ranking is gone.
    assert files() == ["channels.json", "channels.untrained.csv", "channels.untrained.png"]
    assert (pixels("out/channels.untrained.png")[-5, 5] == banner.BANNER_COLOUR).all()
    assert json.loads(Path("out/channels.json").read_text())["untrained"]
    assert all(json.loads(line)["untrained"] for line in result.stdout.splitlines())
    assert "this ranking means nothing, and every file is marked so" in result.stderr


def test_another_ranking_is_not_replaced_unasked_the_same_is(paint: Paint, tiny: str) -> None:
    paint("a.png", RED)
    assert rank(tiny, "a.png", "-l", "stem").exit_code == 0
    paint("b.png", BLUE)
    assert rank(tiny, "a.png", "b.png", "-l", "stem").exit_code == 0
    assert [row["pictures"] for row in table()] == ["2"] * 3
    other = rank(tiny, "a.png", "-l", "body")
    assert other.exit_code == 2
    assert "'out' contains another ranking of channels: of 'stem'" in other.stderr
    assert len(table()) == 3
    assert rank(tiny, "a.png", "-l", "body", "--overwrite").exit_code == 0


def test_the_output_folder_is_held_while_it_is_ranked_and_two_rankings_do_not_mix(paint: Paint, tiny: str) -> None:
    paint("a.png", RED)
    Path("out").mkdir()
    one, other = (ChannelRun(contest(tiny, "a.png", layers=(layer,))) for layer in ("stem", "body"))
    with one:
        list(one)
        with pytest.raises(RequestError, match="another run is writing to 'out'"), other:
            pass
        list(other)
        with pytest.raises(RequestError, match="another run is writing to 'out'"):
            other.write()
        one.write()
    # Free again, but by now there is a ranking of something else.
    with pytest.raises(RequestError, match="contains another ranking of channels: of 'stem'"):
        other.write()
    assert len(table()) == 3


def test_a_folder_with_a_ranking_holds_no_pictures(paint: Paint, tiny: str) -> None:
    paint("in/a.png", RED)
    assert rank(tiny, "in", "-l", "stem").exit_code == 0
    Path("out").rename("in/ranked")
    assert [str(source.path) for source in find(["in"], out=Path("elsewhere"))] == ["in/a.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-l", "stem", "-l", "body"], "'body'"),
        (["-l", "*"], "channels are ranked for one layer, and 2 are named: stem, body"),
        (["-l", "sten"], "did you mean 'stem'?"),
        (["-l", "stem", "--channel", "3"], "there is no channel 3 at the layer 'stem'"),
        (["-l", "stem", "--channel", "red"], "--channel 'red' is not a channel index"),
        (["-l", "stem", "--sort", "correlation"], "needs values to correlate with"),
        (["-l", "stem", "--sort", "beauty"], "--sort"),
        (["-l", "stem", "--top", "0"], "--top"),
        (["-l", "stem", "--pictures", "0"], "--pictures"),
        (["-l", "stem", "--colormap", "virids"], "did you mean 'viridis' or"),
        (["-l", "stem", "--values", "nowhere.csv"], "'nowhere.csv' cannot be read"),
        (["-l", "stem", "--values", "some.csv"], "some.csv has values for 1 of the 2 images; not for b.png"),
        (["-l", "stem", "--values", "words.csv"], "words.csv, line 2 ('b.png'): 'old' is not a finite number"),
        (["-l", "stem", "--values", "titled.csv:agee"], "did you mean 'age'?"),
        (["-l", "stem", "--values", "titled.csv"], "titled.csv has 2 columns of values"),
        (["--layout", "nchw"], "--layer"),
        (["nowhere.png"], "there is no file or folder 'nowhere.png'"),
        (["--device", "gpu"], "there is no device 'gpu' here"),
    ],
)
def test_a_wrong_request_ends_with_2_says_what_there_is_and_writes_nothing(
    paint: Paint, here: Path, tiny: str, words: list[str], said: str
) -> None:
    paint("a.png")
    paint("b.png")
    (here / "some.csv").write_text("a.png,1\n")
    (here / "words.csv").write_text("a.png,1\nb.png,old\n")
    (here / "titled.csv").write_text("picture,age,sex\na.png,1,0\nb.png,2,1\n")
    if words[:3] == ["-l", "stem", "-l"]:
        words = ["-l", "stem,body"]
    result = CliRunner().invoke(app, ["channels", tiny, "a.png", "b.png", "--out", "out", *words])
    assert result.exit_code == 2, result.output
    assert said in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert not (here / "out").exists()


def test_a_contest_that_cannot_be_is_refused_in_python_too() -> None:
    with pytest.raises(RequestError, match="cannot be shown"):
        ChannelJob(job=Job(), pictures=0)
    with pytest.raises(RequestError, match="needs values to correlate with"):
        ChannelJob(job=Job(), sort="correlation")
    assert ChannelJob(job=Job(), channels=(1, 2)).max_shown == 2
    assert ChannelJob(job=Job()).max_shown == 16


# ---- a number for each image


def values(here: Path, text: str, asked: str = "v.csv", folders: tuple[str, ...] = ()) -> NumberColumn:
    (here / "v.csv").write_text(text, encoding="utf-8")
    return NumberColumn(asked, [Path(folder) for folder in folders])


def test_values_are_found_by_paths_as_targets_are(paint: Paint, here: Path) -> None:
    paint("in/a.png")
    paint("in/b.png")
    found = values(here, "Age, File\n3.5, a.png\n\n-1e3, in/b.png\n2, nobody.png\n", folders=("in",))
    assert found.column == "Age"
    assert [found(Path("in/a.png")), found(here / "in/b.png")] == [3.5, -1000]
    assert found.find_unused(iter([Path("in/a.png")])) == ["nobody.png", str(here / "in/b.png")]
    with pytest.raises(PictureError, match="no value for this image"):
        found(Path("in/c.png"))


def test_without_titles_the_second_cell_is_the_number(paint: Paint, here: Path) -> None:
    paint("a.png")
    found = values(here, '"a.png",7\n')
    assert (found(Path("a.png")), found.column) == (7, "values")


def test_a_file_whose_name_has_a_colon_is_a_file(paint: Paint, here: Path) -> None:
    paint("a.png")
    (here / "v.csv:age").write_text("picture,x\na.png,2\n")
    assert NumberColumn("v.csv:age")(Path("a.png")) == 2
    assert values(here, "picture,age,b\na.png,1,2\n", "v.csv:b")(Path("a.png")) == 2


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        ("", "v.csv", "'v.csv' lists nothing"),
        ("picture,age\n", "v.csv", "'v.csv' lists nothing"),
        ("picture\na.png\n", "v.csv", "no column beside that of the images"),
        ("picture,age\na.png,\n", "v.csv", r"line 2 \('a.png'\): the number is missing"),
        ("picture,age\n,3\n", "v.csv", "the image is missing"),
        ("picture,age\na.png,nan\n", "v.csv", "'nan' is not a finite number"),
        ("picture,age\na.png,inf\n", "v.csv", "'inf' is not a finite number"),
        ("name,age\na.png,3\n", "v.csv", r"line 1 \('name'\): 'age' is not a finite number"),
        ("picture,age\na.png,3,5\n", "v.csv", "line 2: 3 cells, and the first row has 2"),
        ("picture,age\na.png,3\na.png,3\n", "v.csv", "line 3: 'a.png' is listed twice, first in line 2"),
        ("picture,age,age\na.png,3,4\n", "v.csv:age", "2 columns 'age'"),
        ("a.png,3\n", "v.csv:age", "no header row, so there is no column 'age'"),
        ("a.png,3,4\n", "v.csv", "3 cells a row and no header row"),
        ('picture,age\n"a.png,3\n', "v.csv", "is not CSV"),
    ],
)
def test_a_values_file_that_cannot_be_says_why(paint: Paint, here: Path, text: str, asked: str, said: str) -> None:
    paint("a.png")
    with pytest.raises(RequestError, match=said):
        values(here, text, asked)


def test_a_values_file_that_is_no_text_says_so(here: Path) -> None:
    (here / "v.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="is not UTF-8 text"):
        NumberColumn("v.csv")


# ---- the contact sheet


def tile(strength: float) -> SheetTile:
    view = View((THUMBNAIL_SIDE, THUMBNAIL_SIDE), (8, 8), (0.0, 0.0, float(THUMBNAIL_SIDE), float(THUMBNAIL_SIDE)))
    return SheetTile(
        "cat.png",
        np.full((THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), 128, np.uint8),
        view,
        np.full((2, 2), strength, np.float32),
    )


def test_a_rows_pictures_are_drawn_on_one_scale_and_rows_are_not() -> None:
    style = Style("viridis", 0.6, "run")

    def drawn(rows: list[list[float]]) -> np.ndarray:
        tiles = [[tile(strength) for strength in strengths] for strengths in rows]
        return compose_sheet("t", [], [SheetRow("channel", [], some) for some in tiles], [], style, 2)

    page = drawn([[2.0, 1.0], [1.0, 1.0]])
    grey = np.full((1, 1, 3), 128, np.uint8)
    full, half = (draw.blend(grey, np.array([[heat]], np.float32), style)[0, 0] for heat in (1.0, 0.5))

    def cells(colour: np.ndarray) -> int:
        return round((page == colour).all(axis=2).sum() / THUMBNAIL_SIDE**2)

    assert (cells(full), cells(half)) == (3, 1)


def test_what_is_not_above_zero_is_not_drawn() -> None:
    page = compose_sheet(
        "t", [], [SheetRow("channel", [], [tile(-1.0), tile(0.0)])], [], Style("viridis", 0.6, "run"), 2
    )
    assert round((page == 128).all(axis=2).sum() / THUMBNAIL_SIDE**2) == 2


def test_a_sheet_has_room_for_every_row_and_line() -> None:
    style = Style("viridis", 0.6, "run")
    one = compose_sheet("t", ["a"], [SheetRow("channel", ["x"], [tile(1.0)])], ["word " * 300], style, 3)
    empty = SheetRow("channel 7", [], [], ["zero in every image"])
    two = compose_sheet("t", ["a"], [SheetRow("channel", ["x"], [tile(1.0)]), empty], ["word " * 300], style, 3)
    assert one.shape[1] == two.shape[1]
    assert len(two) > len(one)
    assert (one[-10:] == 255).all()
    gone = compose_sheet("t", [], [SheetRow("channel", [], [SheetTile("gone.png")])], [], style, 1)
    assert (gone != 255).any()


# ---- memory


def test_memory_does_not_grow_with_the_folder(here: Path, tiny: str) -> None:
    (here / "in").mkdir()
    for number in range(240):
        Image.new("RGB", (64, 64), (number, 255 - number, 7)).save(here / f"in/{number}.bmp")
    for name, count in (("few.txt", 40), ("all.txt", 240)):
        (here / name).write_text("\n".join(f"in/{number}.bmp" for number in range(count)))
    peaks = []
    for inputs in ("@few.txt", "@few.txt", "@all.txt"):
        ranking = ChannelRun(contest(tiny, inputs, layers=("stem",), batch_size=4, workers=1))
        tracemalloc.start()
        count = sum(1 for _ in ranking)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert count == 240
    # 200 images more, of 12 KB each as pixels: what grows is a hash of each one's name.
    assert peaks[2] - peaks[1] < 200 * 600


# ---- the bundled model


@pytest.mark.slow
def test_the_bundled_model_ranks_the_sample_images(here: Path, sample_images: Path, pixels) -> None:
    from camcli.models.load import load

    files = sorted(path for path in sample_images.iterdir() if path.suffix in (".png", ".jpg"))
    numbers = "\n".join(f"{path.name},{number}" for number, path in enumerate(files))
    (here / "v.csv").write_text(f"picture,number\n{numbers}\n")
    result = rank("bundled:efficientnet-lite0", str(sample_images), "--values", "v.csv", "--batch-size", "3")
    assert result.exit_code == 0, result.output
    network = load("bundled:efficientnet-lite0")
    with torch.inference_mode(), capture_activations({"bn2": network.module.get_submodule("bn2")}) as taps:
        for path in files:
            with Image.open(path) as image:
                network.module(network.preprocess(image.convert("RGB"))[0][None])
            taps[path.name] = taps["bn2"].mean((2, 3))[0]
    matrix = torch.stack([taps[path.name] for path in files]).double().numpy()
    rows = table()
    assert len(rows) == 1280
    for name, wanted in (("mean", matrix.mean(0)), ("max", matrix.max(0)), ("std", matrix.std(0))):
        np.testing.assert_allclose(column(name, rows), wanted, rtol=1e-4, atol=1e-5)
    r = np.array([float(row["correlation"] or "nan") for row in rows])
    live = matrix.std(0) > 1e-3
    wanted = [np.corrcoef(own, np.arange(len(files)))[0, 1] for own in matrix.T[live]]
    np.testing.assert_allclose(r[live], wanted, atol=1e-3)
    for channel in np.argsort(-matrix.max(0))[:50]:
        assert Path(rows[channel]["picture_1"]).name == files[int(matrix[:, channel].argmax())].name
    page = pixels("out/channels.png")
    assert page.shape[1] < 1400
    assert BLACK not in (tuple(page[0, 0]), tuple(page[-1, -1]))
