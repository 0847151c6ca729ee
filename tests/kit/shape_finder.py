"""A small detector that is trained in seconds on scenes composed here: discs and crosses on a grey ground."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from camcli import Labels, Network, OutputSpec, Preprocess

SIZE, STRIDES, NAMES = 64, (4, 8), ("disc", "cross")
Thing = tuple[int, int, int, int]  # class, centre x, centre y, half a side


def compose(things: list[Thing], seed: int = 0) -> Tensor:
    """An image ``(3, 64, 64)`` of these things, each of a colour of its own that says nothing of its class."""
    noise = torch.Generator().manual_seed(seed)
    image = 0.5 + 0.05 * torch.randn(3, SIZE, SIZE, generator=noise)
    ys, xs = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    for label, x, y, half in things:
        far = torch.stack([(xs - x).abs(), (ys - y).abs()])
        inside = (far.square().sum(0) < half**2) if label == 0 else (far.amin(0) < half / 3) & (far.amax(0) < half)
        colour = torch.rand(3, 1, generator=noise)
        image[:, inside] = colour + torch.where(colour > 0.5, 0.3, -0.3)
    return image


def scene(noise: torch.Generator, count: int) -> list[Thing]:
    """Things that do not touch."""
    things: list[Thing] = []
    while len(things) < count:
        label, half = (int(torch.randint(low, high, (1,), generator=noise)) for low, high in ((0, 2), (6, 11)))
        x, y = (int(torch.randint(half, SIZE - half + 1, (1,), generator=noise)) for _ in range(2))
        if all(max(abs(x - one[1]), abs(y - one[2])) > half + one[3] + 1 for one in things):
            things.append((label, x, y, half))
    return things


class ShapeFinder(nn.Module):
    """Two levels, of 16 x 16 and 8 x 8 cells; each cell has a logit for each class and the distances to four edges."""

    def __init__(self) -> None:
        super().__init__()

        def block(given: int, made: int, stride: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(given, made, 3, stride, 1), nn.ReLU())

        self.stem = nn.Sequential(block(3, 16, 2), block(16, 24, 2), block(24, 32, 1), block(32, 32, 1))
        self.deeper = nn.Sequential(block(32, 32, 2), block(32, 32, 1))
        self.neck = Neck(self.stem, self.deeper)
        self.head = nn.Sequential(block(32, 32, 1), nn.Conv2d(32, len(NAMES) + 4, 1))
        self.score_thresh = 0.05

    def rows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(n, k, classes)`` and boxes ``(n, k, 4)`` of all cells."""
        logits, boxes = [], []
        for level, stride in zip(self.neck(images), STRIDES, strict=True):
            said = self.head(level).permute(0, 2, 3, 1)
            centres = centres_of(said.shape[1], stride).to(said)
            reach = said[..., 2:].exp() * stride
            corners = torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], -1)
            logits.append(said[..., :2].flatten(1, 2) - 2)
            boxes.append(corners.flatten(1, 2))
        return torch.cat(logits, 1), torch.cat(boxes, 1)

    def forward(self, images: Tensor) -> list[dict]:
        found = []
        for logits, boxes in zip(*self.rows(images), strict=True):
            scores, labels = logits.sigmoid().max(1)
            fit = torch.nonzero(scores > self.score_thresh)[:, 0]
            kept = fit[nms(boxes[fit].detach().float(), scores[fit].detach().float(), 0.5)]
            candidates = {"boxes": boxes, "logits": logits, "kept": kept, "activation": "sigmoid"}
            one = {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept], "candidates": candidates}
            found.append(one)
        return found


class Neck(nn.Module):
    """The feature pyramid."""

    def __init__(self, stem: nn.Module, deeper: nn.Module) -> None:
        super().__init__()
        self.stem, self.deeper = stem, deeper

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stem(images)
        return fine, self.deeper(fine)


def centres_of(cells: int, stride: int) -> Tensor:
    """Centres x, y of a level's cells ``(rows, columns, 2)``."""
    along = (torch.arange(cells) + 0.5) * stride
    ys, xs = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([xs, ys], -1)


def ask_of(things: list[Thing]) -> tuple[Tensor, Tensor, Tensor]:
    """What each cell shall say: classes ``(k, 2)``, boxes ``(k, 4)``, and whether it has one: cells near a centre."""
    classes, boxes, held = [], [], []
    for number, stride in enumerate(STRIDES):
        centres = centres_of(SIZE // stride, stride).flatten(0, 1)
        own = torch.zeros(len(centres), 2), torch.zeros(len(centres), 4), torch.zeros(len(centres), dtype=torch.bool)
        for label, x, y, half in things:
            if (half >= 9) == bool(number):  # large things are of the coarse level
                near = (centres - torch.tensor([x, y])).abs().amax(1) <= stride * 0.75
                own[0][near, label] = 1
                own[1][near] = torch.tensor([x - half, y - half, x + half, y + half], dtype=torch.float)
                own[2][near] = True
        for some, one in zip((classes, boxes, held), own, strict=True):
            some.append(one)
    return torch.cat(classes), torch.cat(boxes), torch.cat(held)


def train(steps: int = 300, seed: int = 0) -> ShapeFinder:
    """A detector trained by focal loss and the edges' distances; a few seconds."""
    torch.manual_seed(seed)
    module, noise = ShapeFinder(), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), 8e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, steps)
    for step in range(steps):
        scenes = [scene(noise, 1 + (step + number) % 3) for number in range(12)]
        images = torch.stack([compose(one, seed=step * 12 + number + 1000) for number, one in enumerate(scenes)])
        classes, boxes, held = (torch.stack(part) for part in zip(*map(ask_of, scenes), strict=True))
        logits, corners = module.rows(images)
        plain = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
        focal = (plain * (classes - logits.sigmoid()).abs() ** 2).sum() / held.sum()
        loss = focal + 0.05 * (corners - boxes)[held].abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return module.eval()


@cache
def shape_finder(trained: bool = True) -> Network:
    """The detector as a network."""
    preprocess = Preprocess((SIZE, SIZE), (0.0,) * 3, (1.0,) * 3, (SIZE, SIZE), "squash", "bilinear")
    return Network(
        "tests:shapes",
        train() if trained else ShapeFinder().eval(),
        preprocess,
        Labels(NAMES),
        "pretrained",
        "trained by the tests",
        activation="sigmoid",
        output_spec=OutputSpec("detect", min_score=0.4),
    )
