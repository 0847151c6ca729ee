"""Every command of docs/compare.md, one after another in one folder, on a small network of colour."""

import re
import shlex
from pathlib import Path

import torch
from commands import do
from compare_runs import write_gradients
from shared import BLUE, RED, ROOT, Paint

# What the page says of a network that people have, in words of the small one.
STAND_INS = {"layer3,layer4": "stem,body", "cat": "red", "dog": "blue", "scorecam": "xgradcam"}


def test_the_commands_of_the_page_work(tiny_file: Path, paint: Paint) -> None:
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    models = {"resnet50": f"{tiny_file}:make", "resnet18": f"{tiny_file}:moody"}
    write_gradients("photos/cat.jpg")
    paint("photos/dog.png", RED, box=(8, 8, 20, 24), ground=BLUE)
    stem, body = 0.5 * torch.eye(3).reshape(3, 3, 1, 1), torch.full((3, 1, 2, 2), 0.25)
    torch.save({"stem.weight": stem, "body.weight": body}, "mine.pth")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("camcli ")]
    assert len(commands) == 9
    for command in commands:
        words = [models.get(word, STAND_INS.get(word, word)) for word in shlex.split(command)[1:]]
        words = [word.replace("scorecam", "xgradcam") for word in words]
        result = do(*words, "--device", "cpu", CAMCLI_MODEL=models["resnet50"])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert {path.name for path in Path("figure").iterdir()} >= {
        f"compare.{kind}" for kind in ("png", "svg", "pdf", "html")
    }
