"""Random activations, and deep feature factorization image by image."""

import torch

from camcli.methods.concept import dff


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alone(act, **options):
    """Each image by itself, and no classes."""
    return dff(act, None, None, **options)
