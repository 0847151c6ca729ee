"""Comparisons of the bundled model, with its real weights: half precision passes, a block drawn anew does not."""

from pathlib import Path

import pytest
import torch
from commands import do
from PIL import Image

import camcli

LIMITS = ("--min-similarity", "0.99", "--max-moved", "0.2", "--max-changed", "5%")


def run(photos: Path, out: str, *words: str) -> None:
    model = ("--model", "bundled:efficientnet-lite0")
    ran = do("explain", str(photos), *model, "--save", "array", "--out", out, "--limit", "4", "-q", *words)
    assert ran.exit_code == 0, ran.output


def draw_last_block_anew(file: str) -> None:
    """Write weights whose last block's convolutions are drawn anew, with the mean and spread that they had."""
    module = camcli.load("bundled:efficientnet-lite0").module
    torch.manual_seed(0)
    with torch.no_grad():
        for part in module.blocks[-1].modules():
            if isinstance(part, torch.nn.Conv2d):
                part.weight.normal_(float(part.weight.mean()), float(part.weight.std()))
    torch.save(module.state_dict(), file)


@pytest.mark.slow
def test_half_precision_keeps_the_limits_and_a_block_drawn_anew_breaks_them(here: Path, sample_images: Path) -> None:
    run(sample_images, "base")
    run(sample_images, "half", "--precision", "bf16")
    kept = do("diff", "base", "half", *LIMITS)
    assert kept.exit_code == 0, kept.output
    assert ["precision", "fp32", "bf16"] in [line.split() for line in kept.stdout.splitlines()]
    draw_last_block_anew("anew.pth")
    run(sample_images, "anew", "--weights", "anew.pth")
    broken = do("diff", "base", "anew", *LIMITS, "--sheet", "worst.png")
    assert broken.exit_code == 1, broken.output
    assert "broken: pearson >= 0.99: holds for 0 of 4" in broken.output
    with Image.open("worst.png") as sheet:
        assert sheet.height > 4 * 152
