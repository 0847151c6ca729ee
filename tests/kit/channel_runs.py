"""Models whose channels can be worked out by hand, and a job that ranks them."""

from camcli.runs.channels import ChannelJob
from camcli.runs.job.job import Job

MODELS = '''
"""Models whose layers can be worked out by hand."""

import torch
from torch import nn

from camcli import Labels, Preprocess

PREPARE = Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3, (16, 16), "squash", "nearest")
LABELS = Labels(("red", "green"))


class Tokens(nn.Module):
    """Patches of 4 x 4 as 16 tokens of their mean colour, less a half in red; a class token of thousands in front."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4)
        self.norm = nn.Identity()
        self.norm1 = nn.Linear(3, 3, bias=False)
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        tokens = self.pool(images).flatten(2).transpose(1, 2) - torch.tensor([0.5, 0.0, 0.0])
        tokens = torch.cat([torch.full_like(tokens[:, :1], 1000.0), tokens], 1)
        tokens = self.norm1(tokens)
        return self.head(tokens[:, 1:].mean(1))


def tokens():
    module = Tokens()
    with torch.no_grad():
        module.norm1.weight.copy_(torch.eye(3))
    return module, PREPARE, LABELS


class Holed(nn.Module):
    """The image as it is; where it is wholly green, NaN."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1, bias=False)
        self.holes = nn.Hardtanh(-10, 10)
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        cells = self.holes(self.stem(images) * torch.where(images[:, :1].sum((2, 3), keepdim=True) == 0, torch.nan, 1))
        return self.head(cells.mean((2, 3)))


def holed():
    module = Holed()
    with torch.no_grad():
        module.stem.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
    return module, PREPARE, LABELS


class Last(nn.Module):
    """What lies behind the layer counts how often it runs."""

    ran = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, images):
        images = self.layer(images)
        Last.ran += 1
        return images.mean((2, 3))


def last():
    return Last(), PREPARE, LABELS
'''


def contest(model: str, *inputs: str, channels: tuple[int, ...] = (), overwrite: bool = False, **options) -> ChannelJob:
    named = {name: options.pop(name) for name in ("layers", "batch_size", "workers") if name in options}
    job = Job(
        model=model,
        inputs=inputs,
        out="out",
        device="cpu",
        method="activation",
        target=(f"channel:{','.join(map(str, channels or (0,)))}",),
        overwrite=overwrite,
        **named,
    )
    return ChannelJob(job=job, channels=channels, **options)
