"""The law of place holds for right readings and breaks for wrong ones."""

import pytest
import timm
import torch
from networks import Through, seeded
from place import broken_law
from torch import Tensor, nn

from camcli.engine.layers.layout import Layout

SIZE = (64, 96)
GRID = (8, 12)


class Twisted(nn.Module):
    """A little network whose layer ``out`` says its grid in a way of its own."""

    def __init__(self, twist) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.ReLU(), nn.Conv2d(6, 7, 3, padding=1))
        self.out = Through(twist)
        seeded(self, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        self.out(x)
        return x.mean((2, 3))


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def with_prefix(x: Tensor) -> Tensor:
    return torch.cat([x.mean((2, 3))[:, None], tokens(x)], 1)


@pytest.mark.parametrize(
    ("twist", "layout"),
    [
        (lambda x: x, Layout("nchw", GRID)),
        (lambda x: x.permute(0, 2, 3, 1), Layout("nhwc", GRID)),
        (tokens, Layout("tokens", GRID)),
        (with_prefix, Layout("tokens", GRID, 1)),
        (lambda x: with_prefix(x).flip(1).flip(2), None),
        (lambda x: torch.cat([tokens(x), x.mean((2, 3))[:, None]], 1), Layout("tokens", GRID, 0, 1)),
        (lambda x: x.flatten(2), Layout("ncl", GRID)),
    ],
    ids=["nchw", "nhwc", "tokens", "prefix", "turned", "suffix", "ncl"],
)
def test_a_right_reading_keeps_the_law(twist, layout):
    broken = broken_law(Twisted(twist), "out", layout or Layout("tokens", GRID, 0, 1), SIZE)
    assert bool(broken) == (layout is None), broken


@pytest.mark.parametrize(
    ("twist", "layout"),
    [
        (lambda x: x.flip(3), Layout("nchw", GRID)),
        (lambda x: x.flip(2), Layout("nchw", GRID)),
        (lambda x: x.roll(6, 3), Layout("nchw", GRID)),
        (lambda x: x.transpose(2, 3).reshape(x.shape), Layout("nchw", GRID)),
        # Rows and columns of tokens exchanged.
        (lambda x: x.transpose(2, 3).flatten(2).transpose(1, 2), Layout("tokens", GRID)),
        (tokens, Layout("tokens", (12, 8))),
        (tokens, Layout("tokens", (6, 16))),
        # One token too few or too many in front: every row begins with the end of another.
        (with_prefix, Layout("tokens", GRID, 0, 1)),
        (lambda x: torch.cat([tokens(x), x.mean((2, 3))[:, None]], 1), Layout("tokens", GRID, 1)),
        # Channels taken for places.
        (lambda x: x[:, :1].expand(-1, 8, -1, -1).flatten(2)[:, :, :96], Layout("tokens", (2, 4))),
        # Places that were never patches, and places that answer nothing.
        (lambda x: x.mean((2, 3), keepdim=True).expand_as(x), Layout("nchw", GRID)),
        (torch.zeros_like, Layout("nchw", GRID)),
    ],
    ids=[
        "mirrored",
        "upside down",
        "shifted by half",
        "transposed",
        "tokens by columns",
        "grid turned",
        "grid of another shape",
        "a token too few left out",
        "a token too many left out",
        "channels for places",
        "pooled",
        "nothing",
    ],
)
def test_a_wrong_reading_breaks_the_law(twist, layout):
    assert broken_law(Twisted(twist), "out", layout, SIZE)


@pytest.mark.parametrize(
    ("model", "layer", "right", "wrong"),
    [
        ("test_vit", "blocks.5.norm1", Layout("tokens", (10, 10), 1), Layout("tokens", (10, 10), 0, 1)),
        ("test_convnext", "stages.1", Layout("nchw", (20, 20)), Layout("nhwc", (24, 20))),
    ],
)
def test_the_law_knows_a_wrong_reading_of_a_real_network(model, layer, right, wrong):
    def build():
        torch.manual_seed(0)
        return timm.create_model(model).eval()

    size = tuple(timm.get_pretrained_cfg(model).input_size[1:])
    assert broken_law(build(), layer, right, size) == ""
    assert broken_law(build(), layer, wrong, size)
