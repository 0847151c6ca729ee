"""``camcli methods``, ``layers`` and ``models``: what they list, and that they need no library for it."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import do

import camcli
from camcli.methods import METHODS


def test_version_and_help() -> None:
    assert do("--version").stdout == f"camcli {camcli.__version__}\n"
    commands = ("explain", "channels", "prompts", "layers", "methods", "models")
    for words in (["--help"], ["-h"], *([command, "-h"] for command in commands)):
        result = do(*words)
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
        # `:top:` and the like are images to Rich.
        assert max(result.stdout) < "\U0001f000"
    assert "channels:top:5" in do("explain", "-h", COLUMNS="300").stdout


def test_methods_are_listed_with_their_papers() -> None:
    rows = [line.split("\t") for line in do("methods").stdout.splitlines()]
    assert [row[0] for row in rows] == METHODS.names()
    assert all(len(row) == 5 and all(row) for row in rows)
    assert [(row[0], row[1], row[2]) for row in rows[:3]] == [
        ("gradcam", "layer", "1 forward, 1 backward to the layer"),
        ("hirescam", "layer", "1 forward, 1 backward to the layer"),
        ("odam", "layer", "1 forward, 1 backward to the layer for each box"),
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


def test_listing_the_methods_needs_no_torch() -> None:
    assert "torch" not in modules_of("methods")
