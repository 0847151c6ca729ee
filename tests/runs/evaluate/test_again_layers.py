"""Maps of changed images at several layers: each is made at its own layer alone, and is the one that all would give."""

import json
from collections import Counter
from pathlib import Path

import pytest
from commands import do
from shared import BLUE, RED, Paint

from camcli.engine.maps.compute import compute_map
from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.records import LINES_FILE


def evaluate(tiny: str, out: str, *words: str) -> dict[tuple[str, ...], float | None]:
    common = ("--target", "red", "--device", "cpu", "--metrics", "adcc,max-sensitivity", "--setting", "samples=2")
    result = do("evaluate", "in", "--model", tiny, *common, "--out", out, *words)
    assert result.exit_code == 0, result.output
    lines = (Evaluation.read(json.loads(line)) for line in Path(out, LINES_FILE).read_text().splitlines())
    return {(one.metric, one.kind, one.map, one.layer): one.value for one in lines if one.kind != "control"}


def test_each_masked_image_is_explained_at_the_layer_of_its_map_alone(
    tiny: str, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Counter[tuple[str, str]]()

    def count(setup, method, signals, layer):
        made[method.row.name, layer] += len(map := compute_map(setup, method, signals, layer))
        return map

    monkeypatch.setattr("camcli.engine.maps.compute.compute_map", count)
    paint("in/a.png", RED, box=(3, 4, 17, 19), ground=BLUE)
    methods, layers = ("gradcam", "scorecam", "ablation-cam"), ("stem", "body")
    both = [word for layer in layers for word in ("--layer", layer)]
    found = evaluate(tiny, "both", "--method", ",".join(methods), *both)
    assert {*made} == {(method, layer) for method in methods for layer in layers}
    # The trial on noise, the image, two noisy ones, and the image under the map and under its blurred copy.
    assert max(made.values()) <= 1 + 1 + 2 + 2
    # In any batches, and with any number of maps at once, the numbers are those of one method and one layer alone.
    monkeypatch.setattr("camcli.runs.evaluate.measure.MAPS_AT_ONCE", 3)
    close = {key: None if value is None else pytest.approx(value, abs=1e-4) for key, value in found.items()}
    assert evaluate(tiny, "again", "--method", ",".join(methods), *both, "-b", "2") == close
    alone: dict = {}
    for method in methods:
        for layer in layers:
            alone |= evaluate(tiny, f"{method}-{layer}", "--method", method, "--layer", layer)
    assert alone == close
