"""Output formats: functions from ``(picture, explanation, style)`` to the bytes of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from camcli.base.registry import Registry, Row


@dataclass(frozen=True, slots=True)
class FormatRow(Row):
    """One output format.

    Attributes:
        suffix: suffix of the files.
        pixels: True if they show the image's own pixels.
    """

    suffix: str = ""
    pixels: bool = True


OUTPUTS = Registry(
    FormatRow,
    "camcli.outputs",
    "output format",
    FormatRow("overlay", "overlay", "the heatmap over the image, at the image's own size", suffix=".overlay.jpg"),
    FormatRow("overlay", "overlay-png", "the same, lossless: larger, and slower to write", suffix=".overlay.png"),
    FormatRow("heatmap", "heatmap", "the heatmap alone, at the image's own size", suffix=".heatmap.png", pixels=False),
    FormatRow(
        "grey",
        "grey",
        "the heatmap as grey values of one channel, for other programs",
        suffix=".grey.png",
        pixels=False,
    ),
    FormatRow("contour", "contour", "the image with lines at 25, 50 and 75 % of the map's peak", suffix=".contour.jpg"),
    FormatRow("box", "box", "the image with a box around the map's strongest region", suffix=".box.jpg"),
    FormatRow("film", "gif", "overlays of a volume's slices or a clip's frames, one after the other", suffix=".gif"),
    FormatRow("film", "mp4", "the same as a video of H.264; needs PyAV", suffix=".mp4"),
    FormatRow(
        "nifti",
        "nifti",
        "the map of a NIfTI as NIfTI, of the same shape and affine; needs nibabel",
        suffix=".nii.gz",
        pixels=False,
    ),
    FormatRow("array", "array", "the raw signed map as the method returned it, float32", suffix=".npy", pixels=False),
    FormatRow("panel", "panel", "image, heatmap and overlay side by side, with class and score", suffix=".panel.png"),
    FormatRow(
        "panel", "panel-svg", "the same as SVG, whose texts stay text, for papers and slides", suffix=".panel.svg"
    ),
    FormatRow("panel", "panel-pdf", "the same as PDF", suffix=".panel.pdf"),
)

# Formats of volumes and clips alone.
OF_VOLUMES = ("gif", "mp4", "nifti")
# Formats that show a single map, and what they show of it.
OF_ONE_MAP = {"box": "box", "grey": "grey values"}

# All but the last four are perceptually uniform, or nearly so.
COLORMAPS = ("inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet", "hot", "bone")

# Longer side of the images in a panel, in pixels.
MIN_PANEL_SIZE, MAX_PANEL_SIZE = 64, 8192

Normalize = Literal["image", "range", "run", "none"]
Outside = Literal["dim", "hatch", "hide", "keep"]
