"""What changed in a folder between two runs, and jobs drawn at one scale."""

from pathlib import Path

from PIL import Image
from readback import files


def changes(before: dict[str, int]) -> set[str]:
    return {name for name in files() if Path("out", name).stat().st_mtime_ns != before.get(name)}


def times() -> dict[str, int]:
    return {name: Path("out", name).stat().st_mtime_ns for name in files()}


def at_middle(name: str) -> int:
    """The green of the heatmap's middle: as 'bone' is a grey ramp it grows with the heat."""
    with Image.open(Path("out", name)) as heatmap:
        return heatmap.convert("RGB").getpixel((16, 16))[1]


NORMALIZED = {"normalize": "run", "save": ("heatmap",), "colormap": "bone", "target": ("red",)}
