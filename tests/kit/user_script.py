"""What a user writes, as a type checker sees it: test_user_script.py checks it with ``mypy --strict``."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import camcli


def explain_in_memory(module: nn.Module, image: Image.Image) -> Image.Image:
    preprocess = camcli.Preprocess(size=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return camcli.explain(image, model=module, preprocess=preprocess, labels=["cat", "dog"]).overlay(alpha=0.5)


def explain_files(folder: Path) -> list[str]:
    network: camcli.Network = camcli.load("bundled:efficientnet-lite0")
    names: list[str] = []
    for explanation in camcli.explain(folder, model=network, layer="bn2", target=["tabby", 281], batch_size=4):
        shape: tuple[int, ...] = explanation.map.shape
        written: Path = explanation.save(f"{explanation.index}.jpg", colormap="magma")
        names.append(f"{written}: {explanation.label} {shape} {explanation.probability}")
    return names


def explain_arrays(network: camcli.Network, pixels: np.ndarray) -> camcli.ImageExplanation:
    found = camcli.explain(
        [pixels, torch.zeros(3, 8, 8), b"", "a.jpg"], model=network, targets=[281, "tabby", [1, 2], 3]
    )
    first: list[camcli.ImageExplanation] = found[:2]
    return first[0]


def explain_batch(module: nn.Module, batch: torch.Tensor) -> list[list[camcli.Explanation]]:
    explainer = camcli.Explainer(module, layer=module.get_submodule("layer4"), method="hirescam")
    return explainer(batch, target=281) + explainer(batch, targets=[281, 285])


def write_maps() -> int:
    try:
        with camcli.Run(camcli.Job(inputs=("photos",), out="maps")) as run:
            return sum(len(outcomes) for outcomes in run)
    except camcli.RequestError as error:
        print(error.message, error.hint)
        return 0
