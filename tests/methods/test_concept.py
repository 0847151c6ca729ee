"""Deep feature factorization: worked out by hand, and what it refuses."""

import pytest
import torch
from concepts import alone, drawn

from camcli import RequestError
from camcli.methods.activation import eigencam
from camcli.methods.concept import dff, dff_directions
from camcli.methods.factors import factorize, solve_weights


def two_places():
    # Two concepts in places of their own: channel 0 has 4 in the left column, channels 1 and 2 have 3 and 4 on the
    # right. The right one's direction is (0, 3, 4) / 5, so its map is 5; the left one's map is 4, and comes second.
    act = torch.zeros(1, 3, 2, 2).double()
    act[0, 0, :, 0] = 4
    act[0, 1, :, 1] = 3
    act[0, 2, :, 1] = 4
    return act


MAPS = torch.tensor([[[[0.0, 5.0], [0.0, 5.0]], [[4.0, 0.0], [4.0, 0.0]]]]).double()
DIRECTIONS = torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]], dtype=torch.float64)


def test_dff_by_hand():
    found = alone(two_places(), concepts=2)
    torch.testing.assert_close(found.maps, MAPS, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.kept_share, torch.ones(1).double())
    assert found.classes.shape == found.score_gains.shape == (1, 2, 0)
    # One concept of an image of rank one is EigenCAM.
    act = two_places()
    torch.testing.assert_close(alone(act[:, :1], concepts=1).maps[:, 0], eigencam(act[:, :1]))


def test_the_directions_of_several_pictures_by_hand():
    # The left column in one image, the right one in another: together they are the image above.
    act = two_places()
    cells = act.flatten(2).mT.flatten(0, 1)
    torch.testing.assert_close(dff_directions([cells], concepts=2), DIRECTIONS, rtol=1e-6, atol=1e-6)
    left, right = act.clone(), act.clone()
    left[..., 1], right[..., 0] = 0, 0
    found = dff(torch.cat([left, right]), DIRECTIONS, None, concepts=2)
    wanted = torch.cat([MAPS, MAPS])
    wanted[0, 0], wanted[1, 1] = 0, 0
    torch.testing.assert_close(found.maps, wanted, rtol=1e-9, atol=1e-9)


def test_dff_rectifies_and_does_not_mix():
    act = drawn(3, 6, 4, 5)
    found = alone(act, concepts=3)
    maps = found.maps
    assert maps.shape == (3, 3, 4, 5)
    assert (maps >= 0).all()
    positive = alone(act.clamp(min=0), concepts=3)
    torch.testing.assert_close(maps, positive.maps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.kept_share, positive.kept_share)
    assert (positive.negative_share == 0).all()
    torch.testing.assert_close(
        found.negative_share, act.clamp(max=0).square().sum((1, 2, 3)) / act.square().sum((1, 2, 3))
    )
    energy = maps.flatten(2).norm(dim=2)
    assert (energy[:, :-1] >= energy[:, 1:]).all()
    for row in range(3):
        torch.testing.assert_close(alone(act[row : row + 1], concepts=3).maps[0], maps[row], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(alone(1e-9 * act, concepts=3).maps, 1e-9 * maps, rtol=1e-6, atol=1e-18)


def separable(cells=20, seed=3):
    """Places times directions, with places that are each some concept's alone, so that there is one factorisation."""
    places = drawn(cells, 3, seed=seed).abs()
    places[:6] = torch.eye(3).double().repeat(2, 1) * 2
    directions = drawn(3, 30, seed=4).abs()
    # Channels of one concept alone make the directions unique too.
    directions[:, :9] *= torch.eye(3).double().repeat(1, 3)
    return places, directions


def test_dff_finds_what_an_image_was_made_of():
    places, directions = separable()
    act = (places @ directions).T.reshape(1, 30, 4, 5)
    found = alone(act, concepts=3, iterations=3000)
    assert found.kept_share > 0.9999
    truth = (places * directions.norm(dim=1)).T
    order = truth.norm(dim=1).argsort(descending=True)
    torch.testing.assert_close(found.maps[0].flatten(1), truth[order], rtol=0.03, atol=0.03 * float(truth.max()))
    maps, parts = factorize((places @ directions)[None], 3, 3000)
    wanted = directions[order] / directions[order].norm(dim=1, keepdim=True)
    torch.testing.assert_close(parts[0], wanted, rtol=0.03, atol=0.01)
    torch.testing.assert_close(maps[0] @ parts[0], places @ directions, rtol=0.02, atol=0.06)


def test_the_order_of_concepts_does_not_hang_on_that_of_cells_or_channels():
    act = drawn(1, 6, 4, 5, seed=9).abs()
    maps, parts = factorize(act.flatten(2).mT, 3, 50)
    cells, channels = torch.randperm(20), torch.randperm(6)
    turned, others = factorize(act.flatten(2).mT[:, cells][..., channels], 3, 50)
    torch.testing.assert_close(turned, maps[:, cells], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(others, parts[..., channels], rtol=1e-6, atol=1e-9)


def test_with_its_directions_given_each_cell_is_fitted_by_hand():
    # (1, 0) and (1, 1) / sqrt 2. Within their cone both count; beside it one alone, as near as it comes; behind, none.
    directions = torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5]], dtype=torch.float64)
    cells = torch.tensor([[[3.0, 1.0], [0.0, 2.0], [2.0, -1.0], [-1.0, -1.0]]]).double()
    wanted = torch.tensor([[[2.0, 2**0.5], [0.0, 2**0.5], [2.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(solve_weights(cells, directions, 200), wanted, rtol=1e-9, atol=1e-9)
    # A direction that is nothing has no part.
    none = torch.cat([directions, torch.zeros(1, 2).double()])
    torch.testing.assert_close(solve_weights(cells, none, 200)[..., :2], wanted, rtol=1e-9, atol=1e-9)


def test_no_other_weights_that_are_not_negative_come_nearer():
    rows, directions = drawn(1, 7, 9, seed=1).abs(), torch.nn.functional.normalize(drawn(4, 9, seed=2).abs(), dim=1)
    maps = solve_weights(rows, directions, 500)
    assert (maps >= 0).all()
    # Karush, Kuhn and Tucker: no gradient where a weight is positive, none that would raise one that is zero.
    gradient = (maps @ directions - rows) @ directions.mT
    assert (gradient >= -1e-6).all()
    assert ((gradient * maps).abs() < 1e-6).all()
    places, given = separable()
    given = torch.nn.functional.normalize(given, dim=1)
    torch.testing.assert_close(solve_weights((places @ given)[None], given, 500)[0], places, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"concepts": 9}, "9 concepts cannot be separated in a layer of 8 channels and 4 x 4 cells"),
        ({"concepts": 0}, "0 concepts"),
        ({"iterations": 0}, "0 iterations"),
        ({"classes": -1}, "-1 classes"),
    ],
)
def test_dff_refuses(options, reason):
    with pytest.raises(RequestError, match=reason):
        alone(drawn(1, 8, 4, 4), **options)
