"""Draw the images of docs/prompts.md and docs/prompt-sensitivity.md: ``python tools/make_prompts.py``.

By the stand-in for CLIP.
"""

import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

from camcli.runs.job.job import Job
from camcli.runs.prompts import PromptJob

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kit"))  # what tests share

import standin

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "images"
NAMES = ("espresso", "cup", "coffee mug", "tabby", "Egyptian cat")
BOTH = "cat-and-espresso.jpg"


def sheets(out: Path) -> None:
    """What the command of the page writes."""
    from camcli.runs.prompts.run import PromptRun

    job = Job(
        model="open_clip:local-dir:standin",
        text=tuple(map(standin.prompt, NAMES)),
        crop="squash",
        inputs=(str(ROOT / "sample_images"),),
        root=str(ROOT / "sample_images"),
        out=str(out),
        save=("sheet",),
        device="cpu",
    )
    with PromptRun(PromptJob(job=job, pictures=3)) as sensitivity:
        for [record] in sensitivity:
            assert record.error is None, record.error
        sensitivity.finish()


def panels(out: Path) -> None:
    """What ``camcli explain`` draws of two prompts in one image, one above the other."""
    from camcli.runs.explain.run import Run

    job = Job(
        model="open_clip:local-dir:standin",
        text=("espresso", "tabby"),
        template=("a photo of a {}.",),
        crop="squash",
        inputs=(str(ROOT / "sample_images" / BOTH),),
        root=str(ROOT / "sample_images"),
        out=str(out),
        save=("panel",),
        device="cpu",
    )
    with Run(job) as run:
        [outcomes] = run
    drawn = [Image.open(out / outcome.files["panel"]).convert("RGB") for outcome in outcomes]
    page = Image.new("RGB", (max(one.width for one in drawn), sum(one.height for one in drawn)), "white")
    for number, one in enumerate(drawn):
        page.paste(one, (0, sum(before.height for before in drawn[:number])))
    page.resize((900, round(900 * page.height / page.width))).save(PICTURES / "prompts.jpg", quality=85)


def shown(sheet: Path, name: str) -> None:
    """A sheet as an image of the page."""
    with Image.open(sheet) as page:
        page.convert("RGB").save(PICTURES / f"{name}.jpg", quality=80)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the model's name stands on every sheet
        standin.write(Path("standin"))
        panels(Path("maps"))
        sheets(Path("out"))
        shown(Path("out", f"{BOTH}.prompts.png"), "prompts-picture")
        shown(Path("out", "prompts.png"), "prompts-summary")
