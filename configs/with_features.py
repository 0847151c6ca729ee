"""Extra features per image, for `camcli explain --config configs/with-features.toml --trust-config`.

The features say how likely an image is one of food and of an animal, as a caption or a sensor might. They scale the
scores of the classes that they speak for.
"""

import torch
from torch import Tensor, nn

FOOD = range(924, 970)
ANIMALS = range(398)


class Wrapper(nn.Module):
    """Images `(n, 3, h, w)` and features `(n, 2)` to scores `(n, 1000)`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """What `--wrap` and `--extras` ask for: the columns of the file come in their order."""
        food, animal = features.unbind(1)
        scores = self.network(images)
        kinds = torch.zeros_like(scores)
        kinds[:, list(FOOD)] = food[:, None]
        kinds[:, list(ANIMALS)] = animal[:, None]
        # 1 leaves a class's score as it is, 0 takes half of it away.
        return scores * (1 + kinds) / 2
