"""``--backward``: recorded, part of what a job is, and refused where it means nothing."""

from pathlib import Path

import numpy as np
import pytest
from commands import do
from readback import facts
from shared import RED, Paint

import camcli

RESNET = ("--model", "timm:test_resnet", "--weights", "random")
VIT = ("--model", "timm:test_vit", "--weights", "random", "--method", "hirescam", "--save", "array")


def test_rules_are_recorded_and_make_another_job(paint: Paint, tmp_path: Path) -> None:
    picture, out = str(paint("red.png", RED)), str(tmp_path / "maps")
    assert do("explain", picture, *VIT, "--backward", "libra", "-O", out).exit_code == 0
    told = facts(out)
    assert told["job"]["backward"] == "libra"
    assert any(note.startswith("gradients follow the rules of libra: ") for note in told["notes"])
    again = do("explain", picture, *VIT, "-O", out)
    assert again.exit_code == 2
    assert "backward was 'libra', is 'plain'" in again.output


def test_python_has_the_same_rules(paint: Paint) -> None:
    network = camcli.load("timm:test_vit", weights="random")
    picture, rules = paint("red.png", RED), ("plain", "libra", "attnlrp")
    maps = [next(iter(camcli.explain(picture, model=network, method="hirescam", backward=one))).map for one in rules]
    assert not np.allclose(maps[0], maps[1], rtol=1e-2)
    assert not np.allclose(maps[1], maps[2], rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--backward", "libra"), "changes nothing"),
        (("--backward", "libra", "--method", "eigencam"), "takes no gradient"),
        (("--backward", "librra"), "did you mean 'libra'?"),
    ],
)
def test_what_means_nothing_is_refused(paint: Paint, tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    refused = do("explain", str(paint("red.png", RED)), *RESNET, *options, "-O", str(tmp_path / "maps"))
    assert refused.exit_code == 2
    assert reason in refused.output
    assert not (tmp_path / "maps").exists()


def test_rules_asked_for_as_a_method_are_named() -> None:
    assert "input-x-gradient --backward attnlrp" in do("methods", "AttnLRP").output
