"""SaCo and infidelity: by hand, where a linear score has a known best map, and against Captum."""

from itertools import combinations

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import infidelity_perturb_func_decorator
from planted import plant_in_image

from camcli.metrics import CONTROLS
from camcli.metrics.faithfulness import infidelity, saco


def scoring(weights: np.ndarray):
    """A score linear in the pixels: those of the weights, times these, summed."""
    return lambda variants: ((one * weights).sum((1, 2, 3)).astype(np.float64) for one in variants)


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    return plant_in_image()


def test_saco_by_hand() -> None:
    # Mean 2; without each pixel the score of ones loses 4, 0, -2, -2.
    image = np.array([[[6, 2], [0, 0]]], np.float32)
    score_of = scoring(np.ones((2, 2)))
    # Groups of one pixel, 5, 3, 2, 0: pairs weigh 2, 3, 5, 1, 3, 2, and all are in the order of the effects.
    right = np.array([[[5, 3], [2, 0]]], np.float32)
    assert saco(right, image, score_of, groups=4) == [1]
    # The first two swapped: the pair that weighs 2 counts against.
    swapped = np.array([[[3, 5], [2, 0]]], np.float32)
    assert saco(swapped, image, score_of, groups=4) == pytest.approx([12 / 16])
    # Of two groups, with effects 4 and -4: right, and wrong.
    assert saco(np.concatenate([right, -right]), image, score_of, groups=2).tolist() == [1, -1]


def test_saco_is_that_of_a_plain_reading(planted) -> None:
    image, weights = planted
    map = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    order = np.argsort(-map, axis=None)
    image_mean = image.mean((1, 2), keepdims=True)
    strengths, effects = [], []
    for part in np.array_split(order, 8):
        changed = np.where(np.isin(np.arange(map.size), part).reshape(map.shape), image_mean, image)
        effects.append(((image - changed) * weights).sum())
        strengths.append(map.ravel()[part].sum())
    pairs = [
        (strengths[one] - strengths[other]) * (1 if effects[one] >= effects[other] else -1)
        for one, other in combinations(range(8), 2)
    ]
    expected = sum(pairs) / np.abs(pairs).sum()
    assert saco(map[None], image, scoring(weights), groups=8) == pytest.approx([expected], rel=1e-5)


def test_the_truth_of_a_linear_score_is_best(planted) -> None:
    image, weights = planted
    truth = ((image - image.mean((1, 2), keepdims=True)) * weights).sum(0)
    rng = np.random.default_rng(2)
    others = np.stack([CONTROLS.load(name)(image, rng) for name in CONTROLS.names()])
    maps = np.concatenate([truth[None], others])
    best, *rest = saco(maps, image, scoring(weights))
    assert best == pytest.approx(1)
    found = dict(zip(CONTROLS.names(), rest, strict=True))
    assert max(found[name] for name in ("random", "smooth-random", "centre")) < 0.5
    assert found["edges"] <= 1  # the object is noise, which has the strongest edges
    assert np.isnan(found["uniform"])
    best, *rest = infidelity(maps, image, scoring(weights))
    assert best == pytest.approx(0, abs=1e-6)
    assert all(one > 1 for one in rest)
    assert np.isnan(infidelity(np.zeros((1, 32, 32), np.float32), image, scoring(weights)))


def test_saco_of_random_maps_is_around_zero(planted) -> None:
    image, weights = planted
    maps = np.random.default_rng(0).random((200, 32, 32), np.float32)
    found = saco(maps, image, scoring(weights))
    assert abs(found.mean()) < 4 * found.std() / 200**0.5


def test_infidelity_is_captums(planted) -> None:
    image, weights = planted
    image = image[:1]
    rng = np.random.default_rng(3)
    map = rng.normal(size=(32, 32)).astype(np.float32)
    mean, seen = image.mean(), []

    def score_of(variants):
        for one in variants:
            seen.append(one)
            yield np.tanh((one * weights).mean((1, 2, 3)).astype(np.float64))

    [ours] = infidelity(map[None], image, score_of, samples=12)
    changed = torch.from_numpy(np.concatenate(seen[1:])).double()
    factors = iter(changed)

    # Captum's guess is the sum of the map times (x - x') / x: the square, where the mean is subtracted from the image.
    @infidelity_perturb_func_decorator(multiply_by_inputs=True)
    def perturb(inputs):
        return torch.stack([next(factors) - mean for _ in inputs])

    theirs = captum_infidelity(
        lambda some: torch.tanh(((some + mean) * torch.from_numpy(weights)).mean((1, 2, 3))),
        perturb,
        torch.from_numpy(image - mean)[None].double(),
        torch.from_numpy(map)[None, None].double(),
        n_perturb_samples=12,
        max_examples_per_batch=1,
        normalize=True,
    )
    assert ours == pytest.approx(float(theirs), rel=1e-4)
