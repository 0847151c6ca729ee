"""What a layer gives, and the mean over the part of it that shows the image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from channel_runs import contest
from networks import Small, pictures, unruly, untouched
from shared import Paint
from torch import nn

from camcli.base.errors import RequestError
from camcli.engine.hooks import watch
from camcli.engine.hooks.capture import capture_activations
from camcli.engine.hooks.watch import layer_output
from camcli.images.transform import Preprocess
from camcli.images.view import View
from camcli.outputs.sheet import THUMBNAIL_SIDE, make_thumbnail
from camcli.runs.channels.activations import pool_channels
from camcli.runs.channels.run import ChannelRun


def test_pooled_is_the_mean_over_the_cells_that_show_the_picture() -> None:
    cells = torch.arange(32.0).reshape(2, 1, 4, 4)
    whole = View((8, 8), (8, 8), (0.0, 0.0, 8.0, 8.0))
    # Of a wide image, padded above and below, the rows in the middle show something.
    wide = View((4, 8), (8, 8), (0.0, -2.0, 8.0, 6.0))
    assert pool_channels(cells, [whole, wide]).tolist() == [[7.5], [23.5]]
    assert pool_channels(cells[:1] + torch.tensor([[1e6], [0], [0], [1e6]]), [wide]).tolist() == [[7.5]]
    assert pool_channels(cells[:1], [whole]).tolist() == [[7.5]]


def test_the_part_that_the_model_saw_is_cut_out_with_its_own_view() -> None:
    view = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3, (8, 8), "shorter", "bilinear").view(32, 16)
    rows, columns, own = view.crop()
    assert (rows, columns) == (slice(0, 16), slice(8, 24))
    assert own == View((16, 16), (8, 8), (0.0, 0.0, 16.0, 16.0))
    map = np.random.default_rng(0).random((4, 4), np.float32)
    np.testing.assert_array_equal(own.onto_picture(map), view.onto_picture(map)[rows, columns])


def test_what_is_small_keeps_what_was_seen_in_its_proportions() -> None:
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    drawn, view = make_thumbnail(pixels, View((60, 200), (8, 16), (40.0, 0.0, 160.0, 60.0)))
    assert drawn.shape == (THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE, 3)
    assert view.sees_whole_picture
    assert drawn[0, THUMBNAIL_SIDE // 2 - 4].max() <= 1
    assert drawn[0, THUMBNAIL_SIDE // 2 + 3].min() >= 254


# ---- what a layer says


@pytest.mark.parametrize("layer", ["conv1", "relu1", "conv2"])
def test_a_layers_output_is_what_it_says_in_a_whole_forward(layer: str) -> None:
    model, images = Small(), pictures(3)
    with capture_activations({layer: model.get_submodule(layer)}) as taps:
        model(images)
    for turn in (0, 1):
        assert torch.equal(layer_output(model, layer, images, turn), taps[layer].detach())


def test_a_forward_ends_at_the_layer() -> None:
    model = Small()
    model.fc.register_forward_hook(lambda *_: pytest.fail("it ran"))
    layer_output(model, "conv2", pictures(1), 1)


def test_the_run_that_is_asked_for_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.ReLU()

        def forward(self, x):
            return self.layer(self.layer(x) - 1)

    images = torch.tensor([0.5, 3.0]).reshape(1, 1, 1, 2)
    said = [layer_output(Twice(), "layer", images, turn).flatten().tolist() for turn in (1, 2, 0)]
    assert said == [[0.5, 3], [0, 2], [0, 2]]
    with pytest.raises(RequestError, match="has no call 3 for these images"):
        layer_output(Twice(), "layer", images, 3)


def test_asking_leaves_no_trace_even_if_the_model_fails() -> None:
    model = unruly(Small())
    with untouched(model):
        layer_output(model, "conv2", pictures(2), 1)
        layer_output(model, "conv2", pictures(2))
        with pytest.raises(RuntimeError):
            layer_output(model, "conv2", pictures(2)[:, :2], 1)
    assert watch.StopForward not in (Exception, RuntimeError)
    assert not issubclass(watch.StopForward, Exception)


def test_what_lies_behind_the_layer_does_not_run(paint: Paint, models_file: Path, monkeypatch) -> None:
    for number in range(8):
        paint(f"in/{number}.png", (number, 0, 0))
    ranking = ChannelRun(contest(f"{models_file}:last", "in", layers=("layer",), batch_size=2))
    kind = type(ranking.worker.network.module)
    before = kind.ran
    assert len(list(ranking)) == 8
    ranking.write()
    assert kind.ran == before
