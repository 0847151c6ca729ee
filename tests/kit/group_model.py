"""A model that takes images in groups."""

MEAN = '''
from torch import nn


class Mean(nn.Module):
    """The mean of what is said of each image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).mean(0, keepdim=True)


class Each(Mean):
    def forward(self, images):
        rows = self.network(images)
        return rows + rows.mean(0)


class Moody(Mean):
    def forward(self, images):
        if images.amin() >= 0 and images.amax() > 0.99:
            raise RuntimeError("too bright for us")
        return super().forward(images)
'''
