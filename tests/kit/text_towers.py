"""Text towers of a user's own."""

from pathlib import Path

import torch
import torch.nn.functional as F
from shared import ROOT
from torch import Tensor

import camcli
from camcli.images.decode import decode
from camcli.models.load import load as load_model

SAMPLES = ROOT / "sample_images"
COFFEE, CAT, BOTH = SAMPLES / "coffee.png", SAMPLES / "chelsea.png", SAMPLES / "cat-and-espresso.jpg"
WIDE = 12  # features of a small model of one's own

TOWERS = '''
import numpy as np
import torch
from torch import nn

from neighbour import WIDE


def drawn(text, width=WIDE):
    """A vector of its own for each text, the same each time."""
    return torch.randn(width, generator=torch.Generator().manual_seed(sum(map(ord, text))))


def plain(texts):
    assert isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    if "" in texts:
        raise ValueError("says nothing")
    return torch.stack([drawn(text) for text in texts])


def scaled(texts):
    return {"embeddings": torch.stack([drawn(text) for text in texts]), "scale": 20}


def biased(texts):
    return scaled(texts) | {"scale": np.float32(20), "bias": torch.tensor([-3.0])}


MATRIX = torch.randn(WIDE, 8, generator=torch.Generator().manual_seed(7))


def small(texts):
    return torch.stack([drawn(text, 8) for text in texts]).requires_grad_()


def matrix(texts):
    return {"embeddings": small(texts), "projection": MATRIX, "scale": 5.0}


def array(texts):
    return {"embeddings": small(texts).detach().numpy(), "projection": MATRIX.numpy(), "scale": 5.0}


class Projection(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(MATRIX)

    def forward(self, features):
        return features @ self.weight


def module(texts):
    return {"embeddings": small(texts), "projection": Projection(), "scale": 5.0}


HELD = Projection().train()


def held(texts):
    return {"embeddings": small(texts), "projection": HELD, "scale": 5.0}


def raises(texts):
    return texts[99]


def nan(texts):
    return torch.full((len(texts), WIDE), float("nan"))


def zero(texts):
    return torch.zeros(len(texts), WIDE)


def few(texts):
    return plain(texts)[:1]


def flat(texts):
    return plain(texts).flatten()


def words(texts):
    return texts


def whole(texts):
    return torch.ones(len(texts), WIDE, dtype=torch.long)


def typo(texts):
    return {"embeddings": plain(texts), "temperature": 3}


def nothing(texts):
    return {"scale": 3}


def negative(texts):
    return {"embeddings": plain(texts), "scale": -1}


def scales(texts):
    return {"embeddings": plain(texts), "scale": torch.ones(2)}


def infinite(texts):
    return {"embeddings": plain(texts), "scale": 1, "bias": float("inf")}


def turned(texts):
    return {"embeddings": small(texts), "projection": MATRIX.T}


def broken(texts):
    return {"embeddings": small(texts), "projection": MATRIX * float("nan")}


def narrow(texts):
    return {"embeddings": small(texts), "projection": nn.Linear(13, 8)}


def other(texts):
    return {"embeddings": small(texts), "projection": nn.Linear(WIDE, 9)}


def tuples(texts):
    class Pair(nn.Module):
        def forward(self, features):
            return features, features

    return {"embeddings": small(texts), "projection": Pair()}
'''


OWN = f"""
import torch
from torch import nn

import camcli


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, {WIDE}, 3)

    def forward(self, images):
        return self.last(self.stem(images).relu()).mean((2, 3))


def make():
    torch.manual_seed(0)
    prepare = camcli.Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, (32, 32))
    labels = camcli.Labels.numbered({WIDE}, "channel")
    facts = dict(weights="pretrained", origin="drawn", activation="none", headless=True)
    return camcli.Network("own", Small(), prepare, labels, **facts)
"""


def drawn(text: str, width: int = WIDE) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(sum(map(ord, text))))


def shown(network: camcli.Network, picture: Path) -> Tensor:
    image, _ = network.preprocess(decode(picture, "#ffffff"))
    return image[None]


def cosines(vectors: Tensor, projection: Tensor | None = None) -> Tensor:
    """Of the cup's image with these vectors, worked out of the model without its head."""
    headless = load_model("own.py:make", head="none")
    with torch.no_grad():
        features = headless.module(shown(headless, COFFEE))
    return F.cosine_similarity(features if projection is None else features @ projection, vectors)
