"""Sobol indices and HSIC: cases by hand, what is known in closed form, and what is refused."""

import math

import numpy as np
import pytest
import torch
from by_hand import equal, red
from plain_signals import asking

from camcli import RequestError
from camcli.methods.sensitivity import hsic, sobol


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


# ---- HSIC


def total(x):
    return x.sum((1, 2, 3))


def seen_masks(count, cells, **options):
    """The masks of a white image as they are drawn, (count, cells, cells)."""
    seen = []

    def keep(x):
        seen.append(x[0, 0])
        return x.sum((1, 2, 3))

    hsic(torch.ones(1, 1, cells, cells, dtype=torch.float64), asking(keep), samples=count, cells=cells, **options)
    return torch.stack(seen)


def test_hsic_by_hand():
    # One cell, open in two of four masks: scores 1, 1, 0, 0 in some order. Of the six distances four are 1: so is the
    # median, and L is e = exp(-1/2) off the two blocks. Centred, L is +-(1 - e) / 2, with the sign of K, which is
    # +-1/2: the trace is 16 (1 - e) / 4, over 9.
    equal(hsic(red([1.0]), asking(total), samples=4, cells=1), [4 * (1 - math.exp(-0.5)) / 9])
    # One open and two closed: distances 1, 1 and 0. H L H is 2 (1 - e) v v^T with v = (2, -1, -1) / 3, and K is
    # s s^T / 2 with s = (1, -1, -1), so that v s = 4 / 3: the trace is (1 - e) 16 / 9, over 4.
    equal(hsic(red([1.0]), asking(total), samples=3, cells=1), [4 * (1 - math.exp(-0.5)) / 9])


def test_hsic_masks_open_every_cell_in_half_of_them():
    masks = seen_masks(10, 3)
    assert masks.unique().tolist() == [0, 1]
    assert (masks.sum(0) == 5).all()
    assert (seen_masks(9, 3).sum(0) == 4).all()
    assert torch.equal(masks, seen_masks(10, 3, seed=0))
    assert not torch.equal(masks, seen_masks(10, 3, seed=1))


def test_hsic_is_the_papers_formula_written_out():
    def score(x):
        return (x[:, 0, 0, 0] * x[:, 0, 0, 1] - 2 * x[:, 0, 1, 1]).sin()

    masks, image = seen_masks(40, 2).numpy(), np.array([[1.0, -2.0], [3.0, 0.7]])
    scores = score(torch.from_numpy(masks * image)[:, None]).numpy()
    distances = np.abs(np.subtract.outer(scores, scores))
    kernel = np.exp(-((distances / np.median(distances[np.triu_indices(40, 1)])) ** 2) / 2)
    center = np.eye(40) - 1 / 40
    wanted = np.empty((2, 2))
    for row, column in np.ndindex(2, 2):
        cell = masks[:, row, column]
        alike = (cell[:, None] == cell) - 0.5
        wanted[row, column] = np.trace(alike @ center @ kernel @ center) / 39**2
    map = hsic(torch.from_numpy(image)[None, None], asking(score), samples=40, cells=2)
    np.testing.assert_allclose(map[0].numpy(), wanted, rtol=1e-9)


def test_hsic_finds_the_cells_that_count():
    weights = torch.tensor([[3.0, 0, 0], [0, 0, 0], [0, 0, -3]], dtype=torch.float64)
    map = hsic(weights[None, None], asking(total), samples=500, cells=3)[0]
    # The sign is lost; what is independent is left with the estimator's bias, of order 1 / p.
    torch.testing.assert_close(map[0, 0], map[2, 2], rtol=0.1, atol=0)
    assert map.flatten().sort().values[:-2].mean() < 0.02 * map[0, 0]
    assert (map >= 0).all()


def test_hsic_does_not_see_the_scores_unit():
    image = red([1.0, 2.0], [0.5, 3.0])
    wanted = hsic(image, asking(total), samples=30, cells=2)
    torch.testing.assert_close(hsic(image, asking(lambda x: -7 * total(x) + 3), samples=30, cells=2), wanted)


def test_hsic_of_a_score_that_no_mask_changes_is_zero():
    assert not hsic(red([1.0, 2.0]), asking(lambda x: 0 * total(x) + 1), samples=8, cells=2).any()


def test_hsic_where_most_scores_are_equal_is_that_of_equal_and_unequal():
    # A score that is there only if all four cells are open: two masks of 48 or so; the median distance is 0.
    image = red([1.0, 1.0], [1.0, 1.0])
    map = hsic(image, asking(lambda x: (total(x) > 3.5).double()), samples=48, cells=2)
    few = seen_masks(48, 2).flatten(1).all(1).double()
    assert 0 < few.sum() < 8
    alike = (few[:, None] == few).double()
    center = torch.eye(48, dtype=torch.float64) - 1 / 48
    signs = 2 * seen_masks(48, 2).flatten(1) - 1
    wanted = torch.einsum("pk,pq,qk->k", signs, center @ alike @ center, signs) / 2 / 47**2
    torch.testing.assert_close(map.flatten(), wanted)


@pytest.mark.parametrize("options", [{"samples": 1}, {"cells": 0}])
def test_hsic_options_out_of_range_are_refused(options):
    with pytest.raises(RequestError, match="out of range"):
        hsic(red([1.0]), asking(total), **options)
