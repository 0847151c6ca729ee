"""Golden runs: small, the same bytes each time, and read as a run is."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from commands import do
from recorded import line, record, spot

from camcli.base.errors import RequestError
from camcli.runs.record.golden import LEVELS, GoldenRun, open_run, quantize, restore

WAVE = np.sin(np.arange(64, dtype=np.float32)).reshape(8, 8)


@pytest.mark.parametrize("map", [WAVE, spot(1, 1), np.full((2, 3), -0.25, np.float32), WAVE * 1e-30])
def test_rounding_is_half_a_step_at_most(map: np.ndarray) -> None:
    low, high, levels = quantize(map)
    kept = restore(low, high, levels)
    step = float(np.ptp(map)) / LEVELS
    assert (kept.dtype, kept.shape) == (np.float32, map.shape)
    assert np.abs(kept.astype(float) - map).max() <= step * 0.5001
    assert (kept.min(), kept.max()) == (map.min(), map.max())


def test_it_is_read_as_the_run_that_it_was_made_of(here: Path) -> None:
    colours = np.stack([WAVE, -2 * WAVE, 0 * WAVE])
    record("run", [line("b", WAVE), line("b", -WAVE, "blue")], [line("a", colours)], [line("c")])
    assert do("golden", "run", "kept").exit_code == 0
    assert isinstance(open_run(Path("kept")), GoldenRun)
    with open_run(Path("run")) as run, open_run(Path("kept")) as kept:
        pairs = [*zip(run.iter_images(), kept.iter_images(), strict=True)]
        assert [[one.outcome.label for one in image] for image, _ in pairs] == [["red"], ["red", "blue"], [None]]
        for image, other in pairs:
            for one, again in zip(image, other, strict=True):
                assert (one.has_map, one.outcome.peak) == (again.has_map, again.outcome.peak)
                if one.has_map:
                    np.testing.assert_allclose(again.load(), one.load(), atol=2 / LEVELS)
                    assert again.view == one.view


def test_it_is_a_base_of_a_comparison_and_says_what_was_lost(here: Path) -> None:
    record("run", [line("a", WAVE)])
    said = do("golden", "run", "kept").output
    assert "rounding: at most 0.2" in said
    loss = json.loads(Path("kept/golden.json").read_text())["loss"]
    assert 0 < loss["greatest_error"] <= 0.5 / LEVELS * 1.0001
    assert 0.9999 < loss["least_pearson"] < 1
    assert do("diff", "kept", "run", "--min-similarity", "0.9999", "--max-moved", "0").exit_code == 0


def test_the_same_run_gives_the_same_bytes(here: Path) -> None:
    record("run", [line("a", WAVE)])
    for name in ("one", "other"):
        do("golden", "run", name)
    for file in ("golden.json", "maps.jsonl.gz"):
        assert Path("one", file).read_bytes() == Path("other", file).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bare", "kept"], "--save array"),
        (["run", "run"], "is the output folder of a run"),
        (["run", "photos"], "'photos' has other files, such as 'a.jpg'"),
        (["failed", "kept"], "has no map to keep"),
        (["run", "memory://b/kept"], "is written to a local folder"),
    ],
)
def test_what_cannot_be_kept_is_refused(here: Path, words: list[str], said: str) -> None:
    Path("photos").mkdir()
    Path("photos/a.jpg").touch()
    record("run", [line("a", WAVE)])
    record("bare", [(line("a", WAVE, files={"overlay": "a.jpg"})[0], None)])
    record("failed", [line("a")])
    result = do("golden", *words)
    assert (result.exit_code, said in " ".join(result.output.split())) == (3 if "no map" in said else 2, True)
    assert not Path("kept/maps.jsonl.gz").exists()


def test_a_run_that_is_not_complete_is_kept_with_a_note(here: Path) -> None:
    record("run", [line("a", WAVE)], [line("b", WAVE)])
    assert "not complete" not in do("golden", "run", "kept").output
    facts = Path("run/run.json")
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "images": 5}))
    assert "run is not complete: 3 of its images are not recorded" in " ".join(
        do("golden", "run", "kept").output.split()
    )


def test_a_golden_run_that_unpacks_to_a_huge_line_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("run", [line("a", WAVE)])
    do("golden", "run", "kept")
    maps = Path("kept/maps.jsonl.gz")
    monkeypatch.setattr("camcli.runs.record.golden.MAX_LINE", len(gzip.decompress(maps.read_bytes())))
    with open_run(Path("kept")) as kept:
        assert len([*kept.iter_images()]) == 1
    maps.write_bytes(gzip.compress(b" " * 1_000_000))
    with pytest.raises(RequestError, match="a line has more than"), open_run(Path("kept")) as kept:
        assert [*kept.iter_images()] == "unreachable"


def test_a_damaged_file_is_refused(here: Path) -> None:
    record("run", [line("a", WAVE)])
    do("golden", "run", "kept")
    maps = Path("kept/maps.jsonl.gz")
    text = json.loads(gzip.decompress(maps.read_bytes()))
    for content in (maps.read_bytes()[:-9], b"", b"no gzip", gzip.compress(b"{}\n"), gzip.compress(b"[1]\n")):
        maps.write_bytes(content)
        with pytest.raises(RequestError, match=r"maps\.jsonl\.gz' cannot be read"), open_run(Path("kept")) as kept:
            assert [*kept.iter_images()] == "unreachable"
    maps.write_bytes(gzip.compress(json.dumps({**text, "map": {**text["map"], "shape": [9, 9]}}).encode() + b"\n"))
    with pytest.raises(RequestError, match="the map of 'a'"), open_run(Path("kept")) as kept:
        [[one]] = kept.iter_images()
        one.load()
