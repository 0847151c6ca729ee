"""``camcli channels``: the command, its table and files, what is noted and what is refused."""

import csv
import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from channel_runs import contest
from PIL import Image
from readback import files
from shared import BLACK, BLUE, GREEN, RED, Paint
from typer.testing import CliRunner, Result

from camcli.base.errors import RequestError
from camcli.cli import app
from camcli.engine.hooks.capture import capture_activations
from camcli.images.find import find
from camcli.outputs import banner
from camcli.runs.channels import ChannelJob, activations
from camcli.runs.channels.run import ChannelRun
from camcli.runs.job.job import Job


def rank(model: str, *words: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["channels", model, *words, "--out", "out", "--device", "cpu"], input=stdin)


def table(name: str = "channels.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path("out", name).read_text(encoding="utf-8"))))


def column(name: str, rows: list[dict[str, str]] | None = None) -> list[float]:
    return [float(row[name]) for row in rows or table()]


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
    quiet = rank(tiny, "in", "--layer", "stem", "--top", "2", "--quiet", "--overwrite")
    assert (quiet.stdout, quiet.stderr) == (result.stdout, "")


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
    assert "1 image could not be read again for the contact sheet: in/b.png" in ranking.notes


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
    assert "'out' contains the results of another job: layers was ['stem'], is ['body']" in other.stderr
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
    with pytest.raises(RequestError, match=r"contains another ranking of channels: layers was \['stem'\]"):
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
