"""Draw the images of docs/targets.md: ``python tools/make_targets.py``, with the bundled model on the samples."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Outcome

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_images"
PICTURES = ROOT / "docs" / "images"
BOTH, CUP, CAT = (SAMPLES / name for name in ("cat-and-espresso.jpg", "coffee.png", "chelsea.png"))
HEIGHT, CAPTION = 200, 22

Tile = tuple[str, Image.Image]


def drawn(*inputs: Path, **options: Any) -> Iterator[tuple[Outcome, Image.Image]]:
    """What the command line makes of a job: each map's outcome and overlay."""
    from camcli.runs.explain.run import Run

    with tempfile.TemporaryDirectory() as out:
        job = Job(inputs=tuple(map(str, inputs)), root=str(SAMPLES), out=f"{out}/out", device="cpu", **options)
        with Run(job) as run:
            for outcomes in run:
                for one in outcomes:
                    assert one.error is None, one.error
                    yield one, Image.open(Path(job.out) / one.files["overlay"]).convert("RGB")


def sheet(name: str, tiles: Sequence[Tile], columns: int = 4) -> None:
    """Tiles of one height side by side, each under its caption."""
    font = ImageFont.load_default(13)
    small = [(caption, tile.resize((round(tile.width * HEIGHT / tile.height), HEIGHT))) for caption, tile in tiles]
    rows = [small[start : start + columns] for start in range(0, len(small), columns)]
    width = max(sum(tile.width + 6 for _, tile in row) for row in rows) - 6
    whole = Image.new("RGB", (width, len(rows) * (HEIGHT + CAPTION + 6)), "white")
    pen = ImageDraw.Draw(whole)
    for at, row in enumerate(rows):
        left, top = 0, at * (HEIGHT + CAPTION + 6)
        for caption, tile in row:
            pen.text((left + 2, top + 3), caption, "black", font)
            whole.paste(tile, (left, top + CAPTION))
            left += tile.width + 6
    whole.save(PICTURES / f"{name}.jpg", quality=82)


def scores() -> None:
    """Why espresso; why espresso and not cat; what lowers the cat's score."""
    asked = [
        ("espresso", {"target": ("espresso",)}),
        ("espresso over Egyptian cat", {"target": ("espresso",), "score": "margin", "versus": ("Egyptian cat",)}),
        ("Egyptian cat", {"target": ("Egyptian cat",)}),
        ("what lowers Egyptian cat", {"target": ("Egyptian cat",), "counterfactual": True}),
    ]
    sheet("targets-scores", [(words, image) for words, options in asked for _, image in drawn(BOTH, **options)], 2)


def channels() -> None:
    """The channels that have most in a class's score."""
    tiles = [
        (f"{one.label}: {one.channel}, {one.weight:.2f} of {one.score:.2f}", image)
        for word in ("espresso", "Egyptian cat")
        for one, image in drawn(BOTH, target=(f"channels:top:3:{word}",))
    ]
    sheet("targets-channels", tiles, 3)


def backbone() -> None:
    """One channel in several images."""
    tiles = [
        (f"channel {one.channel}: {one.score:.2f}{', silent' if one.high == 0 else ''}", image)
        for one, image in drawn(CUP, BOTH, CAT, method="activation", target=("channel:112,565",))
    ]
    sheet("targets-backbone", [*tiles[::2], *tiles[1::2]], 3)


def likeness() -> None:
    """What is like a cup, and what like a cat."""
    tiles: list[Tile] = []
    for name, reference in (("this cup", CUP), ("this cat", CAT)):
        [(one, image)] = drawn(BOTH, target=(f"similar:{reference}",))
        tiles += [(name, Image.open(reference).convert("RGB")), (f"what is like {name}: {one.score:.2f}", image)]
    sheet("targets-similar", tiles, 2)


if __name__ == "__main__":
    for draw in (scores, channels, backbone, likeness):
        draw()
