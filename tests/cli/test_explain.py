"""``camcli explain``: how it ends, what it says and to which stream, names from elsewhere."""

import json
import os
from pathlib import Path

import pytest
from commands import do, explain
from readback import files, ledger
from shared import BLUE, GREEN, RED, Paint


def test_all_done_ends_with_0_and_says_what_was_found_where(paint: Paint, tiny: str) -> None:
    paint("in/a.png", RED)
    paint("in/b.png", BLUE)
    result = explain(tiny, "in", "-l", "stem")
    assert result.exit_code == 0
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == f"model: {tiny}, as built by {tiny}"
    assert lines[1] == "method: gradcam at stem, on cpu"
    assert lines[2] == "target: class logit (before softmax)"
    assert lines[3] == "output: out"
    assert lines[5].split() == ["in/a.png", "0", "red", "1.00", "out/in/a.png.overlay.jpg"]
    assert lines[6].split() == ["in/b.png", "2", "blue", "1.00", "out/in/b.png.overlay.jpg"]
    assert lines[7].startswith("2 done in ")
    assert lines[7].endswith(": out")


def test_the_chosen_layer_is_printed(paint: Paint, tiny: str) -> None:
    paint("a.png")
    assert "method: gradcam at body (chosen; --layer names another), on cpu" in explain(tiny, "a.png").stderr


def test_some_failed_ends_with_1_each_with_its_reason_the_rest_done(paint: Paint, here: Path, tiny: str) -> None:
    paint("in/a.png")
    (here / "in/[b].jpg").write_bytes(b"")
    (here / "in/c\n.png").write_text("no image")
    result = explain(tiny, "in")
    assert result.exit_code == 1
    assert "failed: in/[b].jpg: the file is empty\n" in result.stderr
    assert "failed: in/c\\n.png: is not an image: text, which begins 'no image'" in result.stderr
    assert "1 done, 2 failed in" in result.stderr
    assert files() == ["in/a.png.overlay.jpg"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.png", "--method", "gradcm"], "did you mean 'gradcam'"),
        (["a.png", "--colormap", "virids"], "did you mean 'viridis' or"),
        (["a.png", "--save", "overlay,heatmp"], "did you mean 'heatmap'?"),
        (["a.png", "-l", "sten"], "stem"),
        (["a.png", "-t", "purpel"], "there is no class 'purpel'"),
        (["a.pgn"], "did you mean 'a.png'?"),
        (["a.png", "--model", "resnet5"], "resnet50"),
        (["a.png", "--model", "tim:resnet50"], "did you mean 'timm'?"),
        (["a.png", "--device", "gpu"], "there is no device 'gpu' here"),
        (["a.png", "-t", "red", "--targets", "t.csv"], "both a target (red) and a file of targets (t.csv)"),
        ([], "no images were named"),
        (["a.png", "--alpha", "2"], "--alpha"),
        (["a.png", "--normalize", "sometimes"], "--normalize"),
        (["a.png", "--nonsense"], "--nonsense"),
        (["a.png", "--config", "nowhere.toml"], "'nowhere.toml' cannot be read"),
        (["@nowhere.txt"], "there is no list 'nowhere.txt'"),
    ],
)
def test_a_wrong_request_ends_with_2_says_what_there_is_and_writes_nothing(
    paint: Paint, here: Path, tiny: str, words: list[str], said: str
) -> None:
    paint("a.png")
    (here / "t.csv").write_text("a.png,red\n")
    result = explain(tiny, *words)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (here / "out").exists()


def test_nothing_found_ends_with_3(here: Path, tiny: str) -> None:
    (here / "in").mkdir()
    (here / "none.txt").write_text("")
    for words, stdin in ((["in"], None), (["@none.txt"], None), (["-"], b"")):
        result = explain(tiny, *words, stdin=stdin)
        assert result.exit_code == 3, result.stderr
        assert "no image" in result.stderr


def test_errors_are_said_when_quiet_and_nothing_else_is(paint: Paint, here: Path, tiny: str) -> None:
    paint("a.png")
    assert (lambda result: (result.exit_code, result.output))(explain(tiny, "-q", "a.png")) == (0, "")
    (here / "b.png").write_bytes(b"")
    result = explain(tiny, "-q", "b.png")
    assert (result.exit_code, result.output) == (1, "failed: b.png: the file is empty\n")
    assert explain(tiny, "-q", "nowhere.png").stderr.startswith("error: there is no file or folder 'nowhere.png'")


