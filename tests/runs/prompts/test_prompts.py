"""``camcli prompts``: the command, what it writes and says, resumed, refused; sheets; on the stand-in for CLIP."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prompt_runs import SAY, TEXTS, Ask, arrays, facts, lines, written
from shared import BLUE, GREEN, Paint
from standin import prompt as sentence
from typer.testing import CliRunner

from camcli.cli import app
from camcli.images.find import find
from camcli.outputs.matrix import NUMBERS_ROOM, draw_matrix
from camcli.outputs.sheet import THUMBNAIL_SIDE
from camcli.runs.job.job import Job
from camcli.runs.prompts import PromptComparison, PromptJob
from camcli.runs.prompts.run import LINES_FILE, PromptRun


def inquiry(model: str, *inputs: str, **options) -> PromptJob:
    job = {"out": "out", "device": "cpu", "save": ("sheet",), **options}
    return PromptJob(job=Job(model=model, text=TEXTS, inputs=inputs, **job))


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


def test_quiet_prints_the_table_and_says_only_what_failed(three: None, ask: Ask) -> None:
    Path("in/bad.png").write_bytes(b"no picture")
    result = ask(*SAY, "in", "-q")
    assert result.exit_code == 1
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == list(TEXTS)
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
    assert "'out' contains the results of another job: text was" in other.stderr
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


def test_kept_maps_are_drawn_in_other_looks_without_the_network(three: None, ask: Ask, monkeypatch, pixels) -> None:
    looks = ["--colormap", "jet", "--alpha", "0.9"]
    assert ask(*SAY, "in", *looks, "--out", "once").exit_code == 0
    assert ask(*SAY, "in", "--save", "array").exit_code == 0
    Path("in/b.png").unlink()
    with monkeypatch.context() as without:
        without.setattr("camcli.runs.worker.pipeline.find_results", None)
        drawn = ask(*SAY, "in", *looks)
    assert "2 done in " in drawn.stderr
    assert "drawn from these, and not computed again" in drawn.stderr
    assert "1 image could not be read again for the summary: in/b.png" in drawn.stderr
    for name in ("in/a.png.prompts.png", "in/c.png.prompts.png"):
        assert (pixels(Path("once", name)) == pixels(Path("out", name))).all(), name
    assert [*lines()[-1]["files"]] == ["array", "sheet"]
    assert "0 done, 2 done before" in ask(*SAY, "in", *looks).stderr


def test_random_weights_are_marked_everywhere(three: None, ask: Ask) -> None:
    result = ask(*SAY, "in", "--weights", "random")
    assert result.exit_code == 0, result.output
    assert "these maps mean nothing, and every output is marked so" in result.stderr
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
        (["--text", "dog"], "'dog' is the only prompt, so there is nothing to compare its map with"),
        (["--text", "dog", "--paraphrase", "a {}"], "'a dog' is the only prompt"),
        (["--text", "dog", "--paraphrase", "a dog"], "the template 'a dog' has no places for a prompt"),
        (["--text", "dog", "--paraphrase", "{} and {}"], "has 2 places for a prompt"),
        (["--text", "dog", "--text", "dog"], "'dog' is given more than once"),
        (["--text", "dog", "--text", " "], "an empty"),
        (["--texts", "own.csv"], "the prompts of all images are compared, and own.csv lists each image's own"),
        (["--texts", "nowhere.txt"], "there is no file 'nowhere.txt'"),
        ([*SAY, "--save", "overlay"], "'overlay' cannot be saved"),
        ([*SAY, "--method", "gradcam,hirescam"], "maps are compared for one method, and 2 are named"),
        ([*SAY, "--method", "eigencam"], "eigencam does not depend on the class: its map is the same for every prompt"),
        ([*SAY, "--method", "rollout"], "rollout does not depend on the class"),
        ([*SAY, "--method", "dff"], "dff does not depend on the class"),
        ([*SAY, "-l", "visual.transformer.resblocks.*.ln_1"], "maps are compared for one layer, and 2 are named"),
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
    assert corner[1][2] == (114, 177, 211)  # light blue at -1, on which black can be read
    # Of many there is no room for numbers, and none for more than one pixel each.
    assert draw_matrix(np.eye(80), 160).shape == (NUMBERS_ROOM + 80, NUMBERS_ROOM + 80, 3)


def test_a_picture_that_is_gone_is_said_to_be(three: None, clip: str) -> None:
    with PromptRun(inquiry(clip, "in")) as sensitivity:
        list(sensitivity)
        Path("in/a.png").unlink()
        sensitivity.finish()
    assert sensitivity.notes[-1] == "1 image could not be read again for the summary: in/a.png"
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
    # 60 images more, of 12 KB each as pixels and more as maps: what grows is a hash of each one's name; how many
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
