"""One prediction for several images, for `camcli explain --config configs/one-prediction.toml --trust-config`.

Each image has a weight by how sure the model is of it, and the group's scores are the weighted mean.
"""

from torch import Tensor, nn


class Wrapper(nn.Module):
    """Images `(n, 3, h, w)`, any number of them, to one row of scores `(1, classes)`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """What `--wrap` and `--group` ask for."""
        scores = self.network(images)
        weights = scores.amax(1).softmax(0)
        return (weights[:, None] * scores).sum(0, keepdim=True)
