"""Evaluations in shards: merged they have the table of one run of all images; resumed, counted, refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import do
from shared import BLUE, RED, Paint

from camcli.runs.evaluate.records import FACTS_FILE, LINES_FILE

WORDS = ("--target", "red", "--device", "cpu", "--method", "gradcam,random", "--setting", "steps=3")
METRICS = ("--metrics", "insertion-mean,road-most,energy-in-box")
TABLES = ("table", "curves", "ranks", "agreements", "conclusion", "warnings")


@pytest.fixture
def eight(paint: Paint) -> None:
    """Eight images below ``in``, each with a red box, and a file of boxes that knows the last."""
    for number in range(8):
        paint(f"in/{number}.png", RED, box=(2 * number, 3, 2 * number + 12, 17), ground=BLUE)
    Path("boxes.csv").write_text("image,x0,y0,x1,y1\n7.png,14,3,26,17\n")


def evaluate(tiny: str, out: str, *words: str, given: str = "in"):
    result = do("evaluate", given, "--model", tiny, *WORDS, *METRICS, "--boxes", "boxes.csv", "--out", out, *words)
    assert result.exit_code == 0, result.output
    return result


def facts(out: str) -> dict[str, Any]:
    return json.loads(Path(out, FACTS_FILE).read_text())


def names(path: str) -> set[str]:
    return {json.loads(line)["name"] for line in Path(path).read_text().splitlines()}


def test_merged_shards_have_the_table_of_one_run(tiny: str, eight: None) -> None:
    evaluate(tiny, "whole", "--to", "whole.csv")
    for number in (3, 1, 2):
        told = evaluate(tiny, "out", "--shard", f"{number}/3").stderr
        assert f"shard {number}/3 is done: camcli merge out makes the table of all shards" in told
        assert f"out/shards/{number}-of-3/{LINES_FILE}" in told
    assert "table" not in facts("out")
    shards = [names(f"out/shards/{number}-of-3/{LINES_FILE}") for number in (1, 2, 3)]
    assert sum(map(len, shards)) == len(set.union(*shards)) == 8
    assert "out: 8 images: 8 done, 0 failed, 0 missing" in do("status", "out").stdout
    merged = do("merge", "out", "--to", "merged.csv")
    assert merged.exit_code == 0, merged.output
    assert Path("merged.csv").read_bytes() == Path("whole.csv").read_bytes()
    then, now = facts("whole"), facts("out")
    assert [then[name] for name in TABLES] == [now[name] for name in TABLES]
    # All that the run of all images recorded, but what is true of one run alone.
    left_out = {"run", "began", "pictures", "failed", "skipped"}
    assert then.keys() - now.keys() == left_out
    assert all(then[name] == now[name] for name in ("fingerprint", "images", "model", "layers", "metrics", "methods"))
    assert do("status", "out").exit_code == 0
    # A run of all images finds all done.
    assert "8 done before" in evaluate(tiny, "out").stderr
    assert [facts("out")[name] for name in TABLES] == [then[name] for name in TABLES]


def test_gaps_are_told_and_filled(tiny: str, eight: None) -> None:
    evaluate(tiny, "whole")
    evaluate(tiny, "out", "--shard", "1/2")
    done = names(f"out/shards/1-of-2/{LINES_FILE}")
    merged = do("merge", "out")
    assert merged.exit_code == 1
    assert f"{len(done)} done, 0 failed, {8 - len(done)} missing" in merged.stdout
    assert facts("out")["conclusion"]["images"] == len(done)
    # The same shard again is done, another number of them does what is left, and a run of all images merges by itself.
    assert f"{len(done)} done before" in evaluate(tiny, "out", "--shard", "1/2").stderr
    evaluate(tiny, "out", "--shard", "2/3")
    evaluate(tiny, "out")
    assert names(f"out/{LINES_FILE}") == {f"in/{number}.png" for number in range(8)}
    assert [facts("out")[name] for name in TABLES] == [facts("whole")[name] for name in TABLES]


def test_stored_maps_are_evaluated_in_shards(tiny: str, eight: None) -> None:
    words = ("--target", "red", "--device", "cpu", "--method", "gradcam,random", "--save", "array", "--out", "run")
    for number in (1, 2):
        assert do("explain", "in", "--model", tiny, *words, "--shard", f"{number}/2").exit_code == 0
    assert do("merge", "run").exit_code == 0
    evaluate(tiny, "whole", given="run")
    for number in (1, 2):
        evaluate(tiny, "out", "--shard", f"{number}/2", given="run")
    assert do("merge", "out").exit_code == 0
    assert [facts("out")[name] for name in TABLES] == [facts("whole")[name] for name in TABLES]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "t.csv"], "and a shard has a part of them when all shards are done: camcli merge OUT --to t.csv"),
        (["--plots", "png"], "run the same without --shard"),
        (["--shard", "3/2"], "there is no shard 3 of 2"),
        (["--overwrite", "--drop-others"], "--drop-others would delete what other shards wrote"),
    ],
)
def test_what_needs_all_images_is_refused_of_an_evaluation(tiny: str, eight: None, words: list[str], said: str) -> None:
    result = do("evaluate", "in", "--model", tiny, "--shard", "1/2", *words)
    assert (result.exit_code, said in " ".join(result.output.split())) == (2, True), result.output


def test_a_table_of_a_merge_is_checked_first(tiny: str, eight: None) -> None:
    evaluate(tiny, "out", "--shard", "1/2")
    for words, said in ((("--to", "t.tar"), "end its name in .csv or .jsonl"), (("--max-size", "1GB"), "has no maps")):
        result = do("merge", "out", *words)
        assert (result.exit_code, said in " ".join(result.output.split())) == (2, True), result.output
    assert "table" not in facts("out")
