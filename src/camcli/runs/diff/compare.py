"""Comparison of two maps of the same image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32

from camcli.base.errors import PictureError
from camcli.metrics import NO_POSITIVE, similarity
from camcli.runs.diff import MapChange, Presence
from camcli.runs.diff.pairs import Pair
from camcli.runs.record.finished import RecordedMap
from camcli.runs.record.outcome import Outcome
from camcli.runs.worker.map_similarity import PlacedMap, measure_similarity


def compare_pair(pair: Pair) -> MapChange:
    """Compare the maps of a pair, of which one may be missing or failed."""
    base, new = pair
    one, other = (None if recorded is None else recorded.outcome for recorded in pair)
    with_map = [recorded.outcome for recorded in (new, base) if recorded and recorded.has_map]
    given = other or one
    assert given is not None  # a pair has at least one
    shown = with_map[0] if with_map else given
    words: dict[str, Any] = {
        "name": given.name,
        "source": given.source,
        "page": given.page,
        "base_label": one.label if one else None,
        "new_label": other.label if other else None,
        "method": shown.method or "",
        "layer": shown.layer or "",
        "base_error": _find_error(base),
        "new_error": _find_error(new),
        **_compare_numbers(one, other),
    }
    if len(with_map) < 2 or base is None or new is None:
        there: Presence = "none" if not with_map else "base" if base and base.has_map else "new"
        return MapChange(**words, there=there, reasons=tuple(_explain_missing(base, new)))
    reasons = [*_explain_score(base.outcome, new.outcome)]
    try:
        found, more = _compare_maps(base, new)
    except PictureError as error:
        found, more = {}, [error.message]
        if _is_readable(base) and not _is_readable(new):  # it was lost since, as if the new run did not have it
            found = {"there": "base"}
    return MapChange(**words, **found, reasons=(*reasons, *more))


def _is_readable(recorded: RecordedMap) -> bool:
    try:
        recorded.load()
    except PictureError:
        return False
    return True


def _find_error(recorded: RecordedMap | None) -> str | None:
    return None if recorded is None or recorded.has_map else recorded.outcome.error


def _explain_missing(base: RecordedMap | None, new: RecordedMap | None) -> Iterator[str]:
    for name, one in (("base", base), ("new run", new)):
        if one is None:
            yield f"the {name} does not have it"
        elif error := _find_error(one):
            yield f"it failed in the {name}: {error.splitlines()[0]}"


def _explain_score(one: Outcome, other: Outcome) -> Iterator[str]:
    """Yield why the scores of one class cannot be compared: they are margins over other classes."""
    if one.label == other.label and one.versus != other.versus:
        rivals = [f"over {line.versus}" if line.versus else "over no class" for line in (one, other)]
        yield f"the scores are not of the same margin: {rivals[0]} in the base, {rivals[1]} in the new run"


def _compare_numbers(one: Outcome | None, other: Outcome | None) -> dict[str, Any]:
    """Return scores, probabilities and predictions of both, and their changes."""
    found: dict[str, Any] = {}
    for name in ("score", "probability"):
        before, after = (None if line is None else getattr(line, name) for line in (one, other))
        found |= {f"base_{name}": before, f"new_{name}": after, f"{name}_change": None}
        if one is None or other is None or one.label != other.label or before is None or after is None:
            continue
        if name == "probability" or one.versus == other.versus:
            found[f"{name}_change"] = after - before
    names = [None if line is None or line.predicted is None else line.predicted_label for line in (one, other)]
    found |= {"base_predicted": names[0], "new_predicted": names[1]}
    found["changed"] = None if None in names else names[0] != names[1]
    return found


def _compare_maps(base: RecordedMap, new: RecordedMap) -> tuple[dict[str, Any], list[str]]:
    """Return the similarity of two maps and how far the peak moved, and why what is undefined is so.

    Raises:
        PictureError: a map cannot be read.
    """
    maps = [_load(base, "base"), _load(new, "new run")]
    views = [base.view, new.view]
    reasons = []
    found: dict[str, Any] = {"equal": bool(np.array_equal(maps[0], maps[1]))}
    if views[0].picture != views[1].picture:
        sizes = [f"{view.picture[1]} x {view.picture[0]}" for view in views]
        reasons.append(f"the image has another size: it had {sizes[0]} pixels, and has {sizes[1]}")
    constant = [name for name, map in zip(("base", "new run"), maps, strict=True) if similarity.is_constant(map)]
    if constant:
        reasons.append(f"the map of the {constant[0]} is constant")
    else:
        matrices, same = measure_similarity(list(map(PlacedMap, maps, views)))
        values = {name: float(matrix[0, 1]) for name, matrix in matrices.items()}
        measured = {name: None if math.isnan(value) else value for name, value in values.items()}
        found |= {**measured, "grid": "cells" if same[0, 1] else "image"}
        if measured["pearson"] is None:
            reasons.append("the maps share no part of the image in which both vary")
    moved = _measure_movement(base.outcome, new.outcome, maps)
    if moved is None:
        reasons.append(f"no peak: {NO_POSITIVE}")
    else:
        found |= {"moved": moved[0], "moved_pixels": moved[1]}
    return found, reasons


def _load(recorded: RecordedMap, name: str) -> Float32[np.ndarray, "h w"]:
    try:
        return recorded.load()
    except PictureError as error:
        raise PictureError(f"in the {name}: {error.message}", error.hint) from error


def _measure_movement(base: Outcome, new: Outcome, maps: list[np.ndarray]) -> tuple[float, float] | None:
    """Return the distance of two peaks, as a share of the new image's diagonal and in its pixels.

    None if a map has no positive value, and so no peak.
    """
    if any(map.max() <= 0 for map in maps) or base.peak is None or new.peak is None:
        return None
    assert base.image_size and new.image_size  # the views were made of these
    across, down = (
        after - before * size / size_before
        for before, after, size_before, size in zip(base.peak, new.peak, base.image_size, new.image_size, strict=True)
    )
    pixels = math.hypot(across, down)
    return pixels / math.hypot(*new.image_size), pixels