def test_verbose_has_a_line_for_every_map(paint: Paint, tiny: str) -> None:
    paint("a.png", (200, 100, 50))
    lines = explain(tiny, "-v", "a.png", "-t", "top:2", "-l", "stem").stderr.splitlines()
    assert [line.rpartition(", ")[0] for line in lines if line.startswith("a.png: ")] == [
        "a.png: 0 red 0.978 at stem",
        "a.png: 1 green 0.019 at stem",
    ]


# ---- what machines read


def test_json_is_on_stdout_alone_one_line_a_map_and_the_same_as_in_the_ledger(
    paint: Paint, here: Path, tiny: str
) -> None:
    paint("in/a.png", (200, 100, 50))
    (here / "in/b.png").write_bytes(b"")
    result = explain(tiny, "--json", "in", "-t", "top:2")
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows == ledger()
    assert [(row["source"], row["label"], row["error"]) for row in rows] == [
        ("in/a.png", "red", None),
        ("in/a.png", "green", None),
        ("in/b.png", None, "the file is empty"),
    ]
    # What is done before is not said again.
    assert [
        json.loads(line)["source"] for line in explain(tiny, "--json", "in", "-t", "top:2").stdout.splitlines()
    ] == ["in/b.png"]


# ---- names from elsewhere


def test_names_on_stdin_by_line_and_by_nul(paint: Paint, here: Path, tiny: str) -> None:
    paint("a.png")
    paint("with\nnewline.png", BLUE)
    raw = os.fsdecode(b"caf\xe9.png")
    paint("b.png", GREEN)
    (here / "b.png").rename(here / raw)
    result = explain(tiny, "-", stdin=b"a.png\ncaf\xe9.png\nnowhere.png\n")
    assert result.exit_code == 1
    assert "failed: nowhere.png: there is no such file or folder" in result.stderr
    result = explain(tiny, "-", "-0", "--json", stdin=b"with\nnewline.png\0a.png\0caf\xe9.png")
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["source"] for line in result.stdout.splitlines()] == ["with\nnewline.png"]
    assert files() == sorted(f"{name}.overlay.jpg" for name in ("a.png", raw, "with\nnewline.png"))


def test_names_in_a_list(paint: Paint, here: Path, tiny: str) -> None:
    paint("a.png")
    paint("in/b.png")
    (here / "list.txt").write_text("a.png\n\nin\n")
    assert explain(tiny, "@list.txt").exit_code == 0
    assert files() == ["a.png.overlay.jpg", "in/b.png.overlay.jpg"]


def test_a_pipe_as_a_list_is_refused_rather_than_read_twice(here: Path, tiny: str) -> None:
    os.mkfifo(here / "pipe")
    result = explain(tiny, "@pipe")
    assert result.exit_code == 2
    assert "is a pipe" in result.stderr


def test_a_dead_layer_ends_layers_and_explain_alike(here: Path, paint: Paint) -> None:
    paint("cat.png")
    asked = ["--model", "timm:test_vit", "--weights", "random", "--layer", "blocks.-1", "cat.png"]
    for words in (["layers", "timm:test_vit", "blocks.-1"], ["explain", *asked]):
        result = do(*words)
        assert result.exit_code == 2
        assert "takes only the prefix tokens of 'norm'" in result.stderr
        assert "'blocks.5.norm1' works" in result.stderr
    # The tree is shown all the same.
    assert "blocks.5.norm1" in do("layers", "timm:test_vit", "blocks.-1").stdout
    assert do("layers", "timm:test_vit", "blocks.-1.norm1").exit_code == 0


def test_layout_and_call_can_be_given(here: Path, paint: Paint) -> None:
    paint("cat.png")
    asked = ["explain", "--model", "timm:test_vit", "--weights", "random", "cat.png"]
    named = ["--layer", "blocks.-1.norm1", "--layout"]
    assert do(*asked, *named, "tokens:1:10x10").exit_code == 0
    for words, said in (
        ((*named, "nchw"), "1x101x64 cannot be read as nchw"),
        ((*named, "grid"), "layout cannot be 'grid'"),
        (("--layout", "nchw"), "was given without a layer"),
        (("--layer", "blocks.-1.norm1", "--call", "2"), "has no call 2: it is called once"),
    ):
        result = do(*asked, *words, "--overwrite")
        assert result.exit_code == 2
        assert said in result.stderr
