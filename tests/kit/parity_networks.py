"""torchvision's networks on random weights with signals of both signs, to compare libraries on."""

import torch
import torchvision
from networks import calibrated, pictures
from torch import nn

CLASSES = 10
SIZE = 64


def fresh(name, plain=False):
    """The network as torchvision builds it, on random weights but fit: normal everywhere, with signals of both signs.

    As it is initialised, a signal through MobileNetV2 shrinks to 1e-14 and never meets the ceiling of a ReLU6.
    """
    options = {"init_weights": False} if name.startswith("vgg") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **options)
        if name.startswith("vgg"):
            # Its 120 million weights of the head would take a gigabyte in float64, and nobody looks at them.
            model.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, CLASSES)
            )
            for part in model.features:
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_normal_(part.weight)
        if plain:
            replace(model, nn.ReLU6, nn.ReLU)
        normal = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
        for part in normal:
            nn.init.uniform_(part.weight, 0.5, 3)
            nn.init.normal_(part.bias)
        calibrated(model.double().eval(), pictures(8, SIZE, seed=1))
    return model


def replace(model, kind, make):
    """Every module of this kind, in its place, by a new one."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make())
