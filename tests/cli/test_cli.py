import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from readback import facts, files, ledger
from typer.testing import CliRunner, Result

import camcli
from camcli.cli import app
from camcli.methods import METHODS
from conftest import BLUE, GREEN, RED, Bring, Paint


def do(*words: str, stdin: bytes | None = None, **environment: str) -> Result:
    """The command line in this process, which has torch already."""
    return CliRunner().invoke(app, list(words), input=stdin, env=environment)


def explain(tiny: str, *words: str, stdin: bytes | None = None) -> Result:
    return do("explain", "--model", tiny, "--out", "out", *words, stdin=stdin)


# ---- how it ends


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
    assert lines[4].split() == ["in/a.png", "0", "red", "1.00", "out/in/a.png.overlay.jpg"]
    assert lines[5].split() == ["in/b.png", "2", "blue", "1.00", "out/in/b.png.overlay.jpg"]
    assert lines[6].startswith("2 done in ")
    assert lines[6].endswith(": out")


def test_the_chosen_layer_is_printed(paint: Paint, tiny: str) -> None:
    paint("a.png")
    assert "method: gradcam at body (chosen; --layer names another), on cpu" in explain(tiny, "a.png").stderr


def test_some_failed_ends_with_1_each_with_its_reason_the_rest_done(paint: Paint, here: Path, tiny: str) -> None:
    paint("in/a.png")
    (here / "in/[b].jpg").write_bytes(b"")
    (here / "in/c\n.png").write_text("no picture")
    result = explain(tiny, "in")
    assert result.exit_code == 1
    assert "failed: in/[b].jpg: the file is empty\n" in result.stderr
    assert "failed: in/c\\n.png: is not an image: text, which begins 'no picture'" in result.stderr
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
        ([], "no pictures were named"),
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
        assert "no picture" in result.stderr


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


# ---- the other commands


def test_version_and_help() -> None:
    assert do("--version").stdout == f"camcli {camcli.__version__}\n"
    commands = ("explain", "channels", "prompts", "layers", "methods", "models")
    for words in (["--help"], ["-h"], *([command, "-h"] for command in commands)):
        result = do(*words)
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
        # `:top:` and the like are pictures to Rich.
        assert max(result.stdout) < "\U0001f000"
    assert "channels:top:5" in do("explain", "-h", COLUMNS="300").stdout


def test_methods_are_listed_with_their_papers() -> None:
    rows = [line.split("\t") for line in do("methods").stdout.splitlines()]
    assert [row[0] for row in rows] == METHODS.names()
    assert all(len(row) == 5 and all(row) for row in rows)
    assert [(row[0], row[1], row[2]) for row in rows[:3]] == [
        ("gradcam", "layer", "1 forward, 1 backward to the layer"),
        ("hirescam", "layer", "1 forward, 1 backward to the layer"),
        ("guided-backprop", "input", "1 forward, 1 backward to the input"),
    ]
    one = do("methods", "guided-backprop")
    assert one.stdout.startswith("guided-backprop\tinput\t")
    assert "arXiv:1810.03292" in one.stderr  # what speaks against it
    assert do("methods", "gradcm").exit_code == 2


def test_layers_show_type_shape_layout_and_the_default(tiny: str) -> None:
    rows = [line.split("\t") for line in do("layers", tiny).stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("stem", "Conv2d", "nx3x16x16", "yes"),
        ("body", "Conv2d", "nx3x8x8", "default"),
    ]
    assert [line.split("\t")[0] for line in do("layers", tiny, "stem").stdout.splitlines()] == ["stem"]
    result = do("layers", tiny, "sten")
    assert result.exit_code == 2
    assert "stem" in result.stderr


def test_layers_of_a_library_model_need_no_weights(here: Path) -> None:
    rows = [line.split("\t") for line in do("layers", "timm:test_resnet", "--depth", "1").stdout.splitlines()]
    assert all("." not in row[0] for row in rows)
    assert [row[0] for row in rows if row[4] == "default"] == ["layer4"]


