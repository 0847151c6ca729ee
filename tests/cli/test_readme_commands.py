"""The commands of the README's block "Use it", one after another in one folder, each on a network that is at hand."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from films import film
from hf_models import save_vit
from PIL import Image
from shared import ROOT
from typer.testing import CliRunner

from camcli.cli import app

# Stand-ins for networks and devices that a test has not: small, with random weights, or the stand-in for CLIP.
RANDOM = "--weights random"
STAND_INS = (
    (r"(-m |--model |channels )resnet50( --weights mine\S+ --labels \S+)", r"\1timm:test_resnet\2"),
    (r"(-m |--model )resnet50", rf"\1timm:test_resnet {RANDOM}"),
    (r"channels resnet50", f"channels timm:test_resnet {RANDOM}"),
    (r"vit_large_patch16_224|vit_small_patch14_dinov2", f"timm:test_vit {RANDOM}"),
    (r"torchvision:deeplabv3_resnet50 -t dog", f"torchvision:lraspp_mobilenet_v3_large {RANDOM} --size 64"),
    (
        r"torchvision:fasterrcnn_resnet50_fpn",
        f"torchvision:ssdlite320_mobilenet_v3_large {RANDOM} --min-score 0 -t box:1 --method hirescam",
    ),
    (r"channel:1337", "channel:37"),
    (r"cuda:0,cuda:1", "cpu"),
    (r" \| jq .*", ""),
)
# Whether PyAV, which is an extra, is installed.
WITH_VIDEO = importlib.util.find_spec("av") is not None
# Whether transformers, which is another, is installed.
WITH_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
MY_MODEL = "def make():\n    import tiny\n\n    return tiny.make()\n"
MY_WRAPPER = '''
from torch import nn


class Frames(nn.Module):
    """The mean of a group's scores, for each of its images."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        scores = self.model(images)
        return scores.mean(0, keepdim=True).expand(len(scores), -1)
'''


def read_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## Use it\n+```sh\n(.*?)```", text, re.DOTALL)
    assert block
    return [line.partition(" #")[0].strip() for line in block[1].splitlines() if line.strip()]


@pytest.fixture
def project(here: Path, sample_images: Path, tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the README's commands speak of."""
    with Image.open(sample_images / "chelsea.png") as cat, Image.open(sample_images / "coffee.png") as cup:
        for name, image in {
            "photos/cat.jpg": cat,
            "photos/cup.jpg": cup,
            "cup.jpg": cup,
            "val/tabby/cat.jpg": cat,
        }.items():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").resize((96, 64)).save(here / name)
        pages = [cat.convert("RGB").resize((64, 64)), cup.convert("RGB").resize((64, 64))]
        pages[0].save(here / "scan.tif", save_all=True, append_images=pages[1:])
    (here / "frames").mkdir()
    (here / "xrays").mkdir()
    for number in range(8):
        Image.new("RGB", (32, 32), (30 * number, 90, 40)).save(here / f"frames/{number}.png")
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) % 4096).astype(np.uint16)).save(here / "xrays/a.png")
    (here / "classes.txt").write_text("a cat\na cup\n")
    (here / "names.txt").write_text("".join(f"class {number}\n" for number in range(1000)))
    (here / "ages.csv").write_text("image,age\nphotos/cat.jpg,3\nphotos/cup.jpg,5\n")
    (here / "tiny.py").write_text(tiny_file.read_text())
    (here / "my_model.py").write_text(MY_MODEL)
    (here / "my_wrapper.py").write_text(MY_WRAPPER)
    film("clip.mp4") if WITH_VIDEO else (here / "clip.mp4").touch()
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=1000).state_dict(), here / "mine.safetensors.pth")
    if WITH_TRANSFORMERS:
        save_vit(here / "my-finetuned-dir")
    return here


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_the_readmes_commands_work_one_after_another_in_one_folder(standin: str) -> None:
    commands = read_commands()
    assert len(commands) > 20
    found: dict[str, str] = {}
    for command in commands:
        line = command.replace("open_clip:ViT-B-32/laion2b_s34b_b79k", standin).replace(
            "mine.safetensors", "mine.safetensors.pth"
        )
        for pattern, stand_in in STAND_INS:
            line = re.sub(pattern, stand_in, line)
        stdin = None
        if line.startswith("find "):
            line, stdin = line.partition(" | ")[2], "photos/cat.jpg\0photos/cup.jpg\0"
        program, *words = shlex.split(line)
        assert program == "camcli"
        result = CliRunner().invoke(app, words, input=stdin)
        if words[0] == "show":  # it is for a terminal, which this is not
            assert (result.exit_code, "images are shown in a terminal" in result.stderr) == (2, True)
            continue
        if "--every" in words and not WITH_VIDEO:
            assert (result.exit_code, "pip install 'camcli-vision[video]'" in result.stderr) == (2, True)
            continue
        if any(word.startswith("hf:") for word in words) and not WITH_TRANSFORMERS:
            assert (result.exit_code, "there is no folder './my-finetuned-dir'" in result.stderr) == (2, True)
            continue
        assert result.exit_code == 0, f"{line}\n{result.stderr}"
        found[command] = line
    folders = [path for path in Path("camcli-out").iterdir() if path.is_dir() and not path.is_symlink()]
    # The same line again finds its folder, and has nothing to do.
    again = CliRunner().invoke(app, shlex.split(found[commands[0]])[1:])
    assert "0 done, 2 done before" in again.stderr
    assert not [
        path for path in Path("camcli-out").iterdir() if path.is_dir() and not path.is_symlink() and path not in folders
    ]
