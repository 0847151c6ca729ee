"""Statistics of channels in one pass: by hand, and those of NumPy over the whole matrix."""

import weakref

import numpy as np
import pytest

from camcli.metrics.statistics import RunningStats, TopK, chance_correlation


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_statistics_of_batches_are_those_of_the_whole_matrix(offset: float) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(500, 7)) * random.uniform(0.1, 10, 7) + offset
    beside = values[:, 3] * 0.1 + random.normal(size=500) - offset
    moments = RunningStats(7)
    start = 0
    while start < 500:
        stop = min(500, start + int(random.integers(1, 40)))
        moments.add(values[start:stop], beside[start:stop])
        start = stop
    found = moments.compute()
    assert found.count == 500
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(0), rtol=1e-9)
    np.testing.assert_array_equal(found.max, values.max(0))
    np.testing.assert_array_equal(found.active, (values > 0).mean(0))
    wanted = [np.corrcoef(values[:, channel], beside)[0, 1] for channel in range(7)]
    # Spreads of less than a millionth of the value are taken for rounding: none here is.
    np.testing.assert_allclose(found.correlation, wanted, rtol=1e-7, atol=1e-9)


def test_statistics_by_hand() -> None:
    moments = RunningStats(2)
    moments.add(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([10.0, 20.0]))
    moments.add(np.array([[5.0, -2.0]]), np.array([60.0]))
    found = moments.compute()
    assert found.mean.tolist() == pytest.approx([3, -2 / 3])
    assert found.max.tolist() == [5, 0]
    assert found.std.tolist() == pytest.approx([(8 / 3) ** 0.5, (8 / 9) ** 0.5])
    assert found.active.tolist() == [1, 0]
    # Deviations (-2, 0, 2), (2/3, 2/3, -4/3) and (-20, -10, 30).
    assert found.correlation[0] == pytest.approx(100 / (8 * 1400) ** 0.5)
    assert found.correlation[1] == pytest.approx(-60 / (8 / 3 * 1400) ** 0.5)


def test_what_is_constant_has_no_spread_and_no_correlation() -> None:
    moments = RunningStats(3)
    for batch in (3, 1, 5):  # 0.1 and its sums are no binary numbers
        values = np.tile([0.1, 1.0, 7.0], (batch, 1))
        values[0, 1] = -1
        values[0, 2] += 1e-8  # rounding
        moments.add(values, np.arange(batch, dtype=float))
    found = moments.compute()
    assert found.std[0] == 0
    assert np.isnan(found.correlation).tolist() == [True, False, True]
    moments = RunningStats(1)
    for value in (1.0, 2.0, 3.0):
        moments.add(np.array([[value]]), np.array([0.1]))
    assert np.isnan(moments.compute().correlation).all()


def test_one_picture_has_a_mean_and_nothing_to_correlate() -> None:
    moments = RunningStats(1)
    moments.add(np.array([[2.0]]), np.array([5.0]))
    found = moments.compute()
    assert (found.count, found.mean[0], found.max[0], found.std[0], found.active[0]) == (1, 2, 2, 0, 1)
    assert np.isnan(found.correlation[0])


def test_of_nothing_there_are_no_statistics() -> None:
    moments = RunningStats(1)
    moments.add(np.empty((0, 1)))
    with pytest.raises(ValueError, match="no values"):
        moments.compute()


def test_a_correlation_is_never_beyond_one() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(9, 200)).astype(np.float32)
    moments = RunningStats(200)
    for row in values:
        moments.add(np.tile(row[:1], (1, 200)) * np.linspace(-3, 3, 200), row[:1])
    found = moments.compute().correlation
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(found, np.sign(np.linspace(-3, 3, 200)), rtol=1e-12)


def test_the_greatest_are_those_of_a_sort_of_all_and_of_equal_ones_the_first() -> None:
    random = np.random.default_rng(1)
    values = random.integers(-4, 5, (101, 6)).astype(np.float32)
    greatest = TopK[str](6, 4)
    for start in range(0, 101, 7):
        some = values[start : start + 7]
        greatest.add(some, [f"p{start + row}" for row in range(len(some))])
    for channel in range(6):
        own = values[:, channel]
        order = [row for row in np.argsort(-own, kind="stable") if own[row] != 0][:4]
        assert greatest.top_of(channel) == [(f"p{row}", own[row]) for row in order]


def test_where_a_channel_says_nothing_no_picture_drives_it_and_what_is_negative_can() -> None:
    greatest = TopK[str](3, 5)
    greatest.add(np.array([[0.0, -1.0, 2.0], [0.0, -0.5, 0.0]]), ["a", "b"])
    assert [greatest.top_of(channel) for channel in range(3)] == [[], [("b", -0.5), ("a", -1.0)], [("a", 2.0)]]


class Name:
    """A name that can be seen to be kept."""


def test_names_are_kept_of_as_many_pictures_as_can_be_shown_and_no_more() -> None:
    greatest, kept = TopK[Name](5, 3), weakref.WeakSet[Name]()
    random = np.random.default_rng(0)
    for _ in range(500):
        names = [Name() for _ in range(8)]
        kept.update(names)
        greatest.add(random.normal(size=(8, 5)), names)
        del names
        assert 5 <= len(kept) <= 2 * 5 * 3 + 8


def test_what_chance_alone_reaches() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(400):
        values, beside = random.normal(size=(30, 50)), random.normal(size=30)
        moments = RunningStats(50)
        moments.add(values, beside)
        found.append(np.abs(moments.compute().correlation).max())
    assert chance_correlation(50, 30) == pytest.approx(np.median(found), abs=0.01)
    assert chance_correlation(50, 3) is None
