"""``camcli prompts``: the command on a tiny CLIP, its numbers held against its own maps; and on the stand-in."""

import json
import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from standin import prompt as sentence
from typer.testing import CliRunner, Result

from camcli.cli import app
from camcli.images.find import find
from camcli.metrics import similarity
from camcli.outputs.matrix import NUMBERS_ROOM, draw_matrix
from camcli.outputs.sheet import THUMBNAIL_SIDE
from camcli.runs.job.job import Job
from camcli.runs.prompts import PromptComparison, PromptJob
from camcli.runs.prompts.run import LINES_FILE, PromptRun
from conftest import BLUE, GREEN, RED, Paint

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TEXTS = ("a red square", "something blue", "grass")
SAY = [word for text in TEXTS for word in ("--text", text)]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP of a few thousand weights, but for its vocabulary, whose maps have 4 x 4 cells."""
    folder = tmp_path_factory.mktemp("clip")
    config = {"model_cfg": TOWERS, "preprocess_cfg": {"resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    logging.disable(logging.WARNING)  # that the weights are random
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    logging.disable(logging.NOTSET)
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    return f"open_clip:local-dir:{folder}"


@pytest.fixture
def three(paint: Paint) -> None:
    """Three pictures below ``in``."""
    paint("in/a.png", RED, box=(4, 4, 20, 20), ground=BLUE)
    paint("in/b.png", GREEN, box=(10, 16, 30, 30), ground=RED, size=(48, 32))
    paint("in/c.png", BLUE, box=(0, 0, 9, 32), ground=GREEN)


Ask = Callable[..., Result]


@pytest.fixture
def ask(clip: str) -> Ask:
    """``camcli prompts`` on the tiny CLIP."""

    def ask(*words: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, ["prompts", "-m", clip, "--out", "out", "--device", "cpu", *words], input=stdin)

    return ask


def lines(out: str = "out") -> list[dict]:
    return [json.loads(line) for line in Path(out, LINES_FILE).read_text(encoding="utf-8").splitlines()]


def facts(out: str = "out") -> dict:
    return json.loads(Path(out, "prompts.json").read_text(encoding="utf-8"))


def inquiry(model: str, *inputs: str, **options) -> PromptJob:
    job = {"out": "out", "device": "cpu", "save": ("sheet",), **options}
    return PromptJob(job=Job(model=model, text=TEXTS, inputs=inputs, **job))


def arrays(path: str | Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def written(out: str = "out") -> list[str]:
    found = (path.relative_to(out).as_posix() for path in Path(out).rglob("*") if path.is_file())
    return sorted(set(found) - {".camcli.lock"})


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
    # And what all pictures say is the mean of what each says.
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
    # Twice as wide as high: the first and the last row of cells show no picture.
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
    assert "failed: in/a.png: no prompt has a map; of the first: the map of" in result.stderr
    assert "no picture could be done, so there is nothing to sum up" in result.stderr
    assert [row["prompts"] for row in lines()] == [[], [], []]
    assert written() == ["prompts.json", LINES_FILE]


# ---- the command


def test_what_is_written_and_what_is_said(three: None, ask: Ask) -> None:
    result = ask(*SAY, "in")
    assert result.exit_code == 0, result.output
    sheets = [f"in/{name}.png.prompts.png" for name in "abc"]
    assert written() == sorted([*sheets, "prompts.json", LINES_FILE, "prompts.png"])
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["1", TEXTS[0]], ["2", TEXTS[1]], ["3", TEXTS[2]]]
    summary = facts()["summary"]
    for number, row in enumerate(rows):
        one = summary["prompts"][number]
        assert row[2:7] == [
            f"{one['score']:.4g}",
            f"{one['best']} of 3",
            *(f"{one['agreement'][name]:+.3f}" for name in ("pearson", "ssim", "overlap")),
        ]
        matrix_ = [
            "" if at == number else f"{value:+.3f}" for at, value in enumerate(summary["similarity"]["pearson"][number])
        ]
        assert row[7:] == matrix_
    assert "least stable, by mean pearson of the prompts' maps: " in result.stderr
    assert "3 done in " in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].endswith("out/prompts.jsonl, out/prompts.png, out/prompts.json")
    made = facts()
    assert (made["pictures"], made["failed"], made["untrained"]) == (3, 0, False)
    assert made["prompts"]["explained"] == list(TEXTS)
    assert made["job"]["text"] == list(TEXTS)
    assert "finished" in made
    assert "Wang et al. 2004, window 11 x 11" in made["numbers"]["ssim"]


def test_json_gives_a_line_for_each_picture_and_no_table(three: None, ask: Ask) -> None:
    result = ask(*SAY, "in", "--json", "--measure", "ssim")
    assert result.stdout == Path("out", LINES_FILE).read_text()
    assert [PromptComparison.read(json.loads(line)).as_line().decode() for line in result.stdout.splitlines()] == [
        line + "\n" for line in result.stdout.splitlines()
    ]
    assert facts()["summary"]["measure"] == "ssim"


def test_quiet_says_only_what_failed(three: None, ask: Ask) -> None:
    Path("in/bad.png").write_bytes(b"no picture")
    result = ask(*SAY, "in", "-q")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("failed: in/bad.png: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_order_by_another_measure_needs_nothing_to_be_done_again(three: None, ask: Ask) -> None:
    assert ask(*SAY, "in").exit_code == 0
    again = ask(*SAY, "in", "--measure", "overlap", "--pictures", "1")
    assert again.exit_code == 0, again.output
    assert "0 done, 3 done before" in again.stderr
    assert len(facts()["summary"]["unstable"]) == 1
    least = min(lines(), key=lambda row: row["agreement"]["overlap"])
    assert facts()["summary"]["unstable"][0]["source"] == least["source"]


def test_a_picture_that_fails_is_named_and_the_others_are_compared(three: None, ask: Ask) -> None:
    Path("in/bad.png").write_bytes(b"no picture")
    result = ask(*SAY, "in")
    assert result.exit_code == 1
    assert "failed: in/bad.png: " in result.stderr
    assert "3 done, 1 failed" in result.stderr
    assert [row["error"] is None for row in lines()] == [True, True, False, True]
    assert facts()["summary"]["pictures"] == 3
    # The same again tries the failed one alone.
    again = ask(*SAY, "in")
    assert "0 done, 1 failed, 3 done before" in again.stderr
    assert len(lines()) == 4


def test_what_was_done_before_counts_and_what_changed_is_done_again(three: None, ask: Ask, paint: Paint) -> None:
    assert ask(*SAY, "in/a.png", "in/b.png").exit_code == 0
    assert facts()["summary"]["pictures"] == 2
    paint("in/b.png", GREEN, box=(1, 1, 6, 6), ground=BLUE)
    again = ask(*SAY, "in")
    assert "2 done, 1 done before" in again.stderr
    assert facts()["summary"]["pictures"] == 3
    assert sorted(row["source"] for row in lines()) == ["in/a.png", "in/b.png", "in/c.png"]
    Path("out/in/c.png.prompts.png").unlink()
    assert "1 done, 2 done before" in ask(*SAY, "in").stderr
    assert "3 done in" in ask(*SAY, "in", "--overwrite").stderr


def test_an_interrupted_run_loses_nothing_that_was_done(three: None, clip: str) -> None:
    asked = inquiry(clip, "in", batch_size=1)
    with pytest.raises(KeyboardInterrupt), PromptRun(asked) as sensitivity:
        next(iter(sensitivity))
        raise KeyboardInterrupt
    assert [row["source"] for row in lines()] == ["in/a.png"]
    assert "summary" not in facts()
    with PromptRun(asked) as sensitivity:
        assert [len(records) for records in sensitivity] == [0, 1, 1]
        assert sensitivity.finish().pictures == 3


def test_other_prompts_need_another_folder(three: None, ask: Ask) -> None:
    assert ask(*SAY, "in/a.png").exit_code == 0
    other = ask(*SAY, "--text", "one more", "in/a.png")
    assert other.exit_code == 2
    assert "'out' holds the results of another job: text was" in other.stderr
    assert "choose another folder with --out, or replace them with --overwrite" in other.stderr
    assert ask(*SAY, "--text", "one more", "in/a.png", "--overwrite").exit_code == 0
    assert len(lines()) == 1


def test_comparisons_of_another_version_stay_where_that_is_asked_for(three: None, ask: Ask, monkeypatch) -> None:
    with monkeypatch.context() as then:
        then.setattr("camcli.runs.job.fingerprint.__version__", "0.0.9")
        assert ask(*SAY, "in/a.png").exit_code == 0
    earlier = facts()["fingerprint"]
    refused = ask(*SAY, "in")
    assert refused.exit_code == 2
    assert "another job: camcli was 0.0.9" in refused.stderr
    assert "keep them beside the new ones with --accept-versions" in refused.stderr
    assert "2 done, 1 done before" in ask(*SAY, "in", "--accept-versions").stderr
    assert facts()["accepted"][earlier]["camcli"] == "0.0.9"
    assert facts()["summary"]["pictures"] == 3
    assert [row["job"] == earlier for row in lines()] == [True, False, False]
    # The same comparison of other prompts is another job.
    assert ask(*SAY, "--text", "one more", "in", "--accept-versions").exit_code == 2


def test_explain_may_write_to_the_same_folder_and_neither_finds_the_others_pictures(
    three: None, ask: Ask, clip: str
) -> None:
    assert ask(*SAY, "in").exit_code == 0
    words = ["explain", "-m", clip, *SAY, "in", "--out", "out", "--device", "cpu"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert ask(*SAY, "in").exit_code == 0
    Path("out/run.json").unlink()
    Path("out").rename("in/compared")
    found = [str(source.path) for source in find(["in"], out=Path("elsewhere"))]
    assert found == ["in/a.png", "in/b.png", "in/c.png"]


def test_random_weights_are_marked_everywhere(three: None, ask: Ask) -> None:
    result = ask(*SAY, "in", "--weights", "random")
    assert result.exit_code == 0, result.output
    assert "these maps mean nothing, and every output says so" in result.stderr
    assert written() == sorted(
        [
            *(f"in/{name}.png.untrained.prompts.png" for name in "abc"),
            "prompts.json",
            LINES_FILE,
            "prompts.untrained.png",
        ]
    )
    assert all(row["untrained"] for row in lines())
    assert facts()["untrained"]


def test_pictures_come_from_standard_input_too(three: None, ask: Ask) -> None:
    result = ask(*SAY, "-", stdin=b"in/a.png\nin/c.png\n")
    assert result.exit_code == 0, result.output
    assert len(lines()) == 2
    assert ask(*SAY, "-", "--overwrite", stdin=b"").exit_code == 3


def test_several_layers_make_one_map_and_maps_at_the_input_are_compared_too(three: None, ask: Ask) -> None:
    layers = ["-l", "visual.transformer.resblocks.*.ln_1", "--fuse", "mean"]
    assert ask(*SAY, "in/a.png", *layers, "--augment", "flip").exit_code == 0
    assert "+" in lines()[0]["layer"]
    assert ask(*SAY, "in/a.png", "--method", "input-x-gradient", "--overwrite", "--save", "array").exit_code == 0
    maps = arrays("out/in/a.png.prompts.npz")["maps"]
    assert maps.shape == (3, 3, 32, 32)
    strength = np.abs(maps).max(1).reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(lines()[0]["similarity"]["pearson"], np.corrcoef(strength), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no prompts were given"),
        (["--text", "dog"], "'dog' is one prompt, and its map has nothing to be compared with"),
        (["--text", "dog", "--paraphrase", "a {}"], "'a dog' is one prompt"),
        (["--text", "dog", "--paraphrase", "a dog"], "the template 'a dog' has no places for a prompt"),
        (["--text", "dog", "--paraphrase", "{} and {}"], "has 2 places for a prompt"),
        (["--text", "dog", "--text", "dog"], "'dog' is given more than once"),
        (["--text", "dog", "--text", " "], "an empty"),
        (["--texts", "own.csv"], "the prompts of all pictures are compared, and own.csv lists each picture's own"),
        (["--texts", "nowhere.txt"], "'nowhere.txt' cannot be read"),
        ([*SAY, "--save", "overlay"], "'overlay' cannot be saved"),
        ([*SAY, "--method", "gradcam,hirescam"], "the maps of one method are compared, and 2 are named"),
        ([*SAY, "--method", "eigencam"], "eigencam asks for no class: its map is the same for every prompt"),
        ([*SAY, "--method", "rollout"], "rollout asks for no class"),
        ([*SAY, "--method", "dff"], "dff asks for no class"),
        ([*SAY, "-l", "visual.transformer.resblocks.*.ln_1"], "the maps of one layer are compared, and 2 are named"),
        ([*SAY, "--colormap", "virids"], "did you mean 'viridis'"),
        ([*SAY, "--measure", "beauty"], "--measure"),
        ([*SAY, "--pictures", "0"], "--pictures"),
        ([*SAY, "nowhere.png"], "there is no file or folder 'nowhere.png'"),
        ([*SAY, "-m", "bundled:efficientnet-lite0"], "has classes of its own"),
    ],
)
def test_a_wrong_request_ends_with_2_and_writes_nothing(
    three: None, here: Path, ask: Ask, words: list[str], said: str
) -> None:
    (here / "own.csv").write_text("picture,text\nin/a.png,a dog\n")
    result = ask(*words, "in")
    assert result.exit_code == 2, result.output
    assert said in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert not (here / "out").exists()


# ---- drawings


def test_a_sheet_holds_every_map_and_of_a_text_with_several_prompts_a_row(three: None, ask: Ask, pixels) -> None:
    assert ask(*SAY, "in/a.png").exit_code == 0
    few = pixels("out/in/a.png.prompts.png")
    more = [f"--paraphrase={word} {{}}" for word in ("one", "two", "the", "a", "my", "no", "any")]
    assert ask(*SAY, *more, "in/a.png", "--overwrite").exit_code == 0
    many = pixels("out/in/a.png.prompts.png")
    # Three texts of seven prompts each: a row of six and one of one for each.
    assert len(many) - len(few) > 5 * THUMBNAIL_SIDE
    assert many.shape[1] > few.shape[1]
    assert (few[-10:] == 255).all()


def test_a_matrix_has_its_values_colours(pixels) -> None:
    values = np.array([[1, 0.5, np.nan], [0.5, 1, -1], [np.nan, -1, 1]])
    drawn = draw_matrix(values, 400)
    cell = (len(drawn) - NUMBERS_ROOM) // 3
    corner = [
        [tuple(drawn[NUMBERS_ROOM + row * cell + 2, NUMBERS_ROOM + column * cell + 2]) for column in range(3)]
        for row in range(3)
    ]
    assert corner[0][1] == corner[1][0]
    assert corner[0][0] == corner[1][1] == (250, 250, 250)
    assert corner[0][2] == corner[2][0] == (224, 224, 224)
    assert corner[1][2] == (33, 102, 172)  # blue at -1
    # Of many there is no room for numbers, and none for more than one pixel each.
    assert draw_matrix(np.eye(80), 160).shape == (NUMBERS_ROOM + 80, NUMBERS_ROOM + 80, 3)


def test_a_picture_that_is_gone_is_said_to_be(three: None, clip: str) -> None:
    with PromptRun(inquiry(clip, "in")) as sensitivity:
        list(sensitivity)
        Path("in/a.png").unlink()
        sensitivity.finish()
    assert sensitivity.notes[-1] == "1 picture(s) could not be seen again for the summary: in/a.png"
    assert facts()["notes"][-1] == sensitivity.notes[-1]


# ---- memory


@pytest.mark.slow
def test_memory_does_not_grow_with_the_folder(here: Path, clip: str) -> None:
    (here / "in").mkdir()
    for number in range(80):
        Image.new("RGB", (64, 64), (number, 255 - number, 7)).save(here / f"in/{number}.bmp")
    for name, count in (("few.txt", 20), ("all.txt", 80)):
        (here / name).write_text("\n".join(f"in/{number}.bmp" for number in range(count)))
    peaks = []
    for name in ("few.txt", "few.txt", "all.txt"):
        some = {"batch_size": 4, "workers": 1, "save": ("array",)}
        sensitivity = PromptRun(inquiry(clip, f"@{name}", out=f"out-{len(peaks)}", **some))
        tracemalloc.start()
        with sensitivity:
            count = sum(1 for _ in sensitivity)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert sensitivity.finish().pictures == count
    # 60 pictures more, of 12 KB each as pixels and more as maps: what grows is a hash of each one's name; how many
    # are under way at once depends on the threads.
    assert peaks[2] - peaks[1] < 60 * 5000


# ---- real weights


@pytest.mark.slow
def test_on_the_stand_in_what_means_the_same_agrees(here: Path, sample_images: Path, standin: str) -> None:
    names = ["espresso", "cup", "coffee mug", "tabby", "Egyptian cat"]
    words = [word for name in names for word in ("--text", sentence(name))]
    picture = str(sample_images / "cat-and-espresso.jpg")
    result = CliRunner().invoke(
        app,
        [
            "prompts",
            "-m",
            standin,
            *words,
            picture,
            "--out",
            "out",
            "--device",
            "cpu",
            "--crop",
            "squash",
            "--root",
            str(sample_images),
        ],
    )
    assert result.exit_code == 0, result.output
    row = lines()[0]
    r = np.array(row["similarity"]["pearson"])
    shared = np.array(row["similarity"]["overlap"])
    drinks, cats = slice(0, 3), slice(3, 5)
    assert r[drinks, drinks].min() > 0.7
    assert r[cats, cats].min() > 0.7
    assert r[drinks, cats].max() < 0
    assert shared[drinks, cats].max() < 0.1 < shared[drinks, drinks].min()
    middle = 300
    peaks = [said["peak"][0] for said in row["prompts"]]
    assert min(peaks[:3]) > middle > max(peaks[3:])
