"""Methods without a gradient: components worked out by hand, their signs and their rows."""

import inspect
import math

import pytest
import torch
from closed_forms import ACT, GRAD, drawn, equal
from planted import objects

from camcli import RequestError
from camcli.methods import METHODS
from camcli.methods.activation import eigencam, fem, kpca_cam, lafam, principal_component, random
from camcli.methods.gradient import (
    eigen_gradcam,
    seg_eigen_cam,
)


def test_eigencam_by_hand():
    # Cells (3, 0), (0, 1), (3, 0), (0, 0): A^T A = diag(18, 1), so V_1 is the first channel: the map is it.
    act = torch.tensor([[[[3.0, 0.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]]).double()
    equal(eigencam(act), [[[3.0, 0.0], [3.0, 0.0]]])
    # Whatever the channel's own sign: what is active is positive.
    equal(eigencam(-act), [[[3.0, 0.0], [3.0, 0.0]]])
    # One more cell than channels or fewer, both sides of the decomposition: rows (2, 2), (1, 1) have V_1 along (1, 1).
    act = torch.tensor([[[[2.0, 1.0]], [[2.0, 1.0]], [[0.0, 0.0]]]]).double()
    equal(eigencam(act), [[[2 * math.sqrt(2), math.sqrt(2)]]])


def test_centred_eigencam_by_hand():
    # One channel (1, 2, 3, 4) less its mean 2.5; positive where it is strong.
    equal(eigencam(ACT[:, :1], center=True), [[[-1.5, -0.5], [0.5, 1.5]]])
    equal(eigencam(-ACT[:, :1], center=True), [[[-1.5, -0.5], [0.5, 1.5]]])


def test_eigen_gradcam_by_hand():
    # g A: rows (1, 0), (0, -1), (0, -1), (4, 0): the Gram matrix is diag(17, 2), so the first channel.
    equal(eigen_gradcam(ACT, GRAD), [[[1.0, 0.0], [0.0, 4.0]]])
    assert torch.equal(eigen_gradcam(ACT, GRAD), eigen_gradcam(ACT, -GRAD))


def test_seg_eigen_cam_by_hand():
    # |g| A of channel 0: (1, 0, 0, 4); channel 1: (0, 1, 1, 0). The first alone, less its mean 1.25.
    equal(seg_eigen_cam(ACT[:, :1], GRAD[:, :1]), [[[-0.25, -1.25], [-1.25, 2.75]]])
    # |min| > |max| turns it over: (-1, 0, 0, -4) less its mean is the opposite.
    equal(seg_eigen_cam(-ACT[:, :1], GRAD[:, :1]), [[[-0.25, -1.25], [-1.25, 2.75]]])
    equal(seg_eigen_cam(-ACT[:, :1], GRAD[:, :1], center=False), [[[1.0, 0.0], [0.0, 4.0]]])


def test_kpca_cam_by_hand():
    # The cells 0 and 2 of one channel, less their mean: -1 and 1. gamma is 1 over one channel, so K is tanh(2) on the
    # diagonal (1 * 1 + 1) and tanh(0) = 0 beside it. Centred: tanh(2)/2 [[1, -1], [-1, 1]], whose first eigenvalue is
    # tanh(2), of (-1, 1)/sqrt 2. The map: -sqrt(tanh(2)/2) and sqrt(tanh(2)/2).
    act = torch.tensor([[[[0.0, 2.0]]]]).double()
    size = math.sqrt(math.tanh(2) / 2)
    equal(kpca_cam(act), [[[-size, size]]])
    # rbf: 1 on the diagonal, exp(-4) beside it; centred (1 - exp(-4))/2 [[1, -1], [-1, 1]].
    size = math.sqrt((1 - math.exp(-4)) / 2)
    equal(kpca_cam(act, kernel="rbf"), [[[-size, size]]])
    # poly: 8 on the diagonal, 0 beside it.
    equal(kpca_cam(act, kernel="poly"), [[[-2.0, 2.0]]])
    # cosine: 1 and -1: the first eigenvalue is 2.
    equal(kpca_cam(act, kernel="cosine"), [[[-1.0, 1.0]]])
    # sigmoid with gamma = 1/2: tanh(1.5) and tanh(0.5).
    size = math.sqrt((math.tanh(1.5) - math.tanh(0.5)) / 2)
    equal(kpca_cam(act, gamma=0.5), [[[-size, size]]])


def test_kpca_cam_with_the_linear_kernel_is_centred_eigencam():
    act = drawn(3, 5, 4, 6)
    torch.testing.assert_close(kpca_cam(act, kernel="linear"), eigencam(act, center=True))


def test_kpca_cam_refuses_a_kernel_that_would_not_fit():
    with pytest.raises(RequestError, match="6400 cells"):
        kpca_cam(torch.zeros(1, 2, 80, 80))


def test_fem_by_hand():
    # Ten cells, one of them 10, the others 0: mean 1, std 3, so the threshold is 1 + 2 * 3 = 7: only that cell. Its
    # channel's weight is 1. A second channel, of nine 2 and one -18, is never above its mean 0 by twice its std 6.
    # A third, constant, stands out nowhere.
    act = torch.zeros(1, 3, 2, 5).double()
    act[0, 0, 0, 3] = 10
    act[0, 1] = 2
    act[0, 1, 0, 0] = -18
    act[0, 2] = 5
    wanted = torch.zeros(1, 2, 5).double()
    wanted[0, 0, 3] = 1
    assert torch.equal(fem(act), wanted)
    # With k = 0 a cell must reach the mean: in the second channel all but one, but its weight is 0.
    assert torch.equal(fem(act, k=0.0), wanted)


def test_lafam_by_hand():
    equal(lafam(ACT), [[[0.5, 1.5], [2.0, 2.0]]])


def test_random_is_noise_that_knows_nothing():
    act = drawn(3, 5, 4, 6)
    map = random(act)
    assert map.shape == (3, 4, 6)
    assert map.dtype == act.dtype
    assert map.min() >= 0
    assert map.max() < 1
    assert torch.equal(map[0], map[2])
    assert torch.equal(map, random(torch.zeros(3, 7, 4, 6).double()))
    assert not torch.equal(map, random(act, seed=1))
    assert map.std() > 0.2


# ---- the sign of components


def slopes(act):
    """A gradient behind pooling: the same in all cells, of both signs, and no channel's much greater than another's."""
    return (drawn(1, 16, 1, 1, seed=5).sign() * (0.5 + drawn(1, 16, 1, 1, seed=6).sigmoid())).expand_as(act)


COMPONENTS = {
    "eigencam": eigencam,
    "eigencam centred": lambda act: eigencam(act, center=True),
    "kpca-cam": kpca_cam,
    "kpca-cam rbf": lambda act: kpca_cam(act, kernel="rbf"),
    "eigen-gradcam": lambda act: eigen_gradcam(act, slopes(act)),
    "eigen-gradcam centred": lambda act: eigen_gradcam(act, slopes(act), center=True),
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [(6, 7), (10, 11)], ids=["small", "up to most of the image"])
@pytest.mark.parametrize("form", COMPONENTS)
def test_an_object_is_positive(form, size, signed):
    act, place = objects(200, size, signed, seed=7)
    map = COMPONENTS[form](act)
    inside = (map * place).sum((1, 2)) / place.sum((1, 2))
    outside = (map * ~place).sum((1, 2)) / (~place).sum((1, 2))
    assert (inside > 0).all()
    assert (inside > outside).all()


def test_equally_strong_cells_leave_the_sign_to_what_stands_out():
    # Tokens behind a LayerNorm: every cell has the length 1, so strength says nothing; three cells differ from the
    # rest.
    act = torch.zeros(2, 3, 4, 4).double()
    act[:, 0] = 1
    act[:, :, 0, :3] = torch.tensor([0.0, 0.6, 0.8]).double()[:, None]
    act[1] *= -1
    for map in principal_component(act, center=True):
        assert (map[0, :3] > 0.5).all()
        assert (map[1:] < 0).all()


# ---- the rows


@pytest.mark.parametrize(
    "row", [row for row in METHODS.rows if row.kind in ("gradient", "activation")], ids=lambda row: row.name
)
def test_rows_are_complete(row):
    function = METHODS.load(row.name)
    assert row.cost
    assert row.paper
    doc = function.__doc__
    assert "\n    Use: " in doc
    assert "\n    Not for: " in doc
    parameters = inspect.signature(function).parameters.values()
    options = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    assert ("    Args:\n" in doc) == bool(options)
    for option in options:
        assert f"        {option.name}: " in doc
        assert option.default is not option.empty
