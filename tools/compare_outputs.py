"""Whether two checkouts of camcli write the same files: ``python tools/compare_outputs.py BEFORE AFTER``.

Each runs the same commands over the sample images with the bundled model, in a folder of its own. Images and arrays
are compared byte for byte; of the records everything but times, run numbers and what made them. Then the second
checkout goes on where the first one ended, and has to find everything done.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parents[1] / "sample_images"
SAVE = ("--save", "overlay,heatmap,array,panel")
CAT = "sample_images/chelsea.png"
JOBS: dict[str, tuple[str, ...]] = {
    "default": ("explain", "sample_images"),
    "all-formats": ("explain", "sample_images", *SAVE),
    "earlier-layer": ("explain", "sample_images", "--layer", "blocks.4", *SAVE),
    "several": ("explain", CAT, "--method", "gradcam++,layercam,hirescam,xgradcam,eigencam", *SAVE),
    "at-the-input": ("explain", CAT, "--method", "guided-gradcam,saliency,guided-backprop", *SAVE),
    "smoothgrad": ("explain", CAT, "--method", "smoothgrad", "-o", "samples=4", *SAVE),
    "asking": ("explain", CAT, "--method", "gscorecam,rise", "-o", "rise.samples=64", *SAVE),
    "targets": ("explain", CAT, "--target", "tabby", "--target", "top:2", "--score", "margin", *SAVE),
    "channels-of-a-class": ("explain", CAT, "--target", "channels:top:3", *SAVE),
    "features": ("explain", CAT, "--head", "none", "--target", "channel:12", *SAVE),
    "around": (
        "explain",
        CAT,
        "--layer",
        "blocks.4",
        "--layer",
        "blocks.5",
        "--fuse",
        "mean",
        "--scales",
        "1,1.25",
        "--augment",
        "flip",
    ),
    "one-scale": ("explain", "sample_images", "--normalize", "run", *SAVE),
    "concepts": ("explain", "sample_images", "--method", "dff", "-o", "over=set", *SAVE),
    "padded": ("explain", "sample_images", "--crop", "none", "--size", "192", "--colormap", "turbo", *SAVE),
    "ranked": ("channels", "bundled:efficientnet-lite0", "sample_images", "--top", "5"),
}
# What differs from run to run, or says what made the files.
MOVING = {"seconds", "run", "began", "finished", "camcli", "versions", "device", "python", "torch", "command"}


def run(checkout: Path, folder: Path, job: tuple[str, ...], out: str) -> str:
    """One command of a checkout, in a folder; what it says."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "camcli", *job, "--out", out]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{checkout.name} {out}: exit code {done.returncode}\n{done.stderr}")
    return done.stderr


def still(value: Any) -> Any:
    """A record without what moves."""
    if isinstance(value, dict):
        return {name: still(one) for name, one in value.items() if name not in MOVING}
    return [still(one) for one in value] if isinstance(value, list) else value


def content(path: Path) -> object:
    """What is compared of a file."""
    if path.suffix == ".jsonl":
        return [still(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return still(json.loads(path.read_text(encoding="utf-8"))) if path.suffix == ".json" else path.read_bytes()


def differences(before: Path, after: Path) -> Iterator[str]:
    """The files of two folders that are not the same, in words."""
    there = [{path.relative_to(one) for path in one.rglob("*") if path.is_file()} for one in (before, after)]
    yield from (f"{name}: only before" for name in sorted(there[0] - there[1]))
    yield from (f"{name}: only after" for name in sorted(there[1] - there[0]))
    for name in sorted(there[0] & there[1]):
        one, other = content(before / name), content(after / name)
        if one != other:
            yield f"{name}: differs {parts(one, other)}"


def parts(one: object, other: object) -> str:
    """Which parts of two records differ, if they are records."""
    if isinstance(one, dict) and isinstance(other, dict):
        return ", ".join(sorted(name for name in {*one, *other} if one.get(name) != other.get(name)))
    return ""


def main(before: Path, after: Path) -> int:
    """Compare two checkouts; the number of files that differ, and of jobs that are not resumed."""
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        for name in ("before", "after"):
            shutil.copytree(SAMPLES, Path(place) / name / "sample_images")
        for name, job in JOBS.items():
            for checkout, folder in ((before, "before"), (after, "after")):
                run(checkout, Path(place) / folder, job, name)
            found = list(differences(Path(place) / "before" / name, Path(place) / "after" / name))
            if job[0] == "explain" and "0 done" not in (said := run(after, Path(place) / "before", job, name)):
                found.append(f"not resumed: {said.strip().splitlines()[-1:]}")
            wrong += len(found)
            print(name, "same" if not found else "", *found, sep="\n  " if found else " ")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(*(Path(one).resolve() for one in sys.argv[1:3]))))
