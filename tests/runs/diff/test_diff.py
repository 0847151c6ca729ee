"""Two finished runs compared: which maps are paired, what is measured of them by hand, and what limits say."""

import csv
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import fsspec
import numpy as np
import pytest
from commands import do
from recorded import FACTS, line, record, spot
from shared import BLUE, RED, Paint

from camcli.runs.check import make_rule
from camcli.runs.diff import MapChange
from camcli.runs.diff.run import RunDiff

WAVE = np.sin(np.arange(64, dtype=np.float32)).reshape(8, 8)


def changes(base: Path, new: Path) -> dict[str, MapChange]:
    """What became of each map, by its title."""
    with RunDiff(base, new, (), 10) as compared:
        rows = [row for some in compared for row in some]
    found = [MapChange(**row) for row in rows]
    assert [one.name for one in found] == sorted(one.name for one in found)
    return {one.title: one for one in found}


def test_numbers_are_those_worked_out_by_hand(here: Path) -> None:
    """Two maps of one cell each: r is -1/63; the peak moves four cells of four pixels to the right."""
    one = record("one", [line("a.png", spot(1, 1), score=2.0, probability=0.25)])
    other = record("other", [line("a.png", spot(1, 5), score=1.5, probability=0.75)])
    [change] = changes(one, other).values()
    assert change.pearson == pytest.approx(-1 / 63)
    assert (change.moved_pixels, change.moved) == (16, pytest.approx(16 / math.hypot(32, 32)))
    assert (change.score_change, change.probability_change, change.changed) == (-0.5, 0.5, False)
    assert (change.there, change.equal, change.grid, change.reasons) == ("both", False, "cells", ())
    # A fifth of 64 cells is 12.8: each set has its own cell whole, and 11.8 / 63 of all others, which tie.
    share = 11.8 / 63
    assert change.overlap == pytest.approx((62 * share + 2 * share) / (62 * share + 2))


def test_equal_maps_do_not_change(here: Path) -> None:
    one, other = (record(name, [line("a.png", WAVE)]) for name in ("one", "other"))
    [change] = changes(one, other).values()
    assert (change.pearson, change.ssim, change.overlap, change.moved, change.equal) == (1, 1, 1, 0, True)


def test_a_scaled_map_is_alike_and_a_negated_one_opposite(here: Path) -> None:
    one = record("one", [line("a.png", WAVE)], [line("b.png", WAVE)])
    other = record("other", [line("a.png", 3 * WAVE + 1)], [line("b.png", -WAVE)])
    found = changes(one, other)
    assert [change.pearson for change in found.values()] == [pytest.approx(1), pytest.approx(-1)]


def test_maps_are_paired_by_name_class_and_method_in_any_order(here: Path) -> None:
    maps = {name: WAVE * scale for scale, name in enumerate(("a", "b", "c"), start=1)}
    one = record("one", [line("b", WAVE), line("b", -WAVE, "blue")], [line("a", WAVE)])
    other = record("other", [line("a", maps["a"])], [line("b", -WAVE, "blue"), line("b", WAVE)])
    assert {title: change.equal for title, change in changes(one, other).items()} == {
        "a (red)": True,
        "b (red)": True,
        "b (blue)": True,
    }


def test_layers_and_methods_of_other_names_are_paired_in_order(here: Path) -> None:
    facts = {**FACTS, "layers": ["body"], "methods": [{"name": "hirescam", "options": {}}]}
    one = record("one", [line("a", WAVE)])
    other = record("other", [line("a", WAVE, layer="body", method="hirescam")], facts=facts)
    [change] = changes(one, other).values()
    assert (change.equal, change.layer, change.method) == (True, "body", "hirescam")


def test_another_predicted_class_is_paired_and_told(here: Path) -> None:
    one = record("one", [line("a", WAVE)])
    other = record("other", [line("a", WAVE, "blue")])
    [(title, change)] = changes(one, other).items()
    assert (title, change.changed, change.equal, change.score_change) == ("a (red -> blue)", True, True, None)


def test_margins_over_other_classes_are_compared_but_for_their_scores(here: Path) -> None:
    """By default a margin is over each image's runner-up, which may change."""
    one = record("one", [line("a", WAVE, versus="blue")], [line("b", WAVE, versus="blue")])
    other = record("other", [line("a", WAVE, versus="green")], [line("b", WAVE, versus="blue", score=1.5)])
    found = changes(one, other)
    assert [(title, change.there, change.score_change) for title, change in found.items()] == [
        ("a (red)", "both", None),
        ("b (red)", "both", 0.5),
    ]
    assert (found["a (red)"].equal, found["a (red)"].probability_change) == (True, 0)
    assert found["a (red)"].reasons == (
        "the scores are not of the same margin: over blue in the base, over green in the new run",
    )


