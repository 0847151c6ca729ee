"""A network of parts that change the size of what they are given."""

from torch import nn


class Waves(nn.Module):
    """exp(cos(sin(x))): kept are x, sin(x), and the result."""

    def forward(self, x):
        return x.sin().cos().exp()
