"""Metrics that look at the maps of changed images: what they are given by ``camcli evaluate``."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from commands import do
from shared import BLUE, RED, Paint

from camcli.engine.maps.compute import compute_map
from camcli.metrics.superpixels import divide
from camcli.runs.evaluate import Evaluation
from camcli.runs.evaluate.records import LINES_FILE

AGAIN = "max-sensitivity,adcc,robustness-shift,robustness-noise,robustness-jpeg"
SETTINGS = ("--setting", "samples=2", "--setting", "robustness-shift.pixels=4")


@pytest.fixture
def two(paint: Paint) -> None:
    for number in range(2):
        paint(f"in/{number}.png", RED, box=(3 + 9 * number, 4, 17 + 9 * number, 19), ground=BLUE)


def evaluate(tiny: str, out: str, *words: str) -> dict[tuple[str, str, str, str], float | None]:
    result = do("evaluate", "in", "--model", tiny, "--target", "red", "--device", "cpu", "--out", out, *words)
    assert result.exit_code == 0, result.output
    found = (Evaluation.read(json.loads(line)) for line in Path(out, LINES_FILE).read_text().splitlines())
    return {(one.name, one.metric, one.kind, one.map): one.value for one in found}


def test_laws_of_the_controls(tiny: str, two: None) -> None:
    found = evaluate(tiny, "out", "--metrics", AGAIN, *SETTINGS, "--method", "gradcam,layercam")
    assert len(found) == 2 * 5 * 9
    for name in ("in/0.png", "in/1.png"):
        # What does not look at the image does not change with it.
        for control in ("centre", "uniform"):
            assert found[name, "max-sensitivity", "control", control] == 0
        assert found[name, "robustness-noise", "control", "centre"] == 1
        for metric in ("robustness-shift", "robustness-noise", "robustness-jpeg", "adcc"):
            assert found[name, metric, "control", "uniform"] is None
        # Another draw knows nothing of the first.
        assert abs(found[name, "robustness-noise", "control", "random"]) < 0.2
        assert found[name, "max-sensitivity", "control", "random"] > 0.5
        # The edges move with the image, up to what comes in at its own edge.
        assert found[name, "robustness-shift", "control", "edges"] > 0.95
        assert 0 < found[name, "max-sensitivity", "method", "gradcam"] < 0.5
    one = evaluate(tiny, "one", "--metrics", AGAIN, *SETTINGS, "--method", "gradcam,layercam", "-b", "1")
    assert {key: None if value is None else pytest.approx(value, abs=1e-4) for key, value in one.items()} == found


def test_the_maps_of_the_unchanged_image_are_the_maps(tiny: str, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(maps, image, explain_again, *, samples: int = 2):
        if len(image) == 1:  # the trial
            return np.ones(len(maps))
        shared, own, half = explain_again(iter([image[None], np.stack([image] * len(maps)), image[None] / 2]))
        # All but the random ones, which are drawn anew.
        assert (np.abs(shared - maps).max((1, 2)) > 1e-5).sum() == 2
        assert (np.abs(own - maps).max((1, 2)) > 1e-5).sum() == 2
        changed = np.abs(half - maps).max((1, 2)) > 1e-5
        assert changed.sum() == 2 + 2 + 1  # of the method, of noise, and edges
        return np.ones(len(maps))

    monkeypatch.setattr("camcli.metrics.stability.max_sensitivity", compare)
    found = evaluate(tiny, "out", "--metrics", "max-sensitivity", "--method", "gradcam")
    assert {*found.values()} == {1}


def test_each_map_gets_an_image_of_its_own(tiny: str, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(maps, image, explain_again, *, samples: int = 2):
        if len(image) == 1:
            return np.ones(len(maps))
        changed = np.stack([image * (1 + number) for number in range(len(maps))])
        together = next(explain_again(iter([changed])))
        alone = [next(explain_again(iter([one[None]])))[number] for number, one in enumerate(changed)]
        np.testing.assert_allclose(together, np.stack(alone), atol=1e-4)
        return np.ones(len(maps))

    monkeypatch.setattr("camcli.metrics.stability.max_sensitivity", compare)
    evaluate(tiny, "out", "--metrics", "max-sensitivity", "--method", "gradcam,layercam")


def test_each_masked_image_is_explained_by_the_method_of_its_map_alone(
    tiny: str, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int]] = []

    def count(setup, method, signals, layer):
        made.append((method.row.name, len(map := compute_map(setup, method, signals, layer))))
        return map

    def evaluate_counting(out: str, *words: str) -> tuple[dict, Counter[str]]:
        made.clear()
        found = evaluate(tiny, out, "--metrics", "adcc", "--method", "gradcam,layercam,hirescam", *words)
        counted = Counter[str]()
        for name, images in made:
            counted[name] += images
        return found, counted

    monkeypatch.setattr("camcli.engine.maps.compute.compute_map", count)
    found, counted = evaluate_counting("out")
    # The trial on noise, two images, and in each the image under the map and that under its blurred copy.
    assert len({*counted.values()}) == 1
    assert counted["gradcam"] <= 1 + 2 + 2 * 2
    # In any batches, and with any number of maps at once, the numbers are the same.
    monkeypatch.setattr("camcli.runs.evaluate.measure.MAPS_AT_ONCE", 3)
    again, _ = evaluate_counting("again", "-b", "2")
    assert {key: None if value is None else pytest.approx(value, abs=1e-4) for key, value in again.items()} == found


def test_an_image_is_divided_into_regions_once(tiny: str, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    divided: list[np.ndarray] = []

    def count(colours: np.ndarray, segments: int, compactness: float) -> np.ndarray:
        divided.append(colours)
        return divide(colours, segments, compactness)

    monkeypatch.setattr("camcli.runs.evaluate.measure.divide", count)
    monkeypatch.setattr("camcli.runs.evaluate.measure.MAPS_AT_ONCE", 3)
    evaluate(tiny, "out", "--metrics", "irof", "--method", "gradcam,layercam", "--target", "blue")
    assert len(divided) == 2
