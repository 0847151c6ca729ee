"""Total Sobol indices of factors: by hand, in closed form, and of concepts."""

import pytest
import torch
from concepts import drawn

from camcli import RequestError
from camcli.methods.concept import dff
from camcli.methods.designs import find_total_indices

LIKE = torch.zeros((), dtype=torch.float64)


def answering(score, seen=None):
    """Answers to points, each the variant itself: a function of a point (k,) to scores (n, ...)."""

    def answer(variants):
        for one in variants:
            if seen is not None:
                seen.append(one)
            yield score(one)

    return answer


def test_total_indices_by_hand():
    # As of Sobol attribution: see there. Two images, the second of twice the score, whose index is the same.
    found = find_total_indices(answering(lambda point: torch.stack([point[0], 2 * point[0]])), lambda m: m, 1, 4, LIKE)
    torch.testing.assert_close(found, torch.full((2, 1), 3 / 5).double())


def test_total_indices_of_several_scores_in_closed_form():
    # Of a + 2 b the shares are 1/5 and 4/5; of a b each takes part in 4/7; a score of neither has none.
    def scores(point):
        a, b = point
        return torch.stack([a + 2 * b, a * b, 0 * a])[None]

    seen = []
    found = find_total_indices(answering(scores, seen), lambda m: m, 2, 4096, LIKE)
    assert found.shape == (1, 2, 3)
    torch.testing.assert_close(found[0, :, :2], torch.tensor([[0.2, 4 / 7], [0.8, 4 / 7]]).double(), atol=0.01, rtol=0)
    assert found[0, :, 2].isnan().all()
    assert len(seen) == 4096 * 3


@pytest.mark.parametrize("factors", [5, 20])
def test_few_points_of_a_scrambled_sequence_are_even_in_many_dimensions(factors):
    found = find_total_indices(answering(lambda point: point.sum()[None]), lambda m: m, factors, 32, LIKE, seed=0)
    assert found.sum() == pytest.approx(1, abs=0.12)
    assert ((factors * found > 0.75) & (factors * found < 1.25)).all()
    again = find_total_indices(answering(lambda point: point.sum()[None]), lambda m: m, factors, 32, LIKE, seed=0)
    assert torch.equal(found, again)


def test_too_many_factors_are_refused():
    with pytest.raises(RequestError, match="20000 factors are out of range"):
        find_total_indices(answering(lambda m: m), lambda m: m, 20000, 4, LIKE)


def pooled(weights):
    """The scores of every class behind pooling and a linear layer, of layer outputs (n, c, h, w)."""
    return answering(lambda act: act.mean((2, 3)) @ weights.T)


def test_the_importance_of_concepts_behind_pooling_and_a_linear_layer():
    # The score of class k is then sum_i m_i mean(H_i) W_i w_k: the shares of its squared terms, one for each concept.
    act, weights = drawn(2, 6, 4, 5).abs(), drawn(3, 6, seed=5)
    found = dff(act, None, pooled(weights), concepts=3, over="picture", importance=2048)
    plain = dff(act, None, pooled(weights), concepts=3, over="picture", classes=3)
    assert plain.importances is None
    torch.testing.assert_close(found.maps, plain.maps)
    assert found.importances.shape == (2, 3, 3)
    # What a concept alone gives is the rise from nothing, which is known of every class.
    terms = torch.zeros(2, 3, 3).double().scatter(2, plain.classes, plain.score_gains)
    wanted = terms.square() / terms.square().sum(1, keepdim=True)
    torch.testing.assert_close(found.importances, wanted, atol=0.01, rtol=0)


def test_the_importance_of_concepts_needs_scores_and_enough_designs():
    act = drawn(1, 6, 4, 5).abs()
    with pytest.raises(RequestError, match="which this network lacks"):
        dff(act, None, None, concepts=2, importance=8)
    with pytest.raises(RequestError, match="out of range"):
        dff(act, None, pooled(drawn(3, 6)), concepts=2, importance=3)
