"""What fixtures and tests both name: the repository's folder, colours of images, types of fixtures."""

from collections.abc import Callable
from pathlib import Path

from camcli.runs.record.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]

RED, GREEN, BLUE, BLACK = (250, 0, 0), (0, 250, 0), (0, 0, 250), (0, 0, 0)

Paint = Callable[..., Path]
Bring = Callable[..., str]
Go = Callable[..., list[list[Outcome]]]

# A classifier by colour, whose numbers can be worked out by hand. The image is squashed to 16 x 16 and its values
# are left in 0..1. `stem` hands every pixel on (16 x 16), `body` means over 2 x 2 (8 x 8), and the score of a colour
# is 10 times its mean. So d score / d stem = 10/256 in every cell of the colour's channel, and Grad-CAM at `stem` is
# 10/256 times that channel; at `body` it is 10/64 times it.
TINY = '''
"""Which colour an image has."""

import torch
from torch import nn

from camcli import Labels, Preprocess


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1, bias=False)
        self.body = nn.Conv2d(3, 3, 2, stride=2, groups=3, bias=False)

    def forward(self, images):
        return 10 * self.body(self.stem(images)).mean((2, 3))


def make():
    module = Tiny()
    with torch.no_grad():
        module.stem.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
        module.body.weight.fill_(0.25)
    prepare = Preprocess(
        size=(16, 16), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=(16, 16), fit="squash",
        interpolation="nearest",
    )
    return module, prepare, Labels(("red, crimson", "green", "blue, azure"), ("n00000001", "n00000002", "n00000003"))


class Slow(Tiny):
    def forward(self, images):
        import time

        time.sleep(0.15)
        return super().forward(images)


def slow():
    made = make()
    module = Slow()
    module.load_state_dict(made[0].state_dict())
    return module, *made[1:]


class Moody(Tiny):
    def forward(self, images):
        if images.amin() >= 0 and images.amax() > 0.99:  # a white image, not the noise that networks are tried on
            raise RuntimeError("too bright for me")
        return super().forward(images)


def moody():
    made = make()
    module = Moody()
    module.load_state_dict(made[0].state_dict())
    return module, *made[1:]
'''
