"""``camcli compare``: numbers worked out by hand, what is written and said, what fails and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import do
from compare_runs import STEPS, compare, facts, lines, table, write_gradients, written
from shared import BLUE, GREEN, RED, Paint
from standin import prompt as sentence

from camcli.metrics import similarity

TARGETS = ("--target", "red", "--target", "green", "--target", "blue")


def test_numbers_are_those_worked_out_by_hand(tiny: str, here: Path) -> None:
    """Grad-CAM at ``stem`` is 10/256 times the colour: red and green are independent, red and blue are opposite."""
    write_gradients()
    result = compare(tiny, "a.png", *TARGETS, "--layer", "stem")
    assert result.exit_code == 0, result.output
    [line] = lines()
    assert [one["label"] for one in line["maps"]] == ["red", "green", "blue"]
    assert [one["strongest"] for one in line["maps"]] == [pytest.approx(10 / 256 * 240 / 255, rel=1e-5)] * 3
    assert [one["peak"] for one in line["maps"]] == [[15.5, 0.5], [0.5, 15.5], [0.5, 0.5]]
    assert line["maps"][0]["score"] == pytest.approx(10 * STEPS.mean() / 255, rel=1e-5)
    assert np.allclose(line["similarity"]["pearson"], [[1, 0, -1], [0, 1, 0], [-1, 0, 1]], atol=1e-6)
    # A fifth of 256 cells are 51.2: three columns of 16, and a fifth of each cell of the fourth.
    parts = np.array([1, 1, 1, 0.2])
    shared = np.minimum.outer(parts, parts).sum()
    overlap = shared / (2 * 51.2 - shared)
    assert np.allclose(line["similarity"]["overlap"], [[1, overlap, 0], [overlap, 1, overlap], [0, overlap, 1]])
    ramp = np.broadcast_to(STEPS.astype(np.float32), (16, 16))
    expected = similarity.ssim(np.stack([ramp, ramp.T, ramp[:, ::-1]]))
    assert np.allclose(line["similarity"]["ssim"], expected, atol=1e-5)
    assert result.stdout.split()[:3] == ["map", "and", "r"]
    rows = table(result)
    assert [row[:2] for row in rows] == [["red", "green"], ["red", "blue"], ["green", "blue"]]
    assert rows[1][2] == "-1.000"
    assert rows[1][5] == "1"


def test_means_are_over_the_images_and_pairs_differ_in_one_thing(tiny: str, here: Path) -> None:
    for name in ("a.png", "b.png"):
        write_gradients(f"in/{name}")
    result = compare(tiny, "in", "--method", "gradcam,layercam", "--layer", "stem,body", "--target", "red")
    assert result.exit_code == 0, result.output
    made = facts()
    assert made["arrangement"] == {"rows": "layers", "columns": "methods", "sheets": "images"}
    assert made["maps"] == ["gradcam, stem", "layercam, stem", "gradcam, body", "layercam, body"]
    pairs = {(one["one"], one["other"], one["shared"]): one for one in made["pairs"]}
    assert [*pairs] == [
        ("gradcam", "layercam", "stem"),
        ("stem", "body", "gradcam"),
        ("stem", "body", "layercam"),
        ("gradcam", "layercam", "body"),
    ]
    # Both methods multiply by the same gradient everywhere here.
    assert pairs["gradcam", "layercam", "stem"]["means"] == {"pearson": 1.0, "ssim": 1.0, "overlap": 1.0}
    assert {one["images"] for one in pairs.values()} == {2}
    assert written() == [
        "compare-001.png",
        "compare-002.png",
        "compare-similarity.png",
        "compare.json",
        "compare.jsonl",
    ]
    assert [line["files"] for line in lines()] == [{"png": "compare-001.png"}, {"png": "compare-002.png"}]


def test_scales_are_compared(tiny: str, here: Path) -> None:
    write_gradients()
    result = compare(tiny, "a.png", "--scales", "1", "--scales", "1,2", "--target", "red", "--layer", "stem")
    assert result.exit_code == 0, result.output
    assert [one["scales"] for one in lines()[0]["maps"]] == ["1", "1,2"]
    assert [row[:2] for row in table(result)] == [["scale 1", "scale 1,2"]]


def test_a_map_that_fails_is_told_beside_those_that_do_not(tiny: str, paint: Paint) -> None:
    """No green is in a red image, so that its map is zero everywhere."""
    paint("in/a.png", RED)
    paint("in/b.png", (200, 100, 0))
    Path("in/c.png").write_bytes(b"no picture")
    words = ("--target", "red", "--target", "green", "--layer", "stem,body", "--save", "svg")
    result = compare(tiny, "in", *words)
    assert result.exit_code == 1
    assert "failed: in/a.png: the map of class 1 (green) is zero everywhere" in result.stderr
    first, second, third = lines()
    errors = [(one["target"], one["layer"], one["error"] is None) for one in first["maps"]]
    assert errors == [("red", "stem", True), ("red", "body", True), ("green", "stem", False), ("green", "body", False)]
    assert "'stem'" in first["maps"][2]["error"]
    assert "'body'" in first["maps"][3]["error"]
    assert first["maps"][2]["strongest"] is None
    assert first["similarity"]["pearson"][0][2] is None
    assert second["error"] is None
    assert {one["error"] for one in third["maps"]} == {third["error"]}
    assert facts()["defined"]["pearson"][0][1] == 0  # constant maps have no correlation
    assert "1 done, 2 failed" in result.stderr
    assert ">no map: the map of class 1" in Path("out/compare-001.svg").read_text()
    assert ">no map<" in Path("out/compare-003.svg").read_text()


def test_what_the_network_fails_on_fails_in_its_cells(tiny_file: Path, paint: Paint) -> None:
    paint("in/a.png", (255, 255, 255))
    paint("in/b.png", GREEN, box=(4, 4, 20, 20), ground=BLUE)
    result = compare(f"{tiny_file}:moody", "in", "--method", "gradcam,layercam", "--layer", "stem")
    assert result.exit_code == 1
    bright, other = lines()
    assert "too bright for me" in bright["error"]
    assert other["error"] is None


def test_a_method_at_the_input_has_one_map_for_all_layers(tiny: str, here: Path) -> None:
    write_gradients()
    words = ("--method", "gradcam,saliency", "--layer", "stem,body", "--target", "red")
    result = compare(tiny, "a.png", *words)
    assert result.exit_code == 0, result.output
    maps = lines()[0]["maps"]
    assert [one["left_out"] for one in maps] == [None, None, None, "as at stem: saliency works at the input"]
    assert maps[1]["layer"] == ""


def test_json_is_a_line_for_each_image_and_names_may_come_from_a_pipe(tiny: str, here: Path) -> None:
    for name in ("a.png", "b.png"):
        write_gradients(name)
    words = ("--method", "gradcam,layercam", "--layer", "stem", "--json")
    result = compare(tiny, "-", *words, stdin=b"a.png\nb.png\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == Path("out/compare.jsonl").read_text()
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["a.png", "b.png"]


def test_results_of_another_job_and_files_of_nobody_are_not_replaced(tiny: str, here: Path) -> None:
    write_gradients()
    words = ("a.png", "--target", "red", "--target", "green")
    assert compare(tiny, *words, "--layer", "stem").exit_code == 0
    before = Path("out/compare.png").read_bytes()
    assert compare(tiny, *words, "--layer", "stem").exit_code == 0  # the same job makes the same again
    assert Path("out/compare.png").read_bytes() == before
    refused = compare(tiny, *words, "--layer", "body")
    assert refused.exit_code == 2
    assert "'out' contains the sheets of another job or of other images" in refused.stderr
    assert Path("out/compare.png").read_bytes() == before
    write_gradients("b.png")
    assert compare(tiny, "b.png", *words[1:], "--layer", "stem").exit_code == 2
    assert compare(tiny, *words, "--layer", "body", "--overwrite").exit_code == 0
    assert Path("out/compare.png").read_bytes() != before
    Path("mine").mkdir()
    Path("mine/compare.svg").write_text("my own")
    assert "compare.svg, which no run of it recorded" in compare(tiny, *words, out="mine").stderr
    assert Path("mine/compare.svg").read_text() == "my own"


def test_without_out_each_job_has_a_folder_and_sheets_are_no_inputs(tiny: str, here: Path) -> None:
    write_gradients()
    for layer in ("stem", "body"):
        result = do("compare", "a.png", "-m", tiny, "--layer", layer, "--target", "red", "--target", "green")
        assert result.exit_code == 0, result.output
    folders = sorted(path.name for path in Path("camcli-out").iterdir() if not path.is_symlink())
    assert folders == ["compare-tiny-body-gradcam-red+green-a", "compare-tiny-stem-gradcam-red+green-a"]
    again = do("explain", "camcli-out", "-m", tiny, "--out", "maps")
    assert again.exit_code == 3
    assert not Path("maps").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.png",), "there is nothing to compare"),
        (("a.png", "--target", "all"), "can be any number of classes"),
        (("a.png", "--columns", "method"), "did you mean 'methods'?"),
        (("a.png", "--rows", "layers", "--columns", "layers"), "layers are in two places"),
        (("a.png", "--weights", "x", "--weights", "y", "--model", "m", "--weights", "z"), "do not go together"),
        (
            ("a.png", "--weights", "random", "--name", "a", "--name", "b"),
            "2 names for 1 model (checkpoints are counted)",
        ),
        (("a.png", "--model", "m", "--name", "a", "--name", "a"), "do not tell the models apart"),
        (("a.png", "--save", "gif"), "there are: png, svg, pdf, html"),
        (("a.png", "--draw", "signed", "--normalize", "range"), "zero in the middle"),
        (("a.png", "--method", "gradcam,dff", "--layer", "stem", "-o", "concepts=2"), "dff finds concepts"),
        (
            ("a.png", "--method", "gradcam,layercam", "--layer", "stem,body", *TARGETS),
            "3 things have several values (3 targets, 2 layers, 2 methods)",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(tiny: str, here: Path, words: tuple[str, ...], message: str) -> None:
    write_gradients()
    result = compare(tiny, *words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not Path("out").exists()


def test_a_third_thing_has_sheets_of_its_own(tiny: str, here: Path) -> None:
    write_gradients()
    words = ("--method", "gradcam,layercam", "--layer", "stem,body", "--sheets", "layers")
    result = compare(tiny, "a.png", *words, "--target", "red", "--target", "green")
    assert result.exit_code == 0, result.output
    assert {"compare-001.png", "compare-002.png"} <= {*written()}
    Path("out/compare-1.txt.png").write_bytes(Path("a.png").read_bytes())  # somebody's own, beside them
    explained = do("explain", "out", "-m", tiny, "--out", "maps")
    assert explained.exit_code == 0, explained.output
    assert [path.name for path in Path("maps/out").iterdir()] == ["compare-1.txt.png.overlay.jpg"]
    assert len(lines()) == 1


@pytest.mark.slow
def test_prompts_are_compared(standin: str, paint: Paint) -> None:
    paint("in/a.png", RED, box=(4, 4, 20, 20), ground=BLUE)
    paint("in/b.png", GREEN, box=(10, 16, 30, 30), ground=RED)
    texts = (sentence("tabby"), sentence("espresso"))
    words = [word for text in texts for word in ("--text", text)]
    result = compare(standin, "in", *words, "--method", "gradcam,layercam")
    assert result.exit_code == 0, result.output
    assert [one["target"] for one in lines()[0]["maps"]] == [texts[0], texts[0], texts[1], texts[1]]
    assert facts()["arrangement"] == {"rows": "prompts", "columns": "methods", "sheets": "images"}
    fixed = compare(standin, "in", *words, "--method", "gradcam,layercam", "--target", texts[0], out="one")
    assert fixed.exit_code == 0, fixed.output
    assert facts("one")["arrangement"] == {"rows": "images", "columns": "methods", "sheets": "scales"}
