"""Maps of a finished run, evaluated as they are stored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import do
from shared import BLUE, RED, Paint

from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.records import FACTS_FILE, LINES_FILE

METRICS = (
    "--metrics",
    "deletion-mean,energy-in-box,robustness-noise",
    "--setting",
    "samples=2",
    "--boxes",
    "boxes.csv",
)


@pytest.fixture
def run(tiny: str, paint: Paint) -> str:
    """The model of a finished run in ``run``, of three images, by two methods."""
    rows = ["image,x0,y0,x1,y1"]
    for number, (x, y) in enumerate([(2, 3), (12, 5), (4, 17)]):
        paint(f"in/{number}.png", RED, box=(x, y, x + 12, y + 12), ground=BLUE)
        rows.append(f"{number}.png,{x},{y},{x + 12},{y + 12}")
    Path("boxes.csv").write_text("\n".join(rows))
    words = ("--target", "red", "--method", "gradcam,layercam", "--device", "cpu", "--save", "array")
    result = do("explain", "in", "--model", tiny, *words, "--out", "run")
    assert result.exit_code == 0, result.output
    return tiny


def evaluate(tiny: str, *words: str):
    return do("evaluate", "run", "--model", tiny, "--device", "cpu", *words)


def read(out: str) -> list[Evaluation]:
    return [Evaluation.read(json.loads(line)) for line in Path(out, LINES_FILE).read_text().splitlines()]


def test_stored_maps_have_the_numbers_of_maps_made_anew(run: str) -> None:
    result = evaluate(run, *METRICS, "--out", "stored")
    assert result.exit_code == 0, result.output
    assert "maps: those of the run in run, as they are stored" in result.stderr
    words = ("--target", "red", "--method", "gradcam,layercam", "--device", "cpu")
    assert do("evaluate", "in", "--model", run, *words, *METRICS, "--out", "anew").exit_code == 0
    stored, anew = ({(one.name, one.metric, one.kind, one.map): one for one in read(out)} for out in ("stored", "anew"))
    assert stored.keys() == anew.keys()
    for key, one in stored.items():
        other = anew[key]
        assert one.value == (None if other.value is None else pytest.approx(other.value, rel=1e-4, abs=1e-5))
        assert (one.source, one.label, one.layer, one.setting) == (
            other.source,
            other.label,
            other.layer,
            other.setting,
        )
    facts = json.loads(Path("stored", FACTS_FILE).read_text())
    assert facts["maps"]["folder"] == "run"
    assert facts["maps"]["fingerprint"] == json.loads(Path("run/run.json").read_text())["fingerprint"]
    again = evaluate(run, *METRICS, "--out", "stored")
    assert "0 done, 3 done before" in again.stderr
    # Those of maps made anew are of another job.
    assert evaluate(run, *METRICS, "--out", "anew").exit_code == 2


def test_it_is_the_stored_maps_that_are_measured(run: str) -> None:
    [file] = Path("run/in").glob("1.png*layercam*.npy")
    size = file.stat().st_size
    with file.open("wb") as written:
        map = np.zeros(np.load(Path("run/in") / file.name.replace("1.png", "0.png")).shape, np.float32)
        map[0, 0] = 1
        np.save(written, map)
    assert file.stat().st_size == size
    assert evaluate(run, "--metrics", "sparseness", "--out", "out", "--limit", "2").exit_code == 0
    found = {(one.name, one.map): one.value for one in read("out") if one.kind == "method"}
    assert len(found) == 4
    assert found["in/1.png", "layercam"] == max(found.values()) > 0.9


def test_an_image_that_is_gone_or_whose_map_is_missing_fails_alone(run: str) -> None:
    Path("in/0.png").unlink()
    next(Path("run/in").glob("1.png*layercam*.npy")).unlink()
    result = evaluate(run, "--metrics", "sparseness", "--out", "out")
    assert result.exit_code == 1
    assert "failed: in/0.png: the image is gone" in result.stderr
    assert "failed: in/1.png: the array " in result.stderr
    found = {(one.name, one.map) for one in read("out") if one.kind == "method" and not one.error}
    assert found == {("in/1.png", "gradcam"), ("in/2.png", "gradcam"), ("in/2.png", "layercam")}


def test_a_run_that_is_not_complete_is_noted(run: str) -> None:
    lines = Path("run/outcomes.jsonl").read_text().splitlines(keepends=True)
    Path("run/outcomes.jsonl").write_text("".join(lines[:4]))
    result = evaluate(run, "--metrics", "sparseness", "--out", "out")
    assert result.exit_code == 0
    assert "run is not complete: 2 of its 3 images are recorded" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "0"), "'run' has no --layer, and '0' is asked for leave it out, since the maps are there"),
        (("--method", "gradcam"), "'run' has --method 'gradcam,layercam', and 'gradcam' is asked for"),
        (("--target", "green"), "'run' has --target 'red', and 'green' is asked for"),
    ],
)
def test_options_that_change_maps_are_those_of_the_run(run: str, words: tuple[str, ...], message: str) -> None:
    result = evaluate(run, *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_runs_that_cannot_be_evaluated(run: str) -> None:
    code = do("evaluate", "run")
    assert (code.exit_code, "names Python code, which a record alone does not run" in code.stderr) == (2, True)
    facts = json.loads(Path("run/run.json").read_text())
    shutil.copytree("run", "other")
    other = {**facts, "model": {**facts["model"], "sha256": "0" * 64}}
    Path("other/run.json").write_text(json.dumps(other))
    result = do("evaluate", "other", "--model", run)
    assert result.exit_code == 2
    assert "are not those of the run in 'other'" in " ".join(result.stderr.split())
    Path("other/run.json").write_text(json.dumps({**facts, "job": {**facts["job"], "counterfactual": True}}))
    result = do("evaluate", "other", "--model", run)
    assert (result.exit_code, "has --counterfactual" in result.stderr) == (2, True)
    result = do("evaluate", "run", "in", "--model", run)
    assert (result.exit_code, "'run' is the folder of a run, and other inputs" in result.stderr) == (2, True)
    assert do("explain", "in", "--model", run, "--out", "plain").exit_code == 0
    result = do("evaluate", "plain", "--model", run)
    assert (result.exit_code, "'plain' has no arrays of its maps" in result.stderr) == (2, True)
    assert "--save array" in result.stderr
