"""Finished runs written by hand: the records and arrays that a run leaves, without a network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camcli.runs.record.outcome import Outcome

# A model of 16 x 16 pixels, to which images are squashed.
FACTS = {
    "run": "r1",
    "fingerprint": "j1",
    "camcli": "0.1.0",
    "images": 1,
    "job": {"model": "tiny", "inputs": ["in"], "target": ["auto"]},
    "model": {
        "name": "tiny",
        "origin": "a file",
        "sha256": "a" * 64,
        "classes": 3,
        "preprocessing": {"size": [16, 16], "mean": [0.0] * 3, "std": [1.0] * 3, "resize": [16, 16], "fit": "squash"},
    },
    "methods": [{"name": "gradcam", "options": {}}],
    "layers": ["stem"],
    "explained": "class logit",
    "precision": "fp32",
    "versions": {"torch": "2.14.1"},
}
SIZE = (32, 32)


def spot(row: int, column: int, cells: int = 8, value: float = 1.0) -> np.ndarray:
    """A map that is zero but in one cell."""
    map = np.zeros((cells, cells), np.float32)
    map[row, column] = value
    return map


def centre(map: np.ndarray, size: tuple[int, int] = SIZE) -> tuple[float, float]:
    """The centre of the strongest cell of a map of a squashed image, in its pixels."""
    flat = np.abs(map).max(0) if map.ndim == 3 else map
    row, column = np.unravel_index(flat.argmax(), flat.shape)
    return (column + 0.5) / map.shape[-1] * size[0], (row + 0.5) / map.shape[-2] * size[1]


def line(name: str, map: np.ndarray | None = None, label: str = "red", **more: Any) -> tuple[Outcome, Any]:
    """The outcome of a map, and the map; a failure without one."""
    numbers = {"red": 0, "green": 1, "blue": 2}
    given: dict[str, Any] = {"source": f"in/{name}", "name": name, "stamp": "1-2", "job": "j1", "run": "r1"}
    if map is None:
        return Outcome(**{**given, "error": "is damaged", **more}), None
    values = {"index": numbers.get(label, 0), "label": label, "layer": "stem", "method": "gradcam", "score": 1.0}
    values |= {"probability": 0.5, "predicted": numbers.get(label, 0), "predicted_label": label}
    values |= {"image_size": SIZE, "high": float(map.max()), "low": float(map.min())}
    values |= {"files": {"array": f"{name}.{label}.npy"}, **more}
    return Outcome(**{**given, "peak": centre(map), **values}), map


def record(
    out: str | Path, *images: Sequence[tuple[Outcome, Any]], facts: Mapping[str, Any] = FACTS, shard: str = ""
) -> Path:
    """Write a run's folder: each image is its lines, in the order in which they were done."""
    folder = Path(out)
    records = folder / "shards" / shard if shard else folder
    records.mkdir(parents=True, exist_ok=True)
    count = len({image[0][0].name for image in images})
    (folder / "run.json").write_text(json.dumps({**facts, "images": count}))
    written = b""
    for image in images:
        for number, (outcome, map) in enumerate(image, start=1):
            values = {**json.loads(outcome.as_line()), "part": f"{number}/{len(image)}"}
            written += Outcome.read(values).as_line()
            if map is not None:
                np.save(folder / outcome.files["array"], map)
    (records / "outcomes.jsonl").write_bytes(written)
    return folder
