"""``camcli evaluate``: the command, what it writes and says, resumed, refused."""

import csv
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from commands import do
from shared import BLUE, GREEN, RED, Paint

from camcli.metrics import CONTROLS, DEFINITIONS
from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.columns import collect
from camcli.runs.evaluate.records import FACTS_FILE, LINES_FILE
from camcli.runs.evaluate.summary import list_warnings, summarize
from camcli.runs.evaluate.table import write_table

METRICS = ("insertion-mean", "deletion-mean", "energy-in-box", "sparseness")
CHEAP = ("--metrics", "insertion-mean,sparseness")


@pytest.fixture
def four(paint: Paint) -> None:
    """Four images below ``in``, each with a red box, and a file of boxes that knows three of them."""
    rows = ["image,x0,y0,x1,y1,label"]
    for number, (x, y) in enumerate([(2, 3), (12, 5), (4, 17), (16, 16)]):
        paint(f"in/{number}.png", RED, box=(x, y, x + 12, y + 12), ground=BLUE)
        rows.append(f"{number}.png,{x},{y},{x + 12},{y + 12},red")
    Path("boxes.csv").write_text("\n".join(rows[:-1]))


def evaluate(tiny: str, *words: str):
    return do("evaluate", "in", "--model", tiny, "--device", "cpu", "--target", "red", *words)


def lines(out: str = "out") -> list[Evaluation]:
    return [Evaluation.read(json.loads(line)) for line in Path(out, LINES_FILE).read_text().splitlines()]


def read_table(path: str) -> dict[tuple[str, str, str], dict[str, str]]:
    with Path(path).open() as file:
        return {(row["metric"], row["kind"], row["map"]): row for row in csv.DictReader(file)}


def test_a_table_with_controls(tiny: str, four: None) -> None:
    words = ("--metrics", ",".join(METRICS), "--boxes", "boxes.csv", "--method", "gradcam,random")
    result = evaluate(tiny, *words, "--out", "out", "--to", "table.csv", "--setting", "deletion-mean.steps=4")
    assert result.exit_code == 0, result.output
    assert "boxes.csv has boxes of 3 of the 4 images" in result.stderr
    maps = [("method", "gradcam"), ("method", "random"), ("blurred", "gradcam"), ("blurred", "random")]
    maps += [("control", name) for name in CONTROLS.names()]
    rows = read_table("table.csv")
    assert [*rows] == [(metric, *one) for metric in METRICS for one in maps]
    assert len(result.stdout.splitlines()) == 1 + len(rows)
    # The truth of a model of colour is what has the colour; it beats every control, and so what knows nothing does not.
    for metric, better in (("insertion-mean", 1), ("deletion-mean", -1), ("energy-in-box", 1)):
        means = {one: better * float(mean) for one in maps if (mean := rows[metric, *one]["mean"])}
        assert all(means["method", "gradcam"] > means[one] for one in means if one[1] != "gradcam"), metric
        assert rows[metric, "method", "gradcam"]["not_above"] in ("", "its blurred copy")
        assert "smooth-random" in rows[metric, "method", "random"]["not_above"]
    assert "note: random is not surely better than " in result.stderr
    assert "conclusion: none from 4 images; methods are judged from 6 images on" in result.stderr
    assert rows["insertion-mean", "method", "gradcam"]["setting"] == "fill=mean steps=10 seed=0"
    assert rows["deletion-mean", "method", "gradcam"]["setting"] == "fill=mean steps=4 seed=0"
    assert rows["insertion-mean", "method", "gradcam"]["measured"] == "probability"
    # Of the uniform map: no order, the box's share for energy; the image without a box is counted.
    uniform = rows["deletion-mean", "control", "uniform"]
    assert (uniform["mean"], uniform["images"], uniform["undefined"]) == ("", "0", "4")
    energy = rows["energy-in-box", "control", "uniform"]
    assert (float(energy["mean"]), energy["images"], energy["undefined"]) == (pytest.approx(144 / 1024), "3", "1")
    assert (
        rows["sparseness", "method", "gradcam"]["better"] == rows["sparseness", "method", "random"]["not_above"] == ""
    )
    made = lines()
    assert len(made) == 4 * len(rows)
    [none] = [one for one in made if one.map == "gradcam" and one.kind == "method" and one.undefined]
    assert (none.value, none.metric) == (None, "energy-in-box")
    assert none.undefined.startswith("no object of this class")
    facts = json.loads(Path("out", FACTS_FILE).read_text())
    assert (facts["conclusion"]["images"], len(facts["conclusion"]["duels"])) == (4, 1)
    assert [(one["metric"], one["kind"], one["map"]) for one in facts["table"]] == [*rows]
    assert {(one["metric"], one["other"]) for one in facts["agreements"]} == {*combinations(METRICS[:3], 2)}
    ranks = {(one["metric"], one["map"]): one for one in facts["ranks"]}
    assert {one for one, _ in ranks} == {*METRICS[:3]}
    assert ranks["deletion-mean", "gradcam"]["best"] == 1
    assert ranks["energy-in-box", "random"]["rank"] == 2
    assert ranks["energy-in-box", "random"]["images"] == 3
    assert "mean rank of the methods over the images, 1 is best:" in result.stderr
    assert "  deletion-mean: gradcam 1.0 (1.0 to 1.0, best in 100%), random 2.0 (" in result.stderr
    assert "agreement of metrics on the order of maps (Kendall's tau): mean " in result.stderr
    curves = {(one["metric"], one["kind"], one["map"]): one["curve"] for one in facts["curves"]}
    # Four steps, from the image itself to its mean colour; none of a uniform map.
    curve = curves["deletion-mean", "method", "gradcam"]
    assert np.trapezoid(curve) / 4 == pytest.approx(float(rows["deletion-mean", "method", "gradcam"]["mean"]), abs=1e-3)
    assert ("deletion-mean", "control", "uniform") not in curves
    assert facts["metrics"]["deletion-mean"]["source"].startswith("Petsiuk et al. 2018")


