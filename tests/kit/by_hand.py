"""Small images and layers, and scores that can be worked out by hand."""

import torch
from networks import pictures
from plain_signals import Asked, Two

EXACT = {"rtol": 0, "atol": 1e-12}


def total(x):
    """The sum of all pixels of each image, and 5, which is what the empty image gives."""
    return x.sum((1, 2, 3)) + 5


def squares(x):
    return x.square().sum((1, 2, 3)) + 5


def red(*rows):
    """One image (1, 3, h, w) that is black but for its red."""
    image = torch.zeros(1, 3, len(rows), len(rows[0]), dtype=torch.float64)
    image[0, 0] = torch.tensor(rows)
    return image


def layer(*maps):
    return torch.tensor([maps], dtype=torch.float64)


def equal(map, *wanted):
    torch.testing.assert_close(map, torch.tensor([wanted], dtype=torch.float64), **EXACT)


IMAGE = red([1, 2], [3, 4])


def evidence(count=3, size=(8, 10), pool=2):
    return Asked(Two(pool), pictures(count, size), [0, 3, 1, 2][:count])


def close(map, wanted):
    assert map.shape == wanted.shape
    assert map.dtype == wanted.dtype
    scale = wanted.abs().max()
    assert scale > 0
    assert (map - wanted).abs().max() <= 1e-10 * scale
