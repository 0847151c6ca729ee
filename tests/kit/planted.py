"""Activations with an object planted in them."""

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
