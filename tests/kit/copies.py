"""A network that cannot be copied, and what needs a GPU."""

import pytest
import torch
from networks import Small
from torch import nn

CPU = torch.device("cpu")
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Uncopied(Small):
    def __deepcopy__(self, memo: dict) -> nn.Module:
        raise TypeError("I am one of a kind")
