"""One picture's maps, compared prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from camcli.base.errors import PictureError
from camcli.engine.explanation import Explanation
from camcli.engine.maps.result import Result
from camcli.images.view import View
from camcli.metrics import similarity
from camcli.outputs import style
from camcli.runs.prompts import Compared, Said
from camcli.runs.prompts.ask import Wording
from camcli.runs.prompts.sheet import Heats
from camcli.runs.prompts.summary import MEASURES, Matrix, means, of_one, plain, rounded
from camcli.runs.record.failures import reason
from camcli.runs.worker.item import Item


def compare(
    wording: Wording, item: Item, explained: dict[int, Explanation], heats: Heats, about: dict[str, Any]
) -> Compared:
    """A picture's line, without files.

    Args:
        wording: the prompts.
        item: the picture.
        explained: its maps, by the prompt's number.
        heats: what is drawn of them.
        about: what a line says of any picture.
    """
    assert item.picture is not None  # without a picture there is no explanation
    view = item.picture.view
    similarity = _similarity(explained, view, len(wording.prompts))
    one = next(iter(explained.values()))
    within = heats.deviation[view.window(view.input)]
    greatest = rounded(within.max())
    x, y = view.peak(heats.deviation)
    return Compared(
        **about,
        layer=one.layer,
        method=one.method,
        prompts=tuple(_say(wording, number, similarity, view, result) for number, result in enumerate(item.results)),
        similarity={name: plain(values) for name, values in similarity.items()},
        agreement=means(similarity, wording.pairs),
        apart=means(similarity, wording.apart) if wording.grouped else {},
        deviation={"mean": rounded(within.mean()), "greatest": greatest} if len(explained) > 1 else {},
        disagreement=(round(x, 2), round(y, 2)) if greatest > 0 else None,
        notes=item.notes,
        error=_name_missing(wording.prompts, item.results),
    )


def find_explained(results: Sequence[Result]) -> dict[int, Explanation]:
    """The prompts that have a map, by their numbers.

    Raises:
        PictureError: none has.
    """
    explained = {number: one for number, one in enumerate(results) if isinstance(one, Explanation)}
    if not explained:
        trouble = next(one for one in results if isinstance(one, PictureError))
        # One reason for all of them is the picture's own.
        words = trouble.message if len(results) == 1 else f"no prompt has a map; of the first: {trouble.message}"
        raise PictureError(words, trouble.hint)
    return explained


def _name_missing(prompts: Sequence[str], results: Sequence[Result]) -> str | None:
    """Name a prompt that has no map, and why."""
    missing = [(prompt, one) for prompt, one in zip(prompts, results, strict=True) if isinstance(one, PictureError)]
    if not missing:
        return None
    (prompt, error), more = missing[0], len(missing) - 1
    others = f" (nor {'has' if more == 1 else 'have'} {more} more)" if more else ""
    return f"the prompt {prompt!r} has no map{others}: {reason(error)}"


def _say(wording: Wording, number: int, similarity: dict[str, Matrix], view: View, result: Result) -> Said:
    prompt, text = wording.prompts[number], wording.texts[number]
    if isinstance(result, PictureError):
        return Said(prompt=prompt, text=text, error=reason(result))
    x, y = view.placed(result.placement).peak(style.display(result.map))
    return Said(
        prompt=prompt,
        text=text,
        score=result.score,
        probability=result.probability,
        strongest=style.strongest(result.map),
        peak=(round(x, 2), round(y, 2)),
        agreement=means(similarity, of_one(wording.pairs, number)),
        notes=result.notes,
    )


def _similarity(explained: dict[int, Explanation], view: View, count: int) -> dict[str, Matrix]:
    """For each measure the similarity of each two prompts' maps; NaN where it is not defined, or there is no map."""
    maps = np.stack([_flat(one.map) for one in explained.values()])
    placed = view.placed(next(iter(explained.values())).placement)
    whole = placed.whole_input()
    cells = maps[:, *placed.window(maps.shape[1:])]
    pixels = np.stack([whole.onto_picture(map) for map in maps])[:, *view.window(view.input)]
    found = {
        "pearson": similarity.pearson(cells),
        "ssim": similarity.ssim(pixels),
        "overlap": similarity.overlap(cells),
    }
    there = np.ix_([*explained], [*explained])
    alike: dict[str, Matrix] = {name: np.full((count, count), np.nan) for name in MEASURES}
    for name, values in found.items():
        alike[name][there] = values
    return alike


def _flat(map: Float32[np.ndarray, "*c h w"]) -> Float32[np.ndarray, "h w"]:
    """A map as it is; of one with colours the greatest magnitude over them (Simonyan 2013, arXiv:1312.6034)."""
    return map if map.ndim == 2 else np.asarray(np.abs(map).max(0))