def test_models_are_listed_by_source_and_pattern() -> None:
    rows = [line.split("\t") for line in do("models", "resnet50*").stdout.splitlines()]
    names = [row[0] for row in rows]
    assert "timm:resnet50.a1_in1k" in names
    assert "torchvision:resnet50/IMAGENET1K_V2" in names
    assert all("resnet50" in name for name in names)
    cached = do("models", "--cached").stdout.splitlines()
    assert "bundled:efficientnet-lite0\tyes" in cached
    assert all(line.endswith("\tyes") for line in cached)


# ---- in a process of its own


def modules_of(*words: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\n@', *sys.modules, sep='\\n@'))\n"
        f"sys.argv = ['camcli', *{list(words)!r}]\n"
        "from camcli.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {line[1:] for line in done.stdout.splitlines() if line.startswith("@")}


@pytest.mark.parametrize("words", [["--help"], ["explain", "--help"], ["methods"], ["--version"]])
def test_what_needs_no_model_brings_neither_torch_nor_timm(words: list[str]) -> None:
    loaded = modules_of(*words)
    assert "camcli.cli.explain" in loaded
    heavy = {"torch", "timm", "torchvision", "open_clip", "cv2", "numpy", "PIL", "huggingface_hub"}
    assert loaded & heavy == set()


# Ctrl-C is heard, even where the tests themselves were started by a shell that ignores it in the background.
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from camcli.cli import main; main()"


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_says_so_and_what_was_done_stays(
    paint: Paint, tiny_file: Path, sign: signal.Signals, code: int
) -> None:
    for number in range(60):
        paint(f"in/{number}.png", (200, number, 0))
    words = ["explain", "in", "--model", f"{tiny_file}:slow", "--out", "out", "--json", "-b", "1"]
    command = [sys.executable, "-c", HEARING]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(sign)
        sent = time.monotonic()
        process.stdout.read()
        said = process.stderr.read().decode()
    assert process.returncode == code, said
    assert time.monotonic() - sent < 5
    assert said.index("stopping: what is being read and written is finished first") < said.index(
        "interrupted; what was"
    )
    assert "interrupted; what was done stays" in said
    assert "Traceback" not in said
    done = [row["name"] for row in ledger()]
    assert done[0] == first["name"] == "in/0.png"
    assert 0 < len(done) < 60
    # Of those that were being written when it struck, some may lie there whole without a line; they are done again.
    assert {f"{name}.overlay.jpg" for name in done} <= set(files())
    assert not list(Path("out").rglob("*.tmp"))
    # The same command again goes on from there.
    again = explain(f"{tiny_file}:make", "in")  # another job: its function is another
    assert again.exit_code == 2
    more = do("explain", *words[1:], "-b", "60")
    assert more.exit_code == 0, more.stderr
    assert f"{60 - len(done)} done, {len(done)} done before" in more.stderr
    assert len(files()) == len(ledger()) == 60


# A picture that is never written to its end.
HANGING = HEARING.replace(
    "from camcli.cli",
    "import threading; from camcli.runs.explain import writer; "
    "writer.write_files = lambda *given: threading.Event().wait(); "
    "from camcli.cli",
)


def test_a_second_interrupt_ends_it_at_once(paint: Paint, tiny: str) -> None:
    for number in range(8):
        paint(f"in/{number}.png", (200, number, 0))
    words = ["explain", "in", "--model", tiny, "--out", "out", "--batch-size", "1", "--layer", "stem"]
    with subprocess.Popen([sys.executable, "-c", HANGING, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "target:" not in said:
            said += process.stderr.readline()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        while "stopping: what is being read and written" not in said:
            said += process.stderr.readline()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)  # it is stopping already
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_ends_it_quietly(paint: Paint, tiny_file: Path, command: list[str]) -> None:
    for number in range(60):
        paint(f"in/{number}.png", (200, number, 0))
    words = ["explain", "in", "--model", f"{tiny_file}:slow", "--out", "out", "--json", "-b", "1", "-q"]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()  # as head -1 does
        said = process.stderr.read()
    assert process.returncode == 141
    assert said == b""
    assert 0 < len(ledger()) < 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_standard_output_that_is_full_is_said_in_a_line(paint: Paint, tiny: str, command: list[str]) -> None:
    paint("a.png")
    words = ["explain", "a.png", "--model", tiny, "--out", "out", "--json", "-q"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*command, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: standard output cannot be written to: No space left on device"]


def test_streams_that_are_closed_end_nothing(paint: Paint, tiny: str, command: list[str]) -> None:
    paint("a.png")
    words = shlex.join([*command, "explain", "a.png", "--model", tiny, "--out", "out"])
    assert subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], check=False).returncode == 0
    assert len(ledger()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_streams_that_cannot_say_every_name_write_escapes(
    paint: Paint, tiny: str, command: list[str], encoding: str
) -> None:
    paint("kätzchen 猫.png")
    settings = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    ranked = ["channels", tiny, "kätzchen 猫.png", "--top", "1", "--out", "ranked"]
    mapped = ["explain", "kätzchen 猫.png", "--model", tiny, "--out", "out", "-v"]
    for words in (ranked, mapped, ["methods"], ["models", "--cached"], ["layers", tiny], ["explain", "--help"]):
        done = subprocess.run([*command, *words], capture_output=True, env=settings, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        if words is ranked:
            assert b"\\u732b.png" in done.stdout


def test_python_m_camcli_reads_stdin(paint: Paint, tiny: str, command: list[str]) -> None:
    paint("a b.png")
    done = subprocess.run(
        [*command, "explain", "-", "-0", "--model", tiny, "--json", "--out", "out"],
        input=b"a b.png\0",
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        check=True,
    )
    assert json.loads(done.stdout)["source"] == "a b.png"


def test_a_dead_layer_ends_layers_and_explain_alike(here: Path, paint: Paint) -> None:
    paint("cat.png")
    asked = ["--model", "timm:test_vit", "--weights", "random", "--layer", "blocks.-1", "cat.png"]
    for words in (["layers", "timm:test_vit", "blocks.-1"], ["explain", *asked]):
        result = do(*words)
        assert result.exit_code == 2
        assert "is given only the prefix tokens of 'norm'" in result.stderr
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
        (("--layout", "nchw"), "without the layer it is meant for"),
        (("--layer", "blocks.-1.norm1", "--call", "2"), "has no run 2: it runs once"),
    ):
        result = do(*asked, *words, "--overwrite")
        assert result.exit_code == 2
        assert said in result.stderr


# ---- options of methods, and what is done around them


def smooth(images, score_of, *, samples: int = 4, sigma: float = 0.5, mean: bool = True, way: Literal["a", "b"] = "a"):
    """Means over noisy pictures (Nobody 2026, eq. 1).

    Use: in tests.
    Not for: anything else.

    Args:
        samples: how many
            are drawn.
        sigma: of the noise, in units of the input.
        way: one of two.
    """
    return samples * sigma * images.mean(1).double() + (1 if way == "a" else 2) + mean


def test_a_method_is_told_with_its_options_whatever_the_terminal(bring: Bring, monkeypatch) -> None:
    bring(smooth, cost="4 forwards")
    tables = []
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        tables.append(do("methods", "smooth").stdout)
    assert tables[0] == tables[1]
    assert tables[0].splitlines() == [
        "smooth\tinput\t4 forwards\tbrought in by a test\t",
        "",
        "Means over noisy pictures (Nobody 2026, eq. 1).",
        "",
        "Use: in tests.",
        "Not for: anything else.",
        "",
        "Options, by -o name=value:",
        "samples\ta whole number\t4\thow many are drawn.",
        "sigma\ta number\t0.5\tof the noise, in units of the input.",
        "mean\ttrue or false\ttrue\t",
        "way\ta, b\ta\tone of two.",
    ]
    # A product tells of its parts.
    told = do("methods", "guided-gradcam").stdout
    assert "Springenberg 2015, fig. 1" in told
    assert "Selvaraju 2017, eq. 1 and 2" in told


def test_listing_the_methods_needs_no_torch() -> None:
    assert "torch" not in modules_of("methods")


def test_options_change_the_map_the_fingerprint_and_run_json(bring: Bring, paint: Paint, tiny: str) -> None:
    bring(smooth)
    paint("a.png", RED)
    words = ("explain", "-m", tiny, "a.png", "--method", "smooth", "--save", "array")
    assert do(*words, "--out", "one").exit_code == 0
    result = do(*words, "--out", "two", "-o", "samples=8", "-o", "smooth.sigma=2", "--option", "way=b", "-o", "mean=no")
    assert result.exit_code == 0, result.stderr
    one, two = (np.load(f"{out}/a.png.npy") for out in ("one", "two"))
    np.testing.assert_allclose(two - 2, (one - 2) * 8, rtol=1e-6)
    assert facts("two")["methods"][0]["options"] == {"samples": 8, "sigma": 2.0, "mean": False, "way": "b"}
    assert facts("one")["fingerprint"] != facts("two")["fingerprint"]
    assert do("explain", "--config", "two/run.json", "--trust-config", "--out", "three").exit_code == 0
    np.testing.assert_array_equal(np.load("three/a.png.npy"), two)
    again = camcli.explain(
        "a.png", model=tiny, method="smooth", options={"samples": 8, "sigma": 2.0, "mean": False, "way": "b"}
    )
    np.testing.assert_array_equal(next(iter(again)).map, two)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["-o", "sample=8"], "smooth has no option 'sample'", "did you mean 'samples'?"),
        (["-o", "x=8"], "smooth has no option 'x'", "there are: mean, samples, sigma, way"),
        (["-o", "samples=a few"], "smooth: samples cannot be 'a few'", "a whole number"),
        (["-o", "samples=1.5"], "smooth: samples cannot be '1.5'", "a whole number"),
        (["-o", "sigma=nan"], "smooth: sigma cannot be 'nan'", "finite"),
        (["-o", "mean=perhaps"], "smooth: mean cannot be 'perhaps'", "true or false"),
        (["-o", "way=c"], "smooth: way cannot be 'c'", "there are: a, b"),
        (["-o", "gradcam.samples=8"], "the method 'gradcam', which is not asked for", "asked for: smooth"),
        (["-o", "maps"], "the option 'maps' is not name=value", "--out"),
        (["-o", "=3"], "the option '=3' is not name=value", ""),
        (["--method", "gradcam", "-o", "samples=8"], "gradcam has no option 'samples'", "there are none"),
        (
            ["--fuse", "max", "--method", "gradcam"],
            "several layers are fused, but there is one: body",
            "--layer layer3",
        ),
        (["--fuse", "max"], "the maps of several layers can be fused", ""),
        (
            ["--fuse", "paper", "--method", "gradcam", "-l", "stem", "-l", "body"],
            "does not say how maps",
            "--fuse mean",
        ),
        (["--scales", "0.5,x"], "scales cannot be '0.5,x'", "0.75,1,1.25"),
        (["--augment", "turn"], "augment cannot be 'turn'", "flip, flip-vertical"),
        (["--eigen-smooth"], "not made of activation and gradient alone", "gradcam or hirescam"),
    ],
)
def test_what_cannot_be_asked_of_a_method_is_refused_before_the_first_picture(
    bring: Bring, paint: Paint, tiny: str, words: list[str], message: str, hint: str
) -> None:
    bring(smooth)
    paint("a.png", RED)
    method = [] if "--method" in words else ["--method", "smooth"]
    result = do("explain", "-m", tiny, "a.png", "--out", "out", *method, *words)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2
    assert message in said
    assert hint in said
    assert not Path("out").exists() or not files()


def test_several_methods_have_files_of_their_own(bring: Bring, paint: Paint, tiny: str) -> None:
    bring(smooth)
    paint("a.png", RED, box=(0, 0, 16, 16))
    words = ("explain", "-m", tiny, "a.png", "--out", "out", "--save", "array")
    assert do(*words, "--method", "gradcam,hirescam", "--method", "smooth", "-o", "samples=2").exit_code == 0
    assert files() == ["a.png.gradcam.npy", "a.png.hirescam.npy", "a.png.smooth.npy"]
    assert [(row["method"], row["layer"], row["part"]) for row in ledger()] == [
        ("gradcam", "body", "1/3"),
        ("hirescam", "body", "2/3"),
        ("smooth", "", "3/3"),
    ]
    Path("job.toml").write_text('method = "hirescam, gradcam"\nlayers = ["stem", "body"]\nfuse = "mean"\n')
    result = do(*words[:4], "--config", "job.toml", "--out", "two", "--save", "array")
    assert result.exit_code == 0, result.stderr
    assert files("two") == ["a.png.gradcam.npy", "a.png.hirescam.npy"]
    assert {row["layer"] for row in ledger("two")} == {"stem+body"}
    assert "methods: hirescam, gradcam at stem, body" in result.stderr
