"""How alike maps are: worked out by hand, and against a plain reading of the papers."""

import numpy as np
import pytest

from camcli.metrics.similarity import K1, K2, SIGMA, WINDOW, pearson, ssim, topk_iou, topk_mask

MEASURES = [pearson, ssim, topk_iou]


def some(*numbers: list[list[float]]) -> np.ndarray:
    return np.array(numbers, np.float32)


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


# ---- Pearson


def test_r_by_hand() -> None:
    # Deviations from the mean: (-3 -1 1 3)/2, (-3 1 -1 3)/2; their product sums to 4, their squares to 5.
    found = pearson(some([[1, 2], [3, 4]], [[1, 3], [2, 4]], [[4, 3], [2, 1]]))
    np.testing.assert_allclose(found, [[1, 0.8, -1], [0.8, 1, -0.8], [-1, -0.8, 1]], atol=1e-12)


def test_r_is_that_of_numpy_however_large_the_mean() -> None:
    maps = noise(4, 5, 6) + np.float32(1000)
    np.testing.assert_allclose(pearson(maps), np.corrcoef(maps.reshape(4, -1).astype(np.float64)), atol=1e-12)


def test_r_is_never_beyond_one() -> None:
    one = noise(1, 7, 7)
    assert np.abs(pearson(np.concatenate([one, one * 3, -one]))).max() <= 1


# ---- SSIM


def window() -> np.ndarray:
    """The Gaussian window, which sums to 1."""
    steps = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / (2 * SIGMA**2))
    return weights / weights.sum()


def plain_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, equations 13 to 16, place by place."""
    one, other = ((map - map.min()) / (map.max() - map.min()) for map in (one.astype(float), other.astype(float)))
    weights, found = window(), []
    for top in range(one.shape[0] - WINDOW + 1):
        for left in range(one.shape[1] - WINDOW + 1):
            x, y = (map[top : top + WINDOW, left : left + WINDOW] for map in (one, other))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
            both = (weights * (x - mean_x) * (y - mean_y)).sum()
            c1, c2 = K1**2, K2**2
            above = (2 * mean_x * mean_y + c1) * (2 * both + c2)
            found.append(above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    return float(np.mean(found))


def test_ssim_is_that_of_a_plain_reading() -> None:
    maps = noise(3, 17, 14)
    maps[2] += 2 * maps[0]
    found = ssim(maps)
    for one in range(3):
        for other in range(3):
            assert found[one, other] == pytest.approx(plain_ssim(maps[one], maps[other]), abs=1e-10)
    # What scikit-image 0.26 says of the first two with Wang's settings (gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False, data_range=1), each brought to 0..1 before.
    assert found[0, 1] == pytest.approx(0.16328225387876755, abs=1e-9)


def test_ssim_of_a_map_and_its_negative_in_one_window_by_hand() -> None:
    # One column of ones: mean m = sum of its weights, variance m (1 - m); of the negative 1 - m, likewise; covariance
    # is minus the variance.
    map = np.zeros((WINDOW, WINDOW), np.float32)
    map[:, 5] = 1
    m = window()[:, 5].sum()
    spread = m * (1 - m)
    wanted = (2 * m * (1 - m) + K1**2) * (K2**2 - 2 * spread)
    wanted /= (m**2 + (1 - m) ** 2 + K1**2) * (2 * spread + K2**2)
    found = ssim(np.stack([map, -map]))
    np.testing.assert_allclose(found, [[1, wanted], [wanted, 1]], atol=1e-6)
    assert wanted < -0.5


def test_where_the_window_does_not_fit_there_is_no_ssim() -> None:
    assert np.isnan(ssim(noise(2, WINDOW - 1, 40))).all()


# ---- overlap


def test_which_cells_are_greatest_by_hand() -> None:
    # Of ten cells two.
    assert topk_mask(some([[5, 1, 2, 3, 9], [0, 0, 0, 0, 4]])[0]).tolist() == [[1, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    # The second place is shared by the three cells of 3.
    thirds = [[1, 1 / 3, 1 / 3, 0, 0], [1 / 3, 0, 0, 0, 0]]
    assert topk_mask(some([[9, 3, 3, 1, 0], [3, 0, 0, 0, 0]])[0]).tolist() == thirds
    # Of six cells 1.2: the second belongs to them by a fifth.
    assert topk_mask(some([[3, 2, 1], [0, -1, -2]])[0]).ravel().tolist() == pytest.approx([1, 0.2, 0, 0, 0, 0])


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 7), (14, 14), (5, 3), (24, 31)])
def test_the_parts_sum_to_the_share(shape: tuple[int, int]) -> None:
    map = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)
    parts = topk_mask(map)
    assert parts.sum() == pytest.approx(0.2 * map.size)
    assert 0 <= parts.min() <= parts.max() <= 1


def test_overlap_by_hand() -> None:
    maps = some(
        [[9, 8, 0, 0, 0], [0, 0, 0, 0, 0]],
        [[9, 0, 8, 0, 0], [0, 0, 0, 0, 0]],
        [[0, 0, 0, 9, 8], [0, 0, 0, 0, 0]],
        [[9, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    )
    found = topk_iou(maps)
    # Two cells each: one of three in common; none. The last has one cell, and a ninth of each of the nine others:
    # with the first map it has 1 + 1/9 in common, and 1 + 1 + 8/9 together.
    assert found[0].tolist() == pytest.approx([1, 1 / 3, 0, (10 / 9) / (26 / 9)])
    np.testing.assert_array_equal(found, found.T)


def test_sets_by_chance_overlap_by_a_ninth() -> None:
    found = topk_iou(noise(2, 200, 200))
    assert found[0, 1] == pytest.approx(1 / 9, abs=0.01)


# ---- laws of all of them


@pytest.mark.parametrize("measure", MEASURES)
def test_a_map_without_shape_is_like_none_and_unlike_none(measure) -> None:
    maps = noise(4, 12, 12)
    maps[1] = 0
    maps[2] = 7 + 1e-6 * noise(1, 12, 12, seed=1)  # rounding
    found = measure(maps)
    assert np.isnan(found[[1, 2]]).all()
    assert np.isnan(found[:, [1, 2]]).all()
    assert found[0, 0] == pytest.approx(1)
    assert np.isfinite(found[0, 3])


@pytest.mark.parametrize("measure", MEASURES)
def test_scale_and_ground_of_a_map_do_not_matter_nor_the_order_of_maps(measure) -> None:
    maps = noise(3, 13, 15)
    found = measure(maps)
    np.testing.assert_allclose(np.diag(found), 1)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(measure(maps * np.float32(4) - 1), found, atol=1e-5)
    np.testing.assert_allclose(measure(maps[::-1]), found[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_mirrored_maps_are_as_alike(measure) -> None:
    maps = np.random.default_rng(0).integers(0, 3, (3, 12, 14)).astype(np.float32)
    np.testing.assert_allclose(measure(maps[:, :, ::-1]), measure(maps), atol=1e-12)
