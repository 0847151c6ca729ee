"""Mistakes that people make at the shell, and what each is answered: what was given, what exists, what to do."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import TINY
from typer.testing import CliRunner

from camcli.base import cache
from camcli.cli import app
from camcli.models import names_cache

# What libraries say, and camcli does not.
INTERNALS = ("Traceback", "Invalid value for", "Input should be", "Value error", "Usage:", "pydantic", "╭", "unpickl")
NAMES = ("timm:resnet50.a1_in1k", "timm:resnet18.a1_in1k", "torchvision:resnet50", "open_clip:ViT-B-32/openai")


@dataclass(frozen=True)
class Mistake:
    """A command line, and the words of its answer."""

    line: str
    says: tuple[str, ...]
    code: int = 2
    early: bool = True  # it is answered before PyTorch is imported

    def __str__(self) -> str:
        return self.line


def at_once(line: str, *says: str, code: int = 2) -> Mistake:
    return Mistake(line, says, code)


def later(line: str, *says: str, code: int = 2) -> Mistake:
    return Mistake(line, says, code, early=False)


MODELS = [
    at_once("explain -m resnt50 a.png", "no model 'resnt50'", "did you mean timm:resnet50", "camcli models"),
    at_once("explain -m timm:resnt50 a.png", "timm has no model 'resnt50'", "did you mean timm:resnet50"),
    at_once("explain -m gradcam a.png", "no model 'gradcam'", "that is a method: --method gradcam"),
    at_once("explain -m ResNet50 a.png", "no model 'ResNet50'", "did you mean timm:resnet50"),
    at_once("explain -m 'resnet 50' a.png", "no model 'resnet 50'", "did you mean timm:resnet50"),
    at_once("explain -m '' a.png", "the model's name is empty", "name a network: -m resnet50"),
    at_once("explain -m timm: a.png", "'timm:' names a source and no model", "timm:NAME"),
    at_once("explain -m resnet50.pth a.png", "is a weights file", "-m resnet50 --weights", "there is no such file"),
    at_once("explain -m model.onnx a.png", "nothing says how images are prepared", "--preprocess imagenet"),
    at_once("explain -m gone.onnx a.png --preprocess 0..1", "there is no file 'gone.onnx'"),
    at_once("explain -m model.onnx a.png --preprocess imagnet", "cannot be 'imagnet'", "did you mean 'imagenet'"),
    at_once("explain -m yolov8n a.png", "no model 'yolov8n'", "ultralytics:FILE", "-m my_model.py:make"),
    at_once("explain -m yolov8n.pt a.png", "is a weights file", "libreyolo:FILE"),
    at_once("explain -m ./hub a.png", "is a folder", "-m local-dir:hub"),
    at_once("explain -m hub a.png", "is a folder", "-m local-dir:hub"),
    at_once("explain -m nothing/ a.png", "no model 'nothing/'"),
    at_once(
        "explain -m https://huggingface.co/timm/resnet50.a1_in1k a.png", "is an address", "hf-hub:timm/resnet50.a1"
    ),
    at_once("explain -m https://a.org/r50.pth a.png", "is an address", "--weights r50.pth"),
    at_once("explain -m https://a.org/ a.png", "is an address", "-m resnet50"),
    at_once("explain -m facebook/dino a.png", "no model 'facebook/dino'", "-m hf-hub:facebook/dino"),
    at_once("explain -m clip:ViT-B/32 a.png", "no source of models 'clip'", "-m open_clip:ViT-B-32/openai"),
    at_once("explain -m ViT-L/14@336px a.png", "-m open_clip:ViT-L-14-336/openai"),
    at_once("explain -m pytorch/vision:resnet50 a.png", "a name of torch.hub", "camcli models '*resnet50*'"),
    at_once("explain -m openclip:ViT-B-32 a.png", "begins with 'openclip'", "did you mean 'open_clip'?"),
    at_once("explain -m tiny.py a.png", "does not name the function", "make", "tiny.py:function"),
    at_once("explain -m tiny.py: a.png", "does not name the function"),
    at_once("explain -m gone.py a.png", "does not name the function", "there is no such file", "gone.py:function"),
    later("explain -m gone.py:make a.png", "there is no file 'gone.py'", "path/to/file.py:function"),
    later("explain -m tiny.py:mkae a.png", "'tiny.py' has no function 'mkae'", "did you mean 'make'?"),
    later("explain -m broken.py:make a.png", "importing 'broken.py' failed: SyntaxError"),
    later("explain -m lacking.py:make a.png", "No module named 'nosuchlib'"),
    later("explain -m odd.py:nothing a.png", "returned a NoneType", "it returns one of"),
    later("explain -m odd.py:fails a.png", "failed: ValueError: no luck"),
    later("explain -m odd.py:takes a.png", "missing 1 required positional argument"),
    at_once("layers resnt18", "no model 'resnt18'", "did you mean timm:resnet18"),
    at_once("explain -m tiny.py:make --weights gone.pth a.png", "there is no file 'gone.pth'", "--weights"),
    later("explain -m tiny.py:make --weights a.png a.png", "is an image (PNG)"),
    later("explain -m tiny.py:make --weights whole.pt a.png", "is refused", "run"),
]

METHODS = [
    at_once("explain --method gradacm a.png", "no method 'gradacm'", "did you mean 'gradcam'", "camcli methods"),
    at_once("explain --method gradcam,layrcam a.png", "no method 'layrcam'", "'layercam'"),
    at_once("explain --method lime a.png", "no method 'lime'", "nearest to it: occlusion or rise"),
    at_once("explain --method KernelSHAP a.png", "nearest to it: occlusion or rise"),
    at_once("explain --method DeepLift a.png", "nearest to it: integrated-gradients"),
    at_once("explain --method , a.png", "no method is named"),
    at_once("explain --method gradcam -o sample=3 a.png", "gradcam has no option 'sample'", "there are none"),
    at_once("explain --method SmoothGrad -o sampels=3 a.png", "has no option 'sampels'", "did you mean 'samples'?"),
    at_once("explain --method smoothgrad -o samples a.png", "is not name=value"),
    at_once("explain --method rise -o lime.samples=3 a.png", "is for the method 'lime', which this run does not use"),
    later("explain -m tiny.py:make --method smoothgrad -o samples=many a.png", "samples cannot be 'many'"),
    at_once("methods gradacm", "did you mean 'gradcam'"),
]

TARGETS = [
    later("explain -m tiny.py:make -t grene a.png", "there is no class 'grene'", "green"),
    later("explain -m tiny.py:make -t 1000 a.png", "there is no class 1000", "from 0 to 2"),
    later("explain -m tiny.py:make -t top5 a.png", "there is no class 'top5'", "did you mean 'top:5'?"),
    later("explain -m tiny.py:make -t predictd a.png", "did you mean 'predicted'?"),
    later("explain -m tiny.py:make -t top:0 a.png", "is not a number of classes", "from 1 to 3"),
    at_once("explain --region gone.png a.png", "there is no file 'gone.png'", "--region"),
    at_once("explain --targets gone.csv a.png", "there is no file 'gone.csv'", "--targets"),
    at_once("explain --boxes gone.csv a.png", "there is no file 'gone.csv', which --boxes names"),
    later("explain -m tiny.py:make --targets titles.csv a.png", "no class 'group'", "columns image and target"),
    later("explain -m tiny.py:make --targets wide.csv a.png", "line 2: 3 cells under 2 titles"),
    later("explain -m tiny.py:make --targets utf16.csv a.png", "not UTF-8", "it is UTF-16"),
    later("explain -m tiny.py:make --targets latin.csv a.png", "not UTF-8", "windows-1252"),
    later("explain -m tiny.py:make --targets a.png a.png", "not UTF-8", "no text at all"),
    later("explain -m tiny.py:make --targets empty.txt a.png", "lists nothing"),
    at_once("explain --labels gone.txt a.png", "there is no file 'gone.txt'", "--labels"),
    later("explain -m tiny.py:make --labels two.txt a.png", "has 2 names", "3 classes"),
    later("explain -m tiny.py:make --text 'a cat' a.png", "models with a text encoder", "open_clip"),
    at_once("explain --contrast cat a.png", "does not name two classes", "--contrast A,B"),
]

LAYERS = [
    later("explain -m tiny.py:make -l layer5 a.png", "the layer 'layer5' does not exist", "stem, body"),
    later("explain -m tiny.py:make -l Stem a.png", "did you mean 'stem'?"),
    later("explain -m tiny.py:make -l model.stem a.png", "did you mean 'stem'?"),
    later("explain -m tiny.py:make -l 'body[-9]' a.png", "has no submodules"),
    later("explain -m tiny.py:make -l 'lay*' a.png", "'lay*' does not exist", "stem, body"),
    later("explain -m tiny.py:make -l '' a.png", "layer path '' cannot be parsed"),
    later("layers tiny.py:make bdy", "did you mean 'body'?"),
]

IMAGES = [
    at_once("explain", "no images were named", "@list.txt"),
    at_once("explain gone.png", "there is no file or folder 'gone.png'"),
    at_once("explain b.png", "there is no file or folder 'b.png'", "did you mean 'a.png'"),
    at_once("explain gone/", "there is no file or folder 'gone/'"),
    at_once("explain '*.jpeg'", "nothing matches '*.jpeg'"),
    at_once("explain @gone.txt", "there is no list 'gone.txt'"),
    at_once("explain @a.png", "holds an image", "named without @"),
    at_once("explain ftp://a.org/a.png", "addresses of ftp:// are not read", "https://"),
    at_once("explain whole.pt", "is a weights file", "--weights whole.pt"),
    at_once("explain none", "in none", "1 .svg", "1 .mp4", "1 .nii.gz", "drawings", "--every 1s", code=3),
    later("explain -m tiny.py:make bad/empty.png", "the file is empty", code=1),
    later("explain -m tiny.py:make bad/text.jpg", "is not an image: text, which begins 'hello'", code=1),
    later("explain -m tiny.py:make bad/page.jpg", "is not an image: a web page", code=1),
    later("explain -m tiny.py:make bad/zeros.jpg", "nothing but zeros", code=1),
    later("explain -m tiny.py:make bad/cut.png", "damaged or cut short", code=1),
    later("explain -m tiny.py:make bad/a.pdf", ".pdf files are not read", "pdftoppm", code=1),
    later("explain -m tiny.py:make bad/a.npy", "an array of shape 4", "(height, width, bands)", code=1),
    later("explain -m tiny.py:make bad/a.dcm", "DICOM", code=1),
    at_once("explain a.png -O a.png", "--out a.png is a file, not a folder"),
]

OPTIONS = [
    at_once("explain a.png --save png", "no output format 'png'", "did you mean 'overlay-png'?"),
    at_once("sanity a.png --tests ''", "--tests names nothing", "leave it out"),
    at_once("evaluate a.png --metrics ,", "--metrics names nothing", "leave it out"),
    at_once("explain a.png --colormap rainbow", "no colour map 'rainbow'", "viridis"),
    at_once("explain a.png --colormap Viridis", "did you mean 'viridis'"),
    at_once("explain a.png --score loss", "no score 'loss'", "there are: logit"),
    at_once("explain a.png --alpha 2", "--alpha cannot be 2", "up to 1"),
    at_once("explain a.png --alpha half", "--alpha cannot be 'half'", "it is a number"),
    at_once("explain a.png --batch-size -1", "--batch-size cannot be -1", "from 0 on"),
    at_once("explain a.png --batch-size many", "--batch-size cannot be 'many'", "a whole number"),
    at_once("explain a.png --precision half", "--precision cannot be 'half'", "there are: fp32"),
    at_once("explain a.png --crop centre", "--crop cannot be 'centre'", "did you mean 'center'?"),
    at_once("explain a.png --normalize minmax", "--normalize cannot be 'minmax'", "image, range, run, none"),
    at_once("explain a.png --size abc", "size cannot be 'abc'", "256x384"),
    at_once("explain a.png --size 0", "size cannot be '0'"),
    at_once("explain a.png --augment hflip", "augment cannot be 'hflip'", "flip-vertical"),
    at_once("explain a.png --scales a,b", "scales cannot be 'a,b'", "0.75,1,1.25"),
    at_once("explain a.png --pages 0", "pages cannot be '0'", "2-5"),
    at_once("explain a.png --device tpu", "no device 'tpu'", "on the CPU (cpu)"),
    at_once("explain a.png --device cpuu", "did you mean 'cpu'?"),
    at_once("explain a.png --background nocolour", "'nocolour' is not a colour", "#ffffff"),
    at_once("explain a.png --root gone", "there is no folder 'gone'", "--root"),
    at_once("explain a.png --wrap tiny.py", "wrap cannot be 'tiny.py'", "file.py:Class"),
    at_once("explain a.png -c gone.toml", "'gone.toml' cannot be read"),
    at_once("explain a.png -c broken.toml", "'broken.toml' cannot be read", "write TOML"),
    at_once("explain a.png -c unknown.toml", "there is no option 'modle'", "did you mean 'model'?"),
    at_once("explain a.png -c wrong.toml", "batch_size must be an integer, not 'many'"),
    at_once("explain a.png -c nested.toml", "there is no option 'explain'", "it is a section"),
    at_once("explain a.png -c a.png", "is not UTF-8 text"),
]

USAGE = [
    at_once("a.png", "there is no command 'a.png'", "camcli explain a.png"),
    at_once("expain a.png", "there is no command 'expain'", "did you mean 'explain'?"),
    at_once("help", "say camcli --help"),
    at_once("--hepl", "camcli has no option --hepl", "did you mean '--help'?"),
    at_once("explain a.png --methods gradcam", "has no option --methods", "called --method", "explain --help"),
    at_once("explain a.png --output-dir x", "has no option --output-dir", "called --out"),
    at_once("explain a.png --class 3", "called --target"),
    at_once("explain a.png --samples 3", "-o samples=VALUE"),
    at_once("explain --image a.png", "images are named without a flag"),
    at_once("explain a.png --overwrit", "did you mean '--overwrite'?"),
    at_once("explain a.png --labels", "--labels is given without its value"),
    at_once("explain a.png -x", "has no option -x"),
    at_once("layers", "camcli layers needs MODEL", "usage: camcli layers [OPTIONS] MODEL"),
    at_once("layers a b c", "takes fewer arguments: c"),
    at_once("channels a.png", "camcli channels needs IMAGES"),
    at_once("prompts a.png", "camcli prompts needs --model"),
]

MISTAKES = [*MODELS, *METHODS, *TARGETS, *LAYERS, *IMAGES, *OPTIONS, *USAGE]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, a model, and all kinds of files that are neither."""
    folder = tmp_path_factory.mktemp("desk")
    from PIL import Image

    for name in ("bad", "none", "hub"):
        (folder / name).mkdir()
    Image.new("RGB", (32, 32), (250, 0, 0)).save(folder / "a.png")
    Image.effect_noise((64, 64), 50).save(folder / "bad/whole.png")
    whole = (folder / "bad/whole.png").read_bytes()
    torch.save(torch.nn.Conv2d(3, 3, 1), folder / "whole.pt")
    np.save(folder / "bad/a.npy", np.zeros(4, np.uint8))
    contents: dict[str, str | bytes] = {
        "tiny.py": TINY,
        "broken.py": "def make(:",
        "lacking.py": "import nosuchlib\n",
        "odd.py": "def nothing(): pass\ndef fails(): raise ValueError('no luck')\ndef takes(size): pass\n",
        "hub/config.json": "{}",
        "model.onnx": b"\x08\x07\x12\x07pytorch",
        "titles.csv": "name,group\na.png,red\n",
        "wide.csv": "image,target\na.png,red,crimson\n",
        "utf16.csv": "image,target\na.png,red\n".encode("utf-16"),
        "latin.csv": "image,target\nbée.png,red\n".encode("latin-1"),
        "empty.txt": "",
        "two.txt": "red\ngreen\n",
        "broken.toml": "model = \n",
        "unknown.toml": "modle = 'resnet50'\n",
        "wrong.toml": "batch_size = 'many'\n",
        "nested.toml": "[explain]\nmodel = 'resnet50'\n",
        "bad/empty.png": "",
        "bad/text.jpg": "hello",
        "bad/page.jpg": "<!DOCTYPE html><html></html>",
        "bad/zeros.jpg": bytes(3000),
        "bad/cut.png": whole[: len(whole) // 2],
        "bad/a.pdf": "%PDF-1.4",
        "bad/a.dcm": bytes(128) + b"DICM",
        **{f"none/{name}": "x" for name in ("a.svg", "b.mp4", "c.nii.gz", "d.psd", "e.cr2", "f.txt")},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture(scope="module", autouse=True)
def names_are_known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds names of models, as an earlier listing leaves it."""
    folder = tmp_path_factory.mktemp("cache") / "camcli"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "find_folder", lambda: folder)
        names_cache.write_names(NAMES)
        names_cache.write_unlisted({})
        yield folder


def test_there_are_as_many_as_were_counted() -> None:
    assert len({mistake.line for mistake in MISTAKES}) == len(MISTAKES) >= 94


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_answered(mistake: Mistake, desk: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    out = [] if "explain" not in mistake.line or " -O" in mistake.line else ["-O", str(here / "out")]
    command, *words = shlex.split(mistake.line)
    result = CliRunner().invoke(app, [command, *out, *words])
    assert result.exit_code == mistake.code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for words in mistake.says:
        assert words in result.stderr
    assert not [words for words in INTERNALS if words in result.output]
    assert result.stderr.splitlines()[-1].strip()


WITHOUT_TORCH = """
import json, os, shlex, sys
from typer.testing import CliRunner
from camcli.cli import app

for line in json.loads(sys.stdin.read()):
    result = CliRunner().invoke(app, shlex.split(line))
    if "torch" in sys.modules:
        sys.exit(f"{line} imported torch: {result.output}")
"""


def test_typos_are_answered_without_torch(desk: Path, names_are_known: Path) -> None:
    lines = json.dumps([mistake.line for mistake in MISTAKES if mistake.early])
    environment = {**os.environ, "XDG_CACHE_HOME": str(names_are_known.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input=lines,
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_image_bytes_are_no_names(desk: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    words = ["explain", "-m", "tiny.py:make", "-", "-O", str(here / "out")]
    result = CliRunner().invoke(app, words, input=Path("a.png").read_bytes())
    assert result.exit_code == 2
    assert "standard input holds an image" in result.stderr


def test_other_names_of_methods_are_the_same_job(desk: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    for name in ("GradCAMPlusPlus", "grad-cam_pp", "gradcam++"):  # the second and third find it done
        words = ["explain", "-m", "tiny.py:make", "a.png", "-O", str(here / "out"), "-l", "stem", "--method", name]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert ("1 done before" in result.stderr) == (name != "GradCAMPlusPlus")
    assert json.loads((here / "out/run.json").read_text())["job"]["method"] == "gradcam++"
