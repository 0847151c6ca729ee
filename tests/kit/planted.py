"""Activations and images with an object planted in them."""

import numpy as np
import torch


def objects(count, size, signed, seed):
    """Noise on every cell, and a rectangle where a random half of the channels is active; and the rectangles."""
    draw = torch.Generator().manual_seed(seed)
    act = 0.2 * torch.randn(count, 16, 10, 12, generator=draw, dtype=torch.float64).abs()
    place = torch.zeros(count, 10, 12, dtype=torch.bool)
    for row in range(count):
        height, width = (int(torch.randint(2, bound, (), generator=draw)) for bound in size)
        top = int(torch.randint(0, 11 - height, (), generator=draw))
        left = int(torch.randint(0, 13 - width, (), generator=draw))
        place[row, top : top + height, left : left + width] = True
        active = torch.rand(16, generator=draw, dtype=torch.float64)
        active *= torch.rand(16, generator=draw) > 0.5
        active[0] += 0.5
        if signed:
            active *= torch.where(torch.rand(16, generator=draw) > 0.5, 1, -1)
            act[row] *= torch.where(torch.rand(16, 10, 12, generator=draw) > 0.5, 1, -1)
        act[row] += active[:, None, None] * place[row]
    return act, place


def plant_in_image():
    """An image with an object, and the weights of a score that sees this alone."""
    rng = np.random.default_rng(1)
    image = rng.random((3, 32, 32), np.float32) * 0.2
    weights = np.zeros((32, 32), np.float32)
    weights[3:12, 5:16] = 1
    return image + weights * (0.5 + rng.random((3, 32, 32), np.float32)), weights
