"""Output folders of runs as ``camcli explain`` leaves them, made without a network, and pages read back."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.images.files import read_stamp
from camcli.runs.record.outcome import Outcome

RECORD: dict[str, Any] = {
    "fingerprint": "j1",
    "began": "2026-01-02T03:04:05+00:00",
    "finished": "2026-01-02T03:05:05+00:00",
    "camcli": "0.1.0",
    "job": {"model": "resnet18", "method": "gradcam", "target": ["folder"], "background": "#ffffff", "range": ""},
    "model": {"name": "resnet18", "weights": "pretrained", "origin": "timm", "sha256": "0123abcd", "notes": []},
    "methods": [{"name": "gradcam", "paper": "Selvaraju 2017", "options": {}}],
    "layers": ["layer4"],
    "versions": {"python": "3.11", "torch": "2.14"},
}
CLASSES = ("tabby", "tiger cat", "espresso", "lemon", "tripod")
SIZE = (64, 48)
HOSTILE = (
    "<script>alert(1)<|script>.jpg",
    "\"onerror='alert(1)'.jpg",
    "<!-- data -->.jpg",
    "a&amp;b #?%41*.jpg",
    "‮gpj.exe.jpg",
    "red\x1b[31m\x07.jpg",
    "{{ run.title }}${x}`.jpg",
    "日本 é.jpg",
    "bytes\udcff.jpg",
)


def draw(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = SIZE) -> None:
    """An image of one colour with a white corner at the top left, so that what is upright and where can be seen."""
    pixels = np.full((size[1], size[0], 3), colour, np.uint8)
    pixels[: size[1] // 4, : size[0] // 4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=95)


def outcome(source: Path, name: str, number: int = 0, **more: Any) -> Outcome:
    """The line of an image's map; labels and predictions go round, and every third prediction is wrong."""
    label, wrong = number % len(CLASSES), number % 3 == 2
    predicted = (label + wrong) % len(CLASSES)
    values: dict[str, Any] = {
        "stamp": read_stamp(source),
        "files": {"overlay": f"{name}.overlay.jpg"},
        "index": label,
        "label": CLASSES[label],
        "score": 3.0 + number % 7,
        "probability": (number * 37 % 101) / 101,
        "predicted": predicted,
        "predicted_label": CLASSES[predicted],
        "layer": "layer4",
        "method": "gradcam",
        "low": 0.0,
        "high": 1.0,
        "strongest": 1.0,
        "peak": (float(number * 13 % 64), float(number * 7 % 48)),
        **more,
    }
    return Outcome(source=str(source), name=name, run="r1", job="j1", **values)


def write_run(out: Path, *blocks: list[Outcome], **record: Any) -> Path:
    """Write the lines of a run and its record, and an overlay where a line names one that is not there."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "outcomes.jsonl").open("ab") as file:
        for block in blocks:
            for at, one in enumerate(block, start=1):
                values = json.loads(one.as_line()) | {"part": f"{at}/{len(block)}"}
                file.write(Outcome.read(values).as_line())
                for kind, path in one.files.items():
                    if kind != "array" and not (out / path).exists():
                        draw(out / path, (230, 120, 20))
    (out / "run.json").write_text(json.dumps(RECORD | record))
    return out


def make_run(folder: Path, count: int = 5, **record: Any) -> Path:
    """A run over images of their own colours; names have folders."""
    blocks = []
    for number in range(count):
        source = folder / "photos" / CLASSES[number % len(CLASSES)] / f"{number:05}.jpg"
        draw(source, (number * 40 % 256, 80, 160))
        blocks.append([outcome(source, f"photos/{source.parent.name}/{source.name}", number)])
    return write_run(folder / "maps", *blocks, **record)


def read_items(out: Path) -> list[dict[str, Any]]:
    """The data of a page's images, as its script gets them."""
    return list(_iter_items(out))


def _iter_items(out: Path) -> Iterator[dict[str, Any]]:
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in re.findall(r'<script type="application/json" class="data">(.*)</script>', page):
        yield from json.loads(text)
    for file in sorted((out / "report-files").glob("data-*.js")):
        found = re.fullmatch(r"camcli\.add\((.*)\);\n", file.read_text(encoding="ascii"))
        assert found, file
        yield from json.loads(json.loads(found[1]))


def read_facts(out: Path) -> dict[str, Any]:
    """What a page knows of the run and of all images."""
    page = (out / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="facts"[^>]*>(.*?)</script>', page)
    assert found
    facts: dict[str, Any] = json.loads(found[1])
    return facts
