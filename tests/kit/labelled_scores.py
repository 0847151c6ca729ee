"""Labels of a few classes, and scores for them."""

import torch

from camcli.targets.labels import Labels

LABELS = Labels(
    ("tench, Tinca tinca", "crane", "tabby, tabby cat", "crane", "tiger cat"),
    ("n00000001", "n00000002", "n00000003", "n00000004", "n00000005"),
)
#                      0    1    2    3    4
SCORES = torch.tensor([0.5, 3.0, 9.0, 3.0, -1.0])
