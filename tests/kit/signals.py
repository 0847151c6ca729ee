"""The image that signals are worked out on by hand."""

import torch

RED, GREEN, BLUE = [[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]], [[7.0, 7.0], [7.0, 7.0]]
IMAGE = torch.tensor([[RED, GREEN, BLUE]])
