"""Cached models, and what networks of several sources are compared by."""

from pathlib import Path

import torch
from PIL import Image
from shared import ROOT
from torch import nn

SAMPLES = ROOT / "sample_images"
BUNDLED = "bundled:efficientnet-lite0"


def in_hub_cache(tmp_path: Path, repository: str) -> Path:
    """A folder that the hub's library takes for the newest commit of this repository."""
    place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee")
    (place / "snapshots" / "c0ffee").mkdir(parents=True)
    return place / "snapshots" / "c0ffee"


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def in_the_papers_names(convnext: nn.Module) -> dict[str, torch.Tensor]:
    """A ConvNeXt's weights as the code of its paper names the head."""

    def renamed(name: str) -> str:
        return name.replace("head.fc.", "head.").replace("head.norm.", "norm.")

    return {renamed(name): value for name, value in convnext.state_dict().items()}


def upright(name: str) -> Image.Image:
    return Image.open(SAMPLES / name).convert("RGB")