def test_run_again_it_goes_on(tiny: str, four: None) -> None:
    say = (*CHEAP, "--method", "gradcam", "--out", "out")
    assert evaluate(tiny, *say, "--limit", "2", "--to", "some.csv").exit_code == 0
    result = evaluate(tiny, *say, "--to", "all.csv")
    assert "2 done, 2 done before" in result.stderr
    assert read_table("some.csv")["insertion-mean", "method", "gradcam"]["images"] == "2"
    assert read_table("all.csv")["insertion-mean", "method", "gradcam"]["images"] == "4"
    assert (
        evaluate(tiny, *CHEAP, "--method", "gradcam", "--out", "again", "--to", "again.csv", "-b", "1").exit_code == 0
    )
    assert Path("again.csv").read_text() == Path("all.csv").read_text()
    other = evaluate(tiny, "--metrics", "sparseness", "--method", "gradcam", "--out", "out")
    assert other.exit_code == 2


def test_quiet_prints_the_table_and_nothing_else(tiny: str, four: None) -> None:
    say = (*CHEAP, "--method", "gradcam", "--out", "out")
    said = evaluate(tiny, *say)
    quiet = evaluate(tiny, *say, "--quiet")
    assert quiet.stdout.splitlines()[0].split() == ["metric", "better", "map", "mean", "95%", "images", "undefined"]
    assert (quiet.stdout, quiet.stderr) == (said.stdout, "")


def test_metrics_and_controls_can_be_listed(here: Path) -> None:
    listed = do("evaluate", "--list")
    assert listed.exit_code == 0, listed.output
    rows = {(row[0], row[1]): row[2:] for row in (line.split("\t") for line in listed.stdout.splitlines())}
    assert {name for kind, name in rows if kind == "control"} == {*CONTROLS.names(), "blurred"}
    assert rows["faithfulness", "deletion-mean"][:2] == ["lower", "yes"]
    assert rows["complexity", "entropy"][:2] == ["", ""]
    assert ("column", "undefined") in rows


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(tiny: str, four: None) -> None:
    Path("in/bad.png").write_bytes(b"no picture")
    words = ("--metrics", "deletion-mean,robustness-noise,sparseness", "--setting", "steps=4", "--method", "gradcam")
    result = evaluate(tiny, *words, "--out", "out", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1] == "images: 5 found"
    assert lines[2] == "output: evaluation.jsonl, evaluation.json, in out, a new folder"
    assert lines[3].startswith("time: about ")
    # The image and its mean colour, and 3 steps of 6 maps that have an order; and 4 noisy copies.
    assert lines[4] == f"network: about {2 + 3 * 7 + 4} changed images for each image and class"
    assert not Path("out").exists()
    assert evaluate(tiny, *words, "--out", "out", "--limit", "2").exit_code == 0
    before = Path("out", LINES_FILE).read_bytes()
    assert (
        "images: 5 found, 2 of them done already, 3 to do" in evaluate(tiny, *words, "--out", "out", "--dry-run").stdout
    )
    assert Path("out", LINES_FILE).read_bytes() == before


