"""A model with odd inputs, for `camcli explain --config configs/crops-and-frames.toml`: crops, each a film of frames.

The model takes a tuple with a tensor `(frames, 3, h, w)` for each crop and gives one row of scores. The wrapper hands
it the images of a group in that form. Images come crop by crop, and frame by frame within each.
"""

import torch
from torch import Tensor, nn

CROPS = 2


class Film(nn.Module):
    """Stands for a model of your own that takes a tuple: the mean over the frames, then the best of the crops."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, crops: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Crops, each `(frames, 3, h, w)`, to one row of scores `(1, classes)`, and what each crop says."""
        # One run for all crops, so that a layer sees every image in it.
        lengths = [len(frames) for frames in crops]
        scores = self.backbone(torch.cat(crops)).split(lengths)
        said = torch.stack([frames.mean(0) for frames in scores])
        return {"logits": said.logsumexp(0, keepdim=True), "aux_crops": said}


class Wrapper(nn.Module):
    """Images `(crops * frames, 3, h, w)` to one row of scores `(1, classes)`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.film = Film(network)

    def forward(self, images: Tensor) -> Tensor:
        """What `--wrap` asks for."""
        return self.film(images.chunk(CROPS))["logits"]
