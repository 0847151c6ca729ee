"""Activations and gradients of two channels on a grid of 2 x 2."""

import torch

# Two channels on a grid of 2 x 2.
ACT = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]]], dtype=torch.float64)
GRAD = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[-1.0, -1.0], [-1.0, 1.0]]]], dtype=torch.float64)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equal(map, wanted):
    torch.testing.assert_close(map, torch.tensor(wanted, dtype=map.dtype), rtol=1e-12, atol=1e-12)