def test_a_rule_on_a_class_takes_name_and_number_from_the_base(here: Path) -> None:
    one, other = record("one", [line("a", WAVE)]), record("other", [line("a", WAVE, "blue")])
    for name, counted in (("red", 1), ("0", 1), ("blue", 0), ("2", 0)):
        rules = [make_rule("diff", "pearson", least=0.9, classes=(name,))]
        with RunDiff(one, other, rules, 1) as compared:
            assert [*compared]
        assert compared.tallies[0].counted == counted


def test_what_one_run_lacks_or_failed_is_told(here: Path) -> None:
    one = record("one", [line("a", WAVE)], [line("b", WAVE)], [line("c")], [line("d")])
    other = record("other", [line("a")], [line("c", WAVE)], [line("d")], [line("e", WAVE)])
    found = changes(one, other)
    assert {title: change.there for title, change in found.items()} == {
        "a (red)": "base",
        "b (red)": "base",
        "c (red)": "new",
        "d": "none",
        "e (red)": "new",
    }
    assert found["a (red)"].reasons == ("it failed in the new run: is damaged",)
    assert found["b (red)"].reasons == ("the new run does not have it",)


def test_a_map_that_was_lost_since_is_missing(here: Path) -> None:
    one, other = (record(name, [line("a", WAVE)], [line("b", WAVE)]) for name in ("one", "other"))
    (other / "b.red.npy").write_bytes(b"cut short")
    found = changes(one, other)
    assert {title: change.there for title, change in found.items()} == {"a (red)": "both", "b (red)": "base"}
    assert len(found["b (red)"].reasons) == 1


def test_a_constant_map_has_no_similarity_but_a_reason(here: Path) -> None:
    flat = np.full((8, 8), 0.5, np.float32)
    one, other = record("one", [line("a", WAVE)]), record("other", [line("a", flat)])
    [change] = changes(one, other).values()
    assert (change.pearson, change.reasons) == (None, ("the map of the new run is constant",))


def test_maps_of_other_sizes_are_compared_over_the_image(here: Path) -> None:
    """A gradient from left to right is the same at 8 and at 16 cells, up to the outermost half cells."""
    coarse, fine = (np.tile(np.arange(n, dtype=np.float32) / n, (n, 1)) for n in (8, 16))
    one, other = record("one", [line("a", coarse)]), record("other", [line("a", fine)])
    [change] = changes(one, other).values()
    assert change.grid == "image"
    assert 0.99 < change.pearson < 1


def test_the_last_result_counts_and_a_later_failure_does_not_replace_it(here: Path) -> None:
    one = record("one", [line("a", WAVE)])
    later = [line("a", -WAVE, run="r0", files={"array": "old.npy"})], [line("a", WAVE)], [line("a", run="r2")]
    other = record("other", *later)
    assert [change.equal for change in changes(one, other).values()] == [True]


def test_shards_are_read_before_they_are_merged(here: Path) -> None:
    one = record("one", [line("a", WAVE)], [line("b", WAVE)])
    record("other", [line("a", WAVE)], shard="1-of-2")
    other = record("other", [line("b", WAVE)], shard="2-of-2")
    assert [change.equal for change in changes(one, other).values()] == [True, True]


def test_a_run_in_a_store_is_read_where_it_is(here: Path) -> None:
    record("one", [line("a", WAVE)])
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.put("one", "/bucket/run", recursive=True)
    result = do("diff", "memory://bucket/run", "one", "--min-similarity", "1")
    store.store.clear()
    assert (result.exit_code, "1 map in both, 1 of them equal" in result.output) == (0, True), result.output


