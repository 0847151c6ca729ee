"""What all images say together, held against NumPy; and which pairs count."""

import numpy as np
import pytest

from camcli.runs.prompts import PromptComparison, PromptResult
from camcli.runs.prompts.summary import (
    average_pairs,
    find_compared_pairs,
    find_least_alike,
    has_several_texts,
    select_prompt_pairs,
    summarize,
)
from camcli.runs.worker.map_similarity import MEASURES, nan_to_none, none_to_nan


def record(
    name: str, values: np.ndarray, scores: list[float | None], texts: list[int] | None = None
) -> PromptComparison:
    """An image's line in which every measure has the same matrix."""
    similarity = dict.fromkeys(MEASURES, values)
    said = tuple(
        PromptResult(prompt=f"p{number}", text=text, score=score, error=None if score is not None else "no")
        for number, (text, score) in enumerate(zip(texts or [0] * len(scores), scores, strict=True))
    )
    return PromptComparison(
        source=name,
        name=name,
        stamp="1",
        job="j",
        run="r",
        prompts=said,
        similarity={measure: nan_to_none(values) for measure in MEASURES},
        agreement=average_pairs(similarity, find_compared_pairs(texts or [0] * len(scores))),
    )


def symmetric(*above: float) -> np.ndarray:
    """Three prompts: the similarity of 1 and 2, 1 and 3, 2 and 3."""
    a, b, c = above
    return np.array([[1, a, b], [a, 1, c], [b, c, 1]])


def test_prompts_of_one_text_are_compared_where_a_text_has_several() -> None:
    assert find_compared_pairs([0, 0, 1, 1]).astype(int).tolist() == [
        [0, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 0],
    ]
    assert find_compared_pairs([0, 1, 2]).astype(int).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert not has_several_texts(find_compared_pairs([0, 0, 0]))
    assert not has_several_texts(find_compared_pairs([0, 1, 2]))
    assert has_several_texts(find_compared_pairs([0, 0, 1, 1]))


def test_means_are_over_what_is_defined() -> None:
    values = symmetric(0.5, np.nan, 0.1)
    pairs = find_compared_pairs([0, 1, 2])
    assert average_pairs({"r": values}, pairs) == {"r": pytest.approx(0.3)}
    assert [average_pairs({"r": values}, select_prompt_pairs(pairs, number))["r"] for number in range(3)] == [
        0.5,
        pytest.approx(0.3),
        0.1,
    ]
    assert average_pairs({"r": symmetric(*[np.nan] * 3)}, pairs) == {"r": None}


def test_the_pair_least_alike_is_one_that_is_compared() -> None:
    values = symmetric(0.5, -0.9, 0.1)
    assert find_least_alike(values, find_compared_pairs([0, 1, 2])) == (0, 2)
    values[0, 2] = values[2, 0] = np.nan
    assert find_least_alike(values, find_compared_pairs([0, 1, 2])) == (1, 2)
    assert find_least_alike(symmetric(0.5, -0.9, 0.1), find_compared_pairs([0, 0, 1])) == (0, 1)


def test_json_knows_no_nan() -> None:
    values = symmetric(0.123456789, np.nan, -0.0000001)
    assert nan_to_none(values)[0] == [1.0, 0.123457, None]
    np.testing.assert_array_equal(none_to_nan(nan_to_none(values)), np.round(values, 6))


def test_a_summary_by_hand() -> None:
    pictures = [
        record("a", symmetric(0.8, 0.2, 0.5), [3.0, 1.0, 2.0]),
        record("b", symmetric(-0.4, np.nan, np.nan), [1.0, 5.0, None]),
        record("c", symmetric(0.0, 0.6, 0.3), [1.0, 2.0, 2.0]),
    ]
    found = summarize(lambda: iter(pictures), ["p0", "p1", "p2"], [0, 1, 2], "ssim", 2)
    assert found.pictures == 3
    for name in MEASURES:
        wanted = symmetric((0.8 - 0.4 + 0) / 3, 0.4, 0.4)
        np.testing.assert_allclose(none_to_nan(found.similarity[name]), wanted, atol=1e-6)
        assert found.defined[name] == [[3, 3, 2], [3, 3, 2], [2, 2, 3]]
        # Seven pairs: 0.8 0.2 0.5, -0.4, 0 0.6 0.3.
        assert found.agreement[name] == pytest.approx(2 / 7, abs=1e-6)
        assert found.prompts[0].agreement[name] == pytest.approx((0.8 + 0.2 - 0.4 + 0.0 + 0.6) / 5, abs=1e-6)
    assert found.apart == {}
    # The image in which a prompt has no map tells nothing of who is best; of equal scores the first is.
    assert [one.best for one in found.prompts] == [1, 1, 0]
    assert [one.score for one in found.prompts] == pytest.approx([5 / 3, 8 / 3, 2], abs=1e-6)
    assert [one.source for one in found.unstable] == ["b", "c"]


def test_where_nothing_is_defined_there_is_nothing() -> None:
    pictures = [record("a", symmetric(*[np.nan] * 3), [1.0, 2.0, 3.0])]
    found = summarize(lambda: iter(pictures), ["p0", "p1", "p2"], [0, 1, 2], "pearson", 5)
    assert found.unstable == ()
    assert found.agreement == dict.fromkeys(MEASURES)
    assert found.similarity["pearson"][0] == [1, None, None]
    assert found.prompts[1].agreement["overlap"] is None


def test_prompts_of_different_texts_stand_apart() -> None:
    values = np.array([[1, 0.9, 0.1, 0.2], [0.9, 1, 0.3, 0.4], [0.1, 0.3, 1, 0.7], [0.2, 0.4, 0.7, 1]])
    pictures = [record("a", values, [1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])]
    found = summarize(lambda: iter(pictures), ["a", "b", "c", "d"], [0, 0, 1, 1], "pearson", 5)
    assert found.agreement["pearson"] == pytest.approx(0.8)
    assert found.apart["pearson"] == pytest.approx(0.25)
    assert [one.agreement["pearson"] for one in found.prompts] == [0.9, 0.9, 0.7, 0.7]


def test_the_least_stable_come_first_and_of_equal_ones_the_earlier() -> None:
    levels = [0.5, 0.1, 0.5, 0.1, 0.9]
    pictures = [record(str(at), symmetric(level, level, level), [0.0] * 3) for at, level in enumerate(levels)]
    found = summarize(lambda: iter(pictures), ["p0", "p1", "p2"], [0, 1, 2], "pearson", 3)
    assert [one.name for one in found.unstable] == ["1", "3", "0"]
