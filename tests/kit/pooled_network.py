"""A network that pools and then classifies."""

from networks import Small


class Pooled(Small):
    """Ends in average pooling and a linear layer."""

    def forward(self, x):
        x = self.pool(self.relu1(self.norm1(self.conv1(x))))
        return self.fc(self.relu2(self.conv2(x)).mean((2, 3)))
