"""Which operations leave cells in the middle of what they come from."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from camcli import Explainer
from camcli.engine.layers.even_steps import EvenSteps
from camcli.images.placement import Placement


def even(network, side=16, channels=3):
    with torch.no_grad(), EvenSteps() as steps:
        network(torch.zeros(1, channels, side, side))
    return steps.even


class Sliced(nn.Module):
    def forward(self, x):
        return x[:, :, ::2, ::2]


# A window of extent e, stride s and padding p begins with its centre at e / 2 - p; a cell is drawn at s / 2.
@pytest.mark.parametrize(
    ("network", "expected"),
    [
        pytest.param(nn.Conv2d(3, 1, 4, 4), True, id="patches: 2 and 2"),
        pytest.param(nn.Conv2d(3, 1, 4, 2, 1), True, id="overlapping patches: 1 and 1"),
        pytest.param(nn.Conv2d(3, 1, 3, 1, 1), True, id="padded: 0.5 and 0.5"),
        pytest.param(nn.Conv2d(3, 1, 3, 1, 2, dilation=2), True, id="padded and dilated: 0.5 and 0.5"),
        pytest.param(nn.Conv2d(3, 1, 3, padding="same"), True, id="padded by its word"),
        pytest.param(nn.Conv2d(3, 1, 16), True, id="a kernel as large as the input"),
        pytest.param(nn.MaxPool2d(2), True, id="pooling: 1 and 1"),
        pytest.param(nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)), True, id="poolings"),
        pytest.param(nn.Conv2d(3, 1, 3, 2, 1), False, id="padded with a stride: 0.5 and 1"),
        pytest.param(nn.Conv2d(3, 1, 1, 2), False, id="every second pixel: 0.5 and 1"),
        pytest.param(nn.Conv2d(3, 1, 3), False, id="not padded: 1.5 and 0.5"),
        pytest.param(nn.Conv2d(3, 1, 3, padding="valid"), False, id="not padded, by its word"),
        pytest.param(nn.Conv2d(3, 1, 5, 5), False, id="patches that leave a rest"),
        pytest.param(nn.MaxPool2d(3, 2, 1), False, id="a stem's pooling: 0.5 and 1"),
        pytest.param(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 1, 3, 2)), False, id="padded behind"),
        pytest.param(nn.AdaptiveAvgPool2d(3), False, id="cells of several sizes"),
        pytest.param(nn.ConvTranspose2d(3, 1, 3, 2), False, id="upwards"),
        pytest.param(Sliced(), False, id="sliced"),
    ],
)
def test_an_operation_is_even_if_its_first_window_lies_in_the_middle_of_the_first_cell(network, expected):
    assert even(network) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("test_vit", True), ("test_convnext", True), ("test_resnet", False), ("test_efficientnet", False)],
)
def test_whole_networks(name, expected):
    assert even(timm.create_model(name).eval(), 160) == expected


def test_padding_by_nothing_moves_nothing():
    class Padded(nn.Module):
        def forward(self, x):
            return F.pad(x, (0, 0, 0, 0))

    assert even(Padded())


def test_where_all_steps_are_even_nothing_is_measured():
    network = nn.Sequential(nn.Conv2d(3, 9, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 2))
    given = []
    network.register_forward_pre_hook(lambda _module, inputs: given.append(len(inputs[0])))
    explain, image = Explainer(network, layers=["0"]), torch.randn(1, 3, 16, 16)
    explain.check(image)
    found = explain.locations["0"]
    assert (found.placement, found.offset, found.stride) == (None, (0, 0), (4, 4))
    assert Placement.even((4, 4), (16, 16)).stride == (4, 4)
    # The image, it and another, and it for its gradient and map: none for places.
    assert given == [1, 2, 1]
