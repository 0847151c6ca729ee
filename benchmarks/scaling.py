"""Time and memory must not grow with the folder: 100, 1,000 and 10,000 images in turn.

    python benchmarks/scaling.py [--counts 100 1000 10000] [--rounds 3] [--json FILE]

Whole `camcli explain` processes with the bundled model over JPEGs of 320 x 240. A run over one image, in the same
round, says what the start costs; printed are the milliseconds of each further image, the peak of resident memory, and
both by those of the second count.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DISTINCT = 50


def make_pictures(folder: Path, count: int) -> None:
    """Seeded noise as JPEG; some images many times."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06}.jpg"
        if number < DISTINCT:
            Image.fromarray(random.integers(0, 256, (15, 20, 3), np.uint8)).resize((320, 240)).save(path)
        else:
            path.write_bytes((folder / f"{number % DISTINCT:06}.jpg").read_bytes())


def run(pictures: Path, out: Path) -> tuple[float, float]:
    """Seconds of a whole process, and MiB at its peak."""
    # Compiling, which is tried unasked from 10,000 images on, would make the counts different programs.
    words = ["explain", str(pictures), "--out", str(out), "--compile", "off", "--quiet"]
    command = [sys.executable, "-m", "camcli", *words]
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(done.stdout) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", nargs="+", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    counts = arguments.counts
    each: dict[int, list[float]] = {count: [] for count in counts}
    peaks: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in (1, *counts):
            make_pictures(folder / f"in-{count}", count)
        for turn in range(arguments.rounds):
            start, _ = run(folder / "in-1", folder / f"out-1-{turn}")
            for count in counts:
                seconds, peak = run(folder / f"in-{count}", folder / f"out-{count}-{turn}")
                each[count].append(1000 * (seconds - start) / (count - 1))
                peaks[count].append(peak)
                print(f"{count} images: {each[count][-1]:.2f} ms each, {peak:.0f} MiB", flush=True)
    result: dict[str, Any] = {"ms": each, "peaks_mib": peaks}
    base = counts[1] if len(counts) > 1 else counts[0]
    for what, found in result.items():
        ratios = {count: statistics.median(found[count]) / statistics.median(found[base]) for count in counts}
        print(f"{what}, by that of {base}: " + ", ".join(f"{count}: {ratio:.3f}" for count, ratio in ratios.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
