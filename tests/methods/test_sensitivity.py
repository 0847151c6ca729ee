"""Sobol indices: a case by hand, what is known in closed form, and what is refused."""

import pytest
import torch
from by_hand import equal, red
from plain_signals import asking

from camcli import RequestError
from camcli.methods.sensitivity import sobol


def test_sobol_by_hand():
    # The first four points of the sequence in two dimensions are (0, 0), (1/2, 1/2), (3/4, 1/4), (1/4, 3/4); the score
    # of one cell that is open by m is m. A: 0, 1/2, 3/4, 1/4, of variance 5/48; as in B: 0, 1/2, 1/4, 3/4.
    # The squared differences, 0, 0, 1/4 and 1/4, have the mean 1/8: over twice the variance 3/5.
    equal(sobol(red([1.0]), asking(lambda x: x.sum((1, 2, 3))), designs=4, cells=1), [3 / 5])


def test_sobol_counts_forwards_and_masks_each_cell():
    seen = []

    def total(x):
        seen.append(x)
        return x.sum((1, 2, 3))

    map = sobol(torch.ones(2, 3, 6, 4, dtype=torch.float64), asking(total), designs=4, cells=2)
    assert map.shape == (2, 6, 4)
    assert sum(len(one) for one in seen) == 2 * 4 * (4 + 1)
    for image in torch.cat(seen):
        for rows, columns in ((slice(0, 3), slice(0, 2)), (slice(3, 6), slice(2, 4))):
            assert len(image[:, rows, columns].unique()) == 1


def test_sobol_indices_of_a_linear_score_are_shares_of_its_variance():
    # Of sum w_i m_i with m_i uniform the index is w_i^2 / sum w^2, and the sign of w is lost.
    weights = torch.tensor([[1.0, -2], [0, 3]], dtype=torch.float64)
    map = sobol(weights[None, None], asking(lambda x: x.sum((1, 2, 3))), designs=4096, cells=2)
    torch.testing.assert_close(map[0], weights.square() / 14, atol=0.01, rtol=0)


def test_sobol_indices_of_a_product_sum_to_more_than_one():
    # m_1 m_2 has the variance 1/9 - 1/16 = 7/144; the total index of each is E[m^2] / 12 over it: (1/36) / (7/144).
    ones = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    map = sobol(ones.expand(1, 1, 2, 2), asking(lambda x: x[:, 0, 0, 0] * x[:, 0, 0, 1]), designs=4096, cells=2)
    torch.testing.assert_close(map[0, 0], torch.full((2,), 4 / 7).double(), atol=0.01, rtol=0)
    assert not map[0, 1].any()


def test_a_score_that_no_mask_changes_has_no_map():
    map = sobol(red([1.0, 2.0]), asking(lambda x: 0 * x.sum((1, 2, 3)) + 1), designs=4, cells=1)
    assert not map.isfinite().any()


@pytest.mark.parametrize("options", [{"designs": 3}, {"cells": 0}, {"cells": 103}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(RequestError, match="out of range"):
        sobol(red([1.0]), asking(lambda x: x.sum((1, 2, 3))), **options)
