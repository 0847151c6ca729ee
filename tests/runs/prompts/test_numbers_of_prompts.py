"""``camcli prompts``: its numbers held against its own maps, and images that have none."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from prompt_runs import SAY, TEXTS, Ask, arrays, facts, lines, written
from shared import BLUE, RED, Paint
from typer.testing import CliRunner

from camcli.cli import app
from camcli.metrics import similarity
from camcli.runs.prompts.run import LINES_FILE


def upsampled(map: np.ndarray) -> np.ndarray:
    return torch.nn.functional.interpolate(torch.from_numpy(map)[None, None], (32, 32), mode="bilinear").numpy()[0, 0]


def not_a_number(text: str) -> None:
    raise AssertionError(f"{text} in JSON")


# ---- numbers


@pytest.mark.usefixtures("three")
def test_a_margin_over_one_of_the_prompts_is_refused_before_the_first_picture(ask: Ask) -> None:
    result = ask(*SAY, "in", "--score", "margin", "--versus", TEXTS[1])
    assert result.exit_code == 2
    assert "a prompt's score is its margin over 'something blue', which is one of the prompts" in result.stderr
    assert not Path("out").exists()
    # Over another it is none's own, and over the strongest of the others neither.
    assert ask(*SAY, "in", "--score", "margin", "--versus", "sky").exit_code == 0
    assert all(not prompt.get("error") for row in lines() for prompt in row["prompts"])
    assert ask(*SAY, "in", "--score", "margin", "--out", "other").exit_code == 0


def test_every_number_follows_from_the_maps(three: None, ask: Ask) -> None:
    result = ask(*SAY, "in", "--save", "sheet,array")
    assert result.exit_code == 0, result.output
    rows = lines()
    assert [row["source"] for row in rows] == ["in/a.png", "in/b.png", "in/c.png"]
    shown = np.eye(3, dtype=bool)
    for row in rows:
        found = arrays(Path("out", row["files"]["array"]))
        maps = found["maps"]
        assert maps.shape == (3, 4, 4)
        assert found["prompts"].tolist() == [said["prompt"] for said in row["prompts"]] == list(TEXTS)
        flat = maps.reshape(3, -1).astype(np.float64)
        np.testing.assert_allclose(row["similarity"]["pearson"], np.corrcoef(flat), atol=1e-6)
        # Of 16 cells 3.2: without ties three whole ones and a fifth of the next.
        order = np.argsort(-flat, axis=1)
        parts = np.zeros_like(flat)
        for part, cells in zip(parts, order, strict=True):
            part[cells[:3]], part[cells[3]] = 1, 0.2
        for one in range(3):
            for other in range(3):
                both = np.minimum(parts[one], parts[other]).sum() / np.maximum(parts[one], parts[other]).sum()
                assert row["similarity"]["overlap"][one][other] == pytest.approx(both, abs=1e-6)
        large = np.stack([upsampled(map) for map in maps])
        np.testing.assert_allclose(row["similarity"]["ssim"], similarity.ssim(large), atol=1e-5)
        # What is drawn: above zero, the strongest 1.
        small = np.maximum(maps, 0)
        heatmaps = np.stack([upsampled(one / (one.max() or 1)) for one in small])
        np.testing.assert_allclose(found["mean"], heatmaps.mean(0), atol=1e-5)
        np.testing.assert_allclose(found["deviation"], heatmaps.std(0), atol=1e-5)
        assert row["deviation"]["mean"] == pytest.approx(heatmaps.std(0).mean(), abs=1e-5)
        assert row["deviation"]["greatest"] == pytest.approx(heatmaps.std(0).max(), abs=1e-5)
        for name, values in row["similarity"].items():
            values = np.array(values)
            assert row["agreement"][name] == pytest.approx(values[~shown].mean(), abs=1e-6)
            for number, said in enumerate(row["prompts"]):
                rest = [values[number, other] for other in range(3) if other != number]
                assert said["agreement"][name] == pytest.approx(np.mean(rest), abs=1e-6)
    # And what all images say is the mean of what each says.
    summary = facts()["summary"]
    for name in ("pearson", "ssim", "overlap"):
        wanted = np.mean([row["similarity"][name] for row in rows], axis=0)
        np.testing.assert_allclose(summary["similarity"][name], wanted, atol=2e-6)
        assert summary["agreement"][name] == pytest.approx(wanted[~shown].mean(), abs=2e-6)
    order = sorted(rows, key=lambda row: row["agreement"]["pearson"])
    assert [one["source"] for one in summary["unstable"]] == [row["source"] for row in order]
    assert sum(one["best"] for one in summary["prompts"]) == 3


def test_maps_and_scores_are_those_of_explain(three: None, ask: Ask, clip: str) -> None:
    assert ask(*SAY, "in/b.png", "--save", "array").exit_code == 0
    words = [
        "explain",
        "-m",
        clip,
        *SAY,
        "-t",
        "top:3",
        "in/b.png",
        "--out",
        "other",
        "--save",
        "array",
        "--device",
        "cpu",
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    own = {said["prompt"]: said for said in lines()[0]["prompts"]}
    found = arrays("out/in/b.png.prompts.npz")
    maps = dict(zip(found["prompts"].tolist(), found["maps"], strict=True))
    for line in Path("other/outcomes.jsonl").read_text().splitlines():
        row = json.loads(line)
        said = own[row["label"]]
        np.testing.assert_allclose(
            maps[row["label"]], np.load(Path("other", row["files"]["array"])), rtol=1e-4, atol=1e-7
        )
        for name in ("score", "probability", "strongest"):
            assert said[name] == pytest.approx(row[name], rel=1e-4), name
        assert said["peak"] == row["peak"]


def test_padding_is_no_part_of_the_maps(paint: Paint, ask: Ask) -> None:
    # Twice as wide as high: the first and the last row of cells show no image.
    paint("wide.png", RED, size=(64, 32), box=(8, 8, 40, 20), ground=BLUE)
    assert ask(*SAY, "wide.png", "--crop", "none", "--save", "array").exit_code == 0
    row, maps = lines()[0], arrays("out/wide.png.prompts.npz")["maps"]
    flat = maps[:, 1:3].reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(row["similarity"]["pearson"], np.corrcoef(flat), atol=1e-6)
    assert 0 <= row["disagreement"][1] <= 32


def test_paraphrases_make_prompts_of_each_text(three: None, ask: Ask) -> None:
    result = ask("--text", "dog", "--text", "cat", "--paraphrase", "{}", "--paraphrase", "a photo of a {}.", "in")
    assert result.exit_code == 0, result.output
    row = lines()[0]
    found = [(said["text"], said["prompt"]) for said in row["prompts"]]
    assert found == [(0, "dog"), (0, "a photo of a dog."), (1, "cat"), (1, "a photo of a cat.")]
    values = np.array(row["similarity"]["pearson"])
    assert row["agreement"]["pearson"] == pytest.approx((values[0, 1] + values[2, 3]) / 2, abs=1e-6)
    assert row["apart"]["pearson"] == pytest.approx(values[:2, 2:].mean(), abs=1e-6)
    assert facts()["paraphrases"] == ["{}", "a photo of a {}."]
    assert facts()["texts"] == ["dog", "cat"]


def test_open_clips_own_templates_by_name(three: None, ask: Ask) -> None:
    result = ask("--text", "dog", "--paraphrase", "imagenet-simple", "--paraphrase", "{}", "in/a.png")
    assert result.exit_code == 0, result.output
    wanted = [*(fill("dog") for fill in open_clip.SIMPLE_IMAGENET_TEMPLATES), "dog"]
    assert [said["prompt"] for said in lines()[0]["prompts"]] == wanted
    assert lines()[0]["apart"] == {}


def test_prompts_come_from_a_file_too_and_may_have_others_to_compete_with(three: None, here: Path, ask: Ask) -> None:
    (here / "more.txt").write_text("a cat\n\na bird\n")
    result = ask("--text", "a dog", "--texts", "more.txt", "--versus", "grass", "in/a.png")
    assert result.exit_code == 0, result.output
    said = lines()[0]["prompts"]
    assert [one["prompt"] for one in said] == ["a dog", "a cat", "a bird"]
    assert sum(one["probability"] for one in said) < 1
    # What is explained is then the probability.
    assert [one["score"] for one in said] == pytest.approx([one["probability"] for one in said])


def test_with_a_text_tower_of_ones_own(three: None, here: Path) -> None:
    (here / "tower.py").write_text(
        "import torch\n\n\ndef embed(texts):\n"
        "    return torch.stack([torch.linspace(-len(text), 9, 96).cos() for text in texts])\n"
    )
    tower = ["-m", "test_resnet", "--weights", "random", "--text-tower", "tower.py:embed"]
    result = CliRunner().invoke(app, ["prompts", *tower, *SAY, "in", "--out", "out", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert [said["prompt"] for said in lines()[0]["prompts"]] == list(TEXTS)


# ---- what has no number


def test_a_map_without_shape_has_no_similarity_and_json_no_nan(three: None, ask: Ask, bring) -> None:
    def level(act, grad, index):
        """The same everywhere for the second prompt."""
        map = (act * grad).sum(1)
        return torch.where((index == 1).to(act.device)[:, None, None], torch.ones_like(map), map)

    result = ask(*SAY, "in", "--method", bring(level))
    assert result.exit_code == 0, result.output
    for row in lines():
        for values in row["similarity"].values():
            defined = [[value is not None for value in line] for line in values]
            assert defined == [[True, False, True], [False, False, False], [True, False, True]]
        for name, value in row["agreement"].items():
            assert value == row["similarity"][name][0][2]
            assert row["prompts"][1]["agreement"][name] is None
    summary = facts()["summary"]
    assert summary["defined"]["pearson"] == [[3, 0, 3], [0, 0, 0], [3, 0, 3]]
    assert summary["similarity"]["pearson"][1] == [None, None, None]
    assert result.stdout.splitlines()[1].split("\t")[4:] == ["", "", "", "", "", ""]
    for line in Path("out", LINES_FILE).read_text().splitlines():
        json.loads(line, parse_constant=not_a_number)
    json.loads(Path("out/prompts.json").read_text(), parse_constant=not_a_number)


def test_of_one_map_nothing_is_compared_and_the_picture_is_named(three: None, ask: Ask, bring) -> None:
    def third(act, grad, index):
        """Zero, but for the third prompt."""
        return (act * grad).sum(1) * (index == 2).to(act)[:, None, None]

    result = ask(*SAY, "in", "--method", bring(third))
    assert result.exit_code == 1
    assert "failed: in/a.png: the prompt 'a red square' has no map (nor has 1 more): the map of" in result.stderr
    row = lines()[0]
    assert [said["error"] is None for said in row["prompts"]] == [False, False, True]
    assert row["similarity"]["pearson"] == [[None, None, None], [None, None, None], [None, None, 1.0]]
    assert row["agreement"] == {"pearson": None, "ssim": None, "overlap": None}
    assert row["deviation"] == {}
    assert row["disagreement"] is None
    assert row["prompts"][0]["score"] is None
    # What there is is drawn.
    assert Path("out", row["files"]["sheet"]).is_file()
    summary = facts()["summary"]
    assert (summary["pictures"], summary["unstable"]) == (3, [])
    assert summary["prompts"][0]["score"] is None
    assert [one["best"] for one in summary["prompts"]] == [0, 0, 0]
    assert result.stdout.splitlines()[0] == "1\ta red square\t\t0 of 3\t\t\t\t\t\t"


def test_where_no_prompt_has_a_map_nothing_is_summed_up(three: None, ask: Ask, bring) -> None:
    def nothing(act, grad):
        return (act * grad).sum(1) * 0

    result = ask(*SAY, "in", "--method", bring(nothing))
    assert result.exit_code == 1
    assert "failed: in/a.png: no prompt has a map; the first failed with: the map of" in result.stderr
    assert "no image could be processed, so there is nothing to summarise" in result.stderr
    assert [row["prompts"] for row in lines()] == [[], [], []]
    assert written() == ["prompts.json", LINES_FILE]
