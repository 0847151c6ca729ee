"""Write ``docs/images/report*.webp``: a report of the sample images, as a browser shows it.

Needs playwright (``pip install playwright``) and a Chromium of the system.
"""

import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

from camcli.cli import app

ROOT = Path(__file__).parents[1]
# The sample images by what somebody could have labelled them as; of one the model says something else.
LABELS = {
    "tripod": "camera.png",
    "Egyptian cat": "cat-and-espresso.jpg",
    "tabby": "chelsea.png",
    "suspension bridge": "cincinnati-bridge.jpg",
    "lemon": "citrus-fruits.jpg",
    "espresso": "coffee.png",
    "bee": "european-honey-bee.jpg",
}
# Name of the picture, the address behind #, width and height.
SHOTS = (("report", "", 1280, 1330), ("report-image", "sort=probability&desc=1&image=", 1280, 720))


def make_report(folder: Path) -> Path:
    """Explain the images, each in a folder named as its label, and return the page."""
    for label, name in LABELS.items():
        (folder / "photos" / label).mkdir(parents=True)
        shutil.copy(ROOT / "sample_images" / name, folder / "photos" / label)
    os.chdir(folder)
    given = ["explain", "photos", "--target", "folder", "--method", "gradcam,layercam"]
    app([*given, "--save", "overlay,heatmap", "--out", "maps", "--report", "--quiet"], standalone_mode=False)
    return folder / "maps" / "report.html"


def main() -> None:
    """Make the page and its pictures."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with TemporaryDirectory() as made, sync_playwright() as playwright:
        page_file = make_report(Path(made))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, address, width, height in SHOTS:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.goto(page_file.as_uri())
            page.wait_for_timeout(500)
            if address:
                first = page.evaluate("items.find(one => one.name.endsWith('european-honey-bee.jpg')).id")
                page.goto(f"{page_file.as_uri()}#{address}{first}")
                page.wait_for_timeout(500)
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                shot.convert("RGB").save(ROOT / "docs" / "images" / f"{name}.webp", quality=82, method=6)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
