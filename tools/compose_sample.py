"""Makes sample_images/cat-and-espresso.jpg: a cat on the left, a cup of espresso on the right.

Run from anywhere: ``python tools/compose_sample.py``. Both halves come from the sample images beside it; where they
are cut was chosen so that the bundled model finds both a cat and an espresso in the image.
"""

from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).parent.parent / "sample_images"
HALF = (300, 450)
# Left, upper, right, lower edge of what is taken, each two parts wide and three high.
CAT = ("chelsea.png", (120, 0, 320, 300))
ESPRESSO = ("coffee.png", (180, 0, 446, 399))


def half(name: str, box: tuple[int, int, int, int]) -> Image.Image:
    """A cut from a sample image at the size of one half."""
    with Image.open(SAMPLES / name) as picture:
        return picture.convert("RGB").resize(HALF, Image.Resampling.LANCZOS, box=box)


def composed() -> Image.Image:
    """Both halves side by side."""
    sheet = Image.new("RGB", (2 * HALF[0], HALF[1]))
    sheet.paste(half(*CAT), (0, 0))
    sheet.paste(half(*ESPRESSO), (HALF[0], 0))
    return sheet


if __name__ == "__main__":
    composed().save(SAMPLES / "cat-and-espresso.jpg", quality=92, subsampling=0)
