"""Features read in every layout, or refused."""

import pytest
import torch
from torch import nn

from camcli import Labels, OutputSpec
from camcli.base.errors import RequestError


def read(tensor, channels, images=1, **outlet):
    labels = Labels.numbered(channels, "channel").names
    return OutputSpec("features", **outlet).read(tensor, images, labels, "none")


def test_features_are_read_in_every_layout():
    cells = torch.arange(2 * 5 * 2 * 3, dtype=torch.float64).reshape(2, 5, 2, 3)
    wanted = cells.mean((2, 3)).float()
    tokens = torch.cat([torch.full((2, 4, 5), 1e6), cells.flatten(2).mT], 1)
    for tensor, prefix in (
        (cells, 0),
        (cells.permute(0, 2, 3, 1), 0),
        (tokens, 4),
        (cells.mean((2, 3)), 0),
        (cells.mean((2, 3), keepdim=True), 0),
    ):
        predictions = read(tensor, 5, 2, prefix=prefix)
        assert predictions.classes == 5
        torch.testing.assert_close(torch.stack([predictions.scores(0), predictions.scores(1)]), wanted)
    # Nobody knows how many there are: channels first, as is usual.
    assert OutputSpec("features").read(cells, 2).classes == 5


def test_features_that_lie_both_ways_or_nowhere():
    with pytest.raises(RequestError, match="may be the first or the last"):
        read(torch.zeros(1, 6, 6, 6), 6)
    with pytest.raises(RequestError, match="returns 4 tokens, of which 4 are declared"):
        read(torch.zeros(1, 4, 6), 6, prefix=4)
    with pytest.raises(RequestError, match="not features for each"):
        read(torch.zeros(3, 4, 6), 6)


def test_features_are_chosen_by_the_number_of_channels():
    both = {"map": torch.zeros(1, 5, 3, 4), "tokens": torch.ones(1, 12, 6), "pooled": torch.zeros(1, 6)}
    assert read(both, 6).scores(0).tolist() == [1.0] * 6
    assert read(both, 5).scores(0).tolist() == [0.0] * 5


def test_likeness_of_features_that_are_not_pooled():
    torch.manual_seed(0)
    cells, reference = torch.randn(1, 5, 2, 3), torch.randn(1, 5)
    [cosine] = read(cells, 1, references=reference).scores(0)
    torch.testing.assert_close(cosine, nn.functional.cosine_similarity(cells.mean((2, 3)), reference)[0])
