"""Comparison of one image's maps, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.engine.maps.result import Result
from camcli.images.view import View, is_fine
from camcli.outputs import style
from camcli.runs.prompts import PromptComparison, PromptResult
from camcli.runs.prompts.ask import PromptSet
from camcli.runs.prompts.sheet import PromptHeatmaps
from camcli.runs.prompts.summary import average_pairs, select_prompt_pairs
from camcli.runs.record.failures import format_error
from camcli.runs.worker.item import Item
from camcli.runs.worker.map_similarity import Matrix, PlacedMap, measure_similarity, nan_to_none, round_value


def compare_maps(
    prompt_set: PromptSet,
    item: Item,
    explained: dict[int, Explanation],
    heatmaps: PromptHeatmaps,
    line_fields: dict[str, Any],
) -> PromptComparison:
    """Compare an image's maps; return its line, without files.

    Args:
        prompt_set: the prompts.
        item: the image.
        explained: its explanations, by the prompt's number.
        heatmaps: its maps as drawn.
        line_fields: fields that a line of any image has.
    """
    assert item.picture is not None  # without an image there is no explanation
    view = item.picture.view
    similarity = _measure_similarity(explained, view, len(prompt_set.prompts))
    one = next(iter(explained.values()))
    deviation = heatmaps.deviation[view.visible_window(view.input)]
    greatest = round_value(deviation.max())
    x, y = view.peak(heatmaps.deviation)
    return PromptComparison(
        **line_fields,
        layer=one.layer,
        method=one.method,
        prompts=tuple(
            _make_result(prompt_set, number, similarity, view, result) for number, result in enumerate(item.results)
        ),
        similarity={name: nan_to_none(values) for name, values in similarity.items()},
        agreement=average_pairs(similarity, prompt_set.pairs),
        apart=average_pairs(similarity, prompt_set.pairs_across_texts) if prompt_set.has_several_texts else {},
        deviation={"mean": round_value(deviation.mean()), "greatest": greatest} if len(explained) > 1 else {},
        disagreement=(round(x, 2), round(y, 2)) if greatest > 0 else None,
        placement=one.placement.numbers if one.placement else None,
        notes=item.notes,
        error=_describe_missing(prompt_set.prompts, item.results),
    )


def find_explained(results: Sequence[Result]) -> dict[int, Explanation]:
    """Return the explanations of prompts that have a map, by the prompt's number.

    Raises:
        PictureError: no prompt has a map.
    """
    explained = {number: one for number, one in enumerate(results) if isinstance(one, Explanation)}
    if not explained:
        trouble = next(one for one in results if isinstance(one, PictureError))
        # A single reason is the image's own.
        words = (
            trouble.message if len(results) == 1 else (f"no prompt has a map; the first failed with: {trouble.message}")
        )
        raise PictureError(words, trouble.hint)
    return explained


def _describe_missing(prompts: Sequence[str], results: Sequence[Result]) -> str | None:
    """Describe the first prompt that has no map, with the reason."""
    missing = [(prompt, one) for prompt, one in zip(prompts, results, strict=True) if isinstance(one, PictureError)]
    if not missing:
        return None
    (prompt, error), more = missing[0], len(missing) - 1
    others = f" (nor {'has' if more == 1 else 'have'} {more} more)" if more else ""
    return f"the prompt {prompt!r} has no map{others}: {format_error(error)}"


def _make_result(
    prompt_set: PromptSet, number: int, similarity: dict[str, Matrix], view: View, result: Result
) -> PromptResult:
    prompt, text = prompt_set.prompts[number], prompt_set.text_indices[number]
    if isinstance(result, PictureError):
        return PromptResult(prompt=prompt, text=text, error=format_error(result))
    x, y = view.placed(result.placement).peak(style.rectify(result.map))
    return PromptResult(
        prompt=prompt,
        text=text,
        score=result.score,
        probability=result.probability,
        strongest=style.peak_value(result.map, is_fine(result.map, view)),
        peak=(round(x, 2), round(y, 2)),
        agreement=average_pairs(similarity, select_prompt_pairs(prompt_set.pairs, number)),
        notes=result.notes,
    )


def _measure_similarity(explained: dict[int, Explanation], view: View, count: int) -> dict[str, Matrix]:
    """Return, for each measure, the similarity of each two prompts' maps; NaN where undefined or without a map."""
    maps = {
        number: PlacedMap(_flatten_colours(one.map), view.placed(one.placement)) for number, one in explained.items()
    }
    return measure_similarity([maps.get(number) for number in range(count)])[0]


def _flatten_colours(map: Float32[np.ndarray, "*c h w"]) -> Float32[np.ndarray, "h w"]:
    """Reduce a map with colours to the greatest magnitude over them (Simonyan 2013, arXiv:1312.6034)."""
    return map if map.ndim == 2 else np.asarray(np.abs(map).max(0))
