"""Write ``docs/images/looks.jpg``: the same maps as pytorch-grad-cam draws them, and as camcli does."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pytorch_grad_cam.utils.image import show_cam_on_image

import camcli
from camcli.images.decode import decode
from camcli.images.source import Picture, PictureSource
from camcli.images.view import View
from camcli.outputs import OUTPUTS
from camcli.outputs.style import Style
from camcli.runs.job.job import Job

ROOT = Path(__file__).parents[1]
NAMES = ("european-honey-bee.jpg", "citrus-fruits.jpg", "cincinnati-bridge.jpg", "coffee.png", "chelsea.png")
WIDTH, HEIGHT = 300, 200


def draw_peers(pixels: np.ndarray, view: View, map: np.ndarray) -> np.ndarray:
    """Draw over the part that the model saw, as its README does."""
    rows, columns, _ = view.crop()
    part = pixels[rows, columns]
    scaled = (map - map.min()) / (1e-7 + (map - map.min()).max())
    heat = cv2.resize(scaled, part.shape[1::-1])
    drawn = pixels.copy()
    drawn[rows, columns] = show_cam_on_image(part.astype(np.float32) / 255, heat, use_rgb=True)
    return drawn


def main() -> None:
    """Draw both rows."""
    page = Image.new("RGB", (len(NAMES) * WIDTH, 2 * HEIGHT), "white")
    job = Job()
    style = Style(job.colormap, job.alpha, job.normalize)
    for column, one in enumerate(camcli.explain([str(ROOT / "sample_images" / name) for name in NAMES])):
        pixels = np.asarray(decode(ROOT / "sample_images" / NAMES[column]))
        view = one.view.placed(one.placement)
        ours = OUTPUTS.load("overlay-png")(Picture(PictureSource("", ""), pixels, view), one, style)
        both = Image.fromarray(draw_peers(pixels, view, np.maximum(one.map, 0))), Image.open(io.BytesIO(ours))
        for row, image in enumerate(both):
            image.thumbnail((WIDTH - 6, HEIGHT - 6))
            page.paste(image, (column * WIDTH + 3, row * HEIGHT + 3))
    page.save(ROOT / "docs/images/looks.jpg", quality=88)


if __name__ == "__main__":
    main()