def test_lines_of_other_definitions_of_the_metrics_are_not_mixed_in(
    tiny: str, four: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = (*CHEAP, "--method", "gradcam", "--out", "out", "--limit", "1")
    assert evaluate(tiny, *say).exit_code == 0
    monkeypatch.setattr("camcli.runs.evaluate.run.DEFINITIONS", DEFINITIONS + 1)
    assert evaluate(tiny, *say).exit_code == 2


def test_what_fails_is_one_images_alone(tiny: str, four: None) -> None:
    Path("in/bad.png").write_bytes(b"no picture")
    result = evaluate(tiny, *CHEAP, "--method", "gradcam", "--out", "out", "--json", "--limit", "5")
    assert result.exit_code == 1
    assert "failed: in/bad.png: " in result.stderr
    assert result.stdout == Path("out", LINES_FILE).read_text()
    assert [bool(one.metric) for one in lines() if one.error] == [False]


def test_the_score_can_be_measured(tiny: str, four: None) -> None:
    for number in ("score", "probability"):
        evaluate(tiny, "--metrics", "deletion-mean", "--method", "gradcam", "--out", number, "--measured", number)
    score, probability = ([one for one in lines(number) if one.map == "centre"] for number in ("score", "probability"))
    for one, other in zip(score, probability, strict=True):
        assert (one.measured, other.measured) == ("score", "probability")
        assert one.value != other.value
        assert 0 < other.value < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metrics", "insertion"), "did you mean"),
        (("--metrics", "energy-in-box"), "--boxes FILE"),
        (("--setting", "stepz=3"), "has no option 'stepz'"),
        (("--setting", "insertion-blur.fill=mean"), "has no option 'fill'"),
        (("--to", "table.xls"), "end its name in .csv or .jsonl or .parquet"),
        (("--boxes", "elsewhere.csv"), "has boxes of none of the 4 images"),
        (("--boxes", "classes.csv"), "line 2 ('0.png')"),
        (("--boxes", "nowhere.json"), "--boxes: there is no 'nowhere.json'"),
        (("--masks", "nowhere"), "--masks: there is no 'nowhere'"),
        (("--masks", "in", "--boxes", "elsewhere.csv"), "both say where objects lie"),
        (("--method", "activation", "--target", "channel:1"), "do not explain a class's score"),
    ],
)
def test_what_is_refused(tiny: str, four: None, words: tuple[str, ...], message: str) -> None:
    Path("elsewhere.csv").write_text("image,x0,y0,x1,y1\nother.png,1,2,3,4\n")
    Path("classes.csv").write_text("image,x0,y0,x1,y1,label\n0.png,1,2,3,4,purple\n")
    result = do("evaluate", "in", "--model", tiny, *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not Path("camcli-out").exists()


# ---- the table, by hand


def made(name: str, kind: str, map: str, value: float | None) -> Evaluation:
    given = {"source": name, "name": name, "stamp": "", "job": "", "run": "", "metric": "deletion-mean"}
    return Evaluation(**given, kind=kind, map=map, value=value)


def test_table_by_hand() -> None:
    numbers = {
        ("method", "good"): [[0.1], [0.2, 0.4], [0.1]],  # the second image has two classes
        ("method", "poor"): [[0.6], [0.2], [0.9]],
        ("blurred", "good"): [[0.2], [0.4], [0.3]],
        ("control", "edges"): [[0.5], [0.5], [None]],
    }
    pictures = [
        [made(str(at), *key, value) for key, values in numbers.items() for value in values[at]] for at in range(3)
    ]
    rows = {row.title: row for row in summarize(collect(pictures, several_layers=False))[0]}
    assert [*rows] == ["good", "poor", "good, blurred", "control edges"]
    assert rows["good"].mean == pytest.approx((0.1 + 0.3 + 0.1) / 3)
    assert (rows["good"].low, rows["good"].high) == pytest.approx((0.1, 0.3))
    assert (rows["control edges"].images, rows["control edges"].undefined) == (2, 1)
    # Lower is better: by 0.1, 0.1 and 0.2, and by 0.4 and 0.2; the other by -0.1 and 0.3.
    assert rows["good"].not_above == ()
    assert list_warnings([*rows.values()]) == ["poor is not surely better than edges (deletion-mean)"]


def test_a_number_of_several_images_that_is_no_mean() -> None:
    # At the first threshold two of three images are found at 30%, at the second one; at 50% one, at 70% none.
    hits = [(1.0, 1.0, 0.0, 1.0, 0.0, 0.0), (1.0, *[0.0] * 5), (0.0,) * 6]
    lines = (made(str(at), "method", "good", 0.5) for at in range(3))
    pictures = [[replace(one, metric="max-box-acc", curve=own)] for one, own in zip(lines, hits, strict=True)]
    [row], [curve] = summarize(collect(pictures, several_layers=False))
    assert row.mean == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert 0 <= row.low < row.mean < row.high <= 1
    assert curve.curve == pytest.approx((2 / 3, 1 / 3, 0, 1 / 3, 0, 0), abs=1e-6)


def test_a_line_without_a_curve_has_a_value_alone() -> None:
    """Earlier versions recorded none: the curve is of the other images, and the mean of all."""
    lines = [
        replace(made(name, "method", "good", value), curve=curve)
        for name, value, curve in (
            ("a", 0.8, ()),
            ("b", 0.4, (1.0, 0.5)),
            ("c", 0.6, (0.0, 0.5)),
        )
    ]
    [row], [curve] = summarize(collect([[one] for one in lines], several_layers=False))
    assert (row.mean, row.images) == (pytest.approx(0.6), 3)
    assert curve.curve == pytest.approx((0.5, 0.5))


def test_a_single_image_has_no_interval_and_no_warning() -> None:
    rows, _ = summarize(
        collect([[made("a", "method", "poor", 0.9), made("a", "control", "edges", 0.1)]], several_layers=False)
    )
    assert [(row.mean, row.low, row.not_above) for row in rows] == [(0.9, None, ()), (0.1, None, ())]


def test_each_class_of_an_image_is_measured(tiny: str, paint: Paint) -> None:
    paint("in/a.png", GREEN, box=(3, 3, 9, 9), ground=RED)
    metrics = ("--metrics", "road-most,road-least", "--setting", "steps=1", "--measured", "score")
    evaluate(tiny, *metrics, "--method", "gradcam", "--out", "out", "--target", "green")
    found = {(one.label, one.map, one.metric): one.value for one in lines() if one.kind != "blurred"}
    assert len(lines()) == 2 * 2 * (2 + len(CONTROLS.names()))
    # Half of the image is interpolated: without what is red the rest is green, without the rest it is red.
    assert found["red", "gradcam", "road-most"] < found["red", "gradcam", "road-least"]
    assert found["green", "gradcam", "road-most"] < found["green", "gradcam", "road-least"]
    assert found["green", "uniform", "road-most"] is None


def test_the_table_for_other_programs(tmp_path: Path) -> None:
    rows, _ = summarize(
        collect([[made("a", "method", "poor", 0.9), made("a", "control", "edges", None)]], several_layers=False)
    )
    values = [row.as_dict() for row in rows]
    for suffix in (".jsonl", ".csv"):
        write_table(rows, tmp_path / f"table{suffix}")
    assert [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()] == values
    with (tmp_path / "table.csv").open() as file:
        assert [*csv.DictReader(file)] == [
            {name: "" if one is None else str(one) for name, one in row.items()} for row in values
        ]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    write_table(rows, tmp_path / "table.parquet")
    assert parquet.read_table(tmp_path / "table.parquet").to_pylist() == values


def test_prompts_are_classes_too(clip: str, three: None) -> None:
    texts = ("--text", "a red square", "--text", "something blue")
    metric = ("--metrics", "deletion-mean", "--setting", "steps=2", "--limit", "1")
    result = do("evaluate", "in", "--model", clip, *texts, *metric, "--method", "gradcam", "--out", "out")
    assert result.exit_code == 0, result.output
    found = lines()
    assert {one.label for one in found} == {"a red square", "something blue"}
    assert {one.measured for one in found} == {"probability"}
    by_prompt = ([one.value for one in found if one.label == text and one.map != "uniform"] for text in texts[1::2])
    # Their probabilities sum to 1 in every image, however it was changed in the same way: by the controls.
    for one, other in list(zip(*by_prompt, strict=True))[2:]:
        assert one + other == pytest.approx(1, abs=1e-4)