def test_limits_name_what_broke_them_in_every_output(here: Path) -> None:
    record("one", [line("a<&\x01", WAVE)], [line("b", WAVE)], [line("c", WAVE)])
    record("other", [line("a<&\x01", -WAVE)], [line("b", WAVE)])
    files = ("--to", "d.jsonl", "--junit", "d.xml", "--sheet", "d.png")
    result = do("diff", "one", "other", "--min-similarity", "0.9", "--max-changed", "5%", *files)
    assert result.exit_code == 1, result.output
    assert "broken: pearson >= 0.9: holds for 1 of 2 (50.0%), asked for 100%" in result.output
    assert "a<&\\x01 (red): -1" in result.output
    assert "broken: no map is missing: holds for 2 of 3" in result.output
    root = ElementTree.parse("d.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("3", "2")
    assert [case.find("failure") is not None for case in root.iter("testcase")] == [True, False, True]
    assert "a<&\\x01 (red): -1" in next(root.iter("failure")).text
    rows = [json.loads(one) for one in Path("d.jsonl").read_text().splitlines()]
    assert [row["there"] for row in rows] == ["both", "both", "base"]
    assert Path("d.png").read_bytes().startswith(b"\x89PNG")


def test_limits_that_hold_end_well(here: Path) -> None:
    record("one", [line("a", WAVE)])
    record("other", [line("a", WAVE * 2)])
    result = do("diff", "one", "other", "--min-similarity", "0.999", "--max-moved", "0", "--to", "d.csv")
    assert result.exit_code == 0, result.output
    [row] = csv.DictReader(Path("d.csv").read_text().splitlines())
    assert (row["name"], row["equal"], row["changed"]) == ("a", "false", "false")


def test_equal_constant_maps_keep_a_limit(here: Path) -> None:
    for name in ("one", "other"):
        record(name, [line("a", np.ones((8, 8), np.float32))])
    assert do("diff", "one", "other", "--min-similarity", "0.9").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["one", "nowhere"], 3, "is not the output folder of camcli explain"),
        (["one", "bare"], 2, "run the same command again with --save array"),
        (["one", "old"], 2, "does not have the image's size"),
        (["one", "apart"], 2, "no image in common"),
        (["one", "one", "--to", "d.txt"], 2, "end its name in .csv or .jsonl or .parquet"),
        (["one", "one", "--to", "s3://b/d.csv"], 2, "is written to local files, not to 's3://b/d.csv'"),
        (["one", "one", "--junit", "s3://b/d.xml"], 2, "--junit writes local files, not to 's3://b/d.xml'"),
        (["one", "one", "--junit", "d.txt"], 2, "end its name in .xml"),
        (["one", "one", "--junit", "no/d.xml"], 2, "there is no folder 'no'"),
        (["one", "one", "--max-changed", "5"], 2, "give a share as 0.95 or '95%'"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(here: Path, words: list[str], code: int, said: str) -> None:
    record("one", [line("a", WAVE)])
    record("bare", [(line("a", WAVE, files={"overlay": "a.jpg"})[0], None)])
    record("old", [line("a", WAVE, image_size=None, peak=(1.0, 1.0))])
    record("apart", [line("b", WAVE)])
    result = do("diff", *words)
    assert (result.exit_code, said in " ".join(result.output.split())) == (code, True), result.output


def test_random_weights_are_told_and_stamped(here: Path) -> None:
    for name in ("one", "other"):
        record(name, [line("a", WAVE, untrained=name == "other")])
    output = do("diff", "one", "other", "--sheet", "s.png").output
    assert "the weights of other are random: its maps mean nothing" in output
    assert "the weights of one" not in output
    Path("r.toml").write_text("[[check]]\nmeasure = 'score'\nmin = 0\n")
    assert "its maps mean nothing" in do("check", "other", "--rules", "r.toml").output


def test_a_sheet_of_nothing_is_drawn_too(here: Path) -> None:
    for name in ("one", "other"):
        record(name, [line("a", WAVE)])
    assert do("diff", "one", "other", "--worst", "0", "--sheet", "s.png").exit_code == 0


def test_a_sheet_finds_images_from_another_folder(tiny: str, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    paint("in/a.png", RED, box=(8, 8, 24, 24))
    assert do("explain", "--model", tiny, "--save", "array", "--out", "out", "in", "-q").exit_code == 0
    out, sheets = str(Path("out").absolute()), [Path(name).absolute() for name in ("one.png", "other.png")]
    assert do("diff", out, out, "--sheet", str(sheets[0])).exit_code == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert do("diff", out, out, "--sheet", str(sheets[1])).exit_code == 0
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


def test_what_differs_between_the_jobs_stands_above_the_table(here: Path) -> None:
    model = {**FACTS["model"], "sha256": "b" * 64}
    record("one", [line("a", WAVE)])
    record("other", [line("a", WAVE)], facts={**FACTS, "precision": "bf16", "model": model})
    output = do("diff", "one", "other").output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "precision fp32 bf16" in lines
    assert "weights a file sha256:aaaaaaaaaaaa a file sha256:bbbbbbbbbbbb" in lines
    assert output.index("precision") < output.index("Pearson")


def test_runs_of_camcli_itself_are_compared(tiny: str, paint: Paint) -> None:
    """A red box that moves to the right in an image of the same name, which is predicted as red in both."""
    for out, box in (("one", (4, 4, 8, 8)), ("other", (20, 4, 24, 8))):
        paint("in/a.png", RED, box=box)
        paint("in/b.png", BLUE, box=(0, 0, 16, 16))
        ran = do("explain", "--model", tiny, "--layer", "body", "--save", "array", "--out", out, "in", "-q")
        assert ran.exit_code == 0, ran.output
    result = do("diff", "one", "other", "--max-moved", "0.1", "--json", "--sheet", "s.png")
    rows = [json.loads(one) for one in result.stdout.splitlines()]
    assert [(row["moved_pixels"], row["equal"]) for row in rows] == [(16, False), (0, True)]
    assert rows[0]["pearson"] == pytest.approx(-1 / 63)
    assert result.exit_code == 1
