"""Time and memory of the default overlay: an image of 640 x 480 and one of 12 megapixels.

    python benchmarks/drawing.py [--sizes 640x480 4000x3000] [--rounds 7] [--json FILE]

The drawing alone, in a process of its own for each size: milliseconds of a map of 7 x 7 cells drawn over a photograph
and encoded, those of encoding the photograph alone, and how far the drawing raises the peak of resident memory, in
sizes of the photograph's pixels. Then the peak of a whole `camcli explain` of one such image, above that of the
smallest one.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "sample_images" / "chelsea.png"
MIB = 2**20


def enlarge(size: str) -> np.ndarray:
    """The photograph at a size of `WIDTHxHEIGHT`, as 8-bit RGB."""
    width, height = map(int, size.split("x"))
    with Image.open(PHOTOGRAPH) as opened:
        return np.ascontiguousarray(cv2.resize(np.asarray(opened.convert("RGB")), (width, height)))


def read_peak(who: int = resource.RUSAGE_SELF) -> float:
    """MiB of resident memory at the peak; Linux counts in KiB."""
    return resource.getrusage(who).ru_maxrss / 1024


def time_median(work: Callable[[], object], rounds: int) -> float:
    """Median of the milliseconds, after a first time that does not count."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def draw(size: str, rounds: int) -> dict[str, float]:
    """Measure the drawing of one size, in this process."""
    from camcli import Preprocess
    from camcli.engine.explanation import Explanation
    from camcli.images.source import Picture, PictureSource
    from camcli.outputs import OUTPUTS, encode
    from camcli.outputs.style import Style
    from camcli.runs.job.job import Job

    prepare = Preprocess((224, 224), (0.0,) * 3, (1.0,) * 3, (224, 224), "squash", "bicubic")
    heat = np.random.default_rng(0).random((7, 7), np.float32)
    explanation, job = Explanation(heat, "gradcam", "layer", 0, "a", 1.0, None), Job()
    style, overlay = Style(job.colormap, job.alpha, job.normalize, outside=job.outside), OUTPUTS.load(job.save[0])

    def draw_over(pixels: np.ndarray) -> None:
        view = prepare.view(*pixels.shape[1::-1])
        overlay(Picture(PictureSource(str(PHOTOGRAPH), "a"), pixels, view), explanation, style)

    draw_over(enlarge("64x64"))  # what the libraries need once does not count
    pixels = enlarge(size)
    before = read_peak()
    drawing = time_median(lambda: draw_over(pixels), rounds)
    raised = (read_peak() - before) * MIB / pixels.nbytes
    return {
        "draw_ms": drawing,
        "encode_ms": time_median(lambda: encode.jpeg(pixels), rounds),
        "raised_in_pictures": raised,
    }


def explain(size: str, folder: Path) -> float:
    """Peak in MiB of a whole process that explains one JPEG."""
    path = folder / f"{size}.jpg"
    Image.fromarray(enlarge(size)).save(path, quality=92)
    command = [sys.executable, "-m", "camcli", "explain", str(path), "--out", str(folder / size), "--quiet"]
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["640x480", "4000x3000"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(draw(arguments.one, arguments.rounds)))
        return
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in arguments.sizes:
            command = [sys.executable, __file__, "--one", size, "--rounds", str(arguments.rounds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[size] = one = json.loads(done.stdout) | {"explain_mib": explain(size, Path(name))}
            above = one["explain_mib"] - found[arguments.sizes[0]]["explain_mib"]
            print(
                f"{size}: drawn and encoded in {one['draw_ms']:.1f} ms, {one['draw_ms'] / one['encode_ms']:.2f} times "
                f"its encoding alone; memory raised by {one['raised_in_pictures']:.2f} times its pixels; whole process "
                f"{one['explain_mib']:.0f} MiB at its peak, {above:+.0f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
