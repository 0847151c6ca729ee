"""A folder of images to Grad-CAM overlays by hand, as somebody who knows PyTorch writes it: what camcli must beat.

    python benchmarks/hand_written.py MODEL LAYER FOLDER OUT [--batch 16] [--workers N]

torch, timm and OpenCV, no library for heatmaps: batch norms folded, channels last, no gradient before the layer, a
DataLoader with a process for each core, batches, and threads that draw and write while the network runs.
"""

import argparse
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
WAITING = 64


def fold(module: nn.Module) -> nn.Module:
    """Every batch norm that follows a convolution into it, in place."""
    for part in module.modules():
        for (one, conv), (other, norm) in pairwise(list(part.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, one, fuse_conv_bn_eval(conv, norm))
                # timm's norms have the activation in them.
                setattr(part, other, getattr(norm, "act", nn.Identity()))
    return module


def grid(tokens: Tensor) -> Tensor:
    """Tokens behind a class token as ``(n, c, h, w)``."""
    if tokens.ndim == 4:
        return tokens
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def grad_cam(module: nn.Module, layer: str) -> Callable[..., Tensor]:
    """From images, and a class or the predicted ones, to maps ``(n, h, w)`` at the layer between 0 and 1."""
    module = fold(module.eval()).requires_grad_(False).to(memory_format=torch.channels_last)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        kept[:] = [output.detach().requires_grad_()]
        return kept[0].clone()  # what comes next may work in place

    module.get_submodule(layer).register_forward_hook(keep)

    def explain(images: Tensor, index: int | None = None) -> Tensor:
        logits = module(images.contiguous(memory_format=torch.channels_last))
        chosen = logits.amax(1) if index is None else logits[:, index]
        [gradient] = torch.autograd.grad(chosen.sum(), kept)
        activations, gradient = grid(kept[0].detach()), grid(gradient)
        maps = (gradient.mean((2, 3), keepdim=True) * activations).sum(1).relu()
        return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)

    return explain


class Pictures(Dataset):
    """The images of a folder: name, input, pixels."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[str, np.ndarray, np.ndarray]:
        pixels = cv2.imread(str(self.paths[number]))
        small = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)[:, :, ::-1]
        return self.paths[number].name, ((small / np.float32(255) - MEAN) / STD).transpose(2, 0, 1), pixels


def collate(items: list[tuple[str, np.ndarray, np.ndarray]]) -> tuple[list[str], Tensor, list[Tensor]]:
    """A batch; pixels as tensors, which processes share without a copy."""
    names, inputs, pixels = zip(*items, strict=True)
    return list(names), torch.from_numpy(np.stack(inputs)), [torch.from_numpy(one) for one in pixels]


def draw(path: Path, pixels: Tensor, grey: np.ndarray) -> None:
    """An overlay as JPEG."""
    image = pixels.numpy()
    heat = cv2.resize(np.uint8(255 * grey), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(path), cv2.addWeighted(image, 0.5, cv2.applyColorMap(heat, cv2.COLORMAP_JET), 0.5, 0))


def main() -> None:
    """Explain a folder."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "layer", "folder", "out"):
        parser.add_argument(name)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=cores, help="processes that decode")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    explain = grad_cam(timm.create_model(asked.model).to(asked.device), asked.layer)
    out = Path(asked.out)
    out.mkdir()
    loader = DataLoader(
        Pictures(Path(asked.folder)),
        asked.batch,
        num_workers=asked.workers,
        collate_fn=collate,
        pin_memory=asked.device != "cpu",
    )
    writing: list[Future[None]] = []
    with ThreadPoolExecutor(cores) as pool:
        for names, inputs, pixels in loader:
            maps = explain(inputs.to(asked.device, non_blocking=True)).cpu().numpy()
            writing += [
                pool.submit(draw, out / name, own, grey) for name, own, grey in zip(names, pixels, maps, strict=True)
            ]
            while len(writing) > WAITING:
                writing.pop(0).result()
        for one in writing:
            one.result()


if __name__ == "__main__":
    main()
