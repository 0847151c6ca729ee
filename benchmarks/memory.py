"""Peak memory of a run must not grow with the folder: 2,000 small pictures against 200, in turn.

    python benchmarks/memory.py [--rounds 2] [--json FILE]

Prints the peak resident memory of each whole `camcli explain` process and the ratio of the medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

SMALL, LARGE = 200, 2000


def make_pictures(folder: Path, count: int) -> None:
    """Seeded noise of 160 x 120 pixels as JPEG."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (15, 20, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(folder / f"{number:05}.jpg")


def peak_memory(pictures: Path, out: Path) -> float:
    """MiB at the peak of one run."""
    command = [sys.executable, "-m", "camcli", "explain", str(pictures), "--out", str(out), "--quiet"]
    process = subprocess.Popen(command)
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        try:
            memory = watched.memory_info()
            peak = max(peak, memory.rss)
        except psutil.NoSuchProcess:
            break
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    if process.returncode:
        raise SystemExit(f"camcli ended with {process.returncode}")
    return peak / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    peaks: dict[int, list[float]] = {SMALL: [], LARGE: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in peaks:
            make_pictures(folder / f"in-{count}", count)
        for turn in range(arguments.rounds):
            for count, measured in peaks.items():
                measured.append(peak_memory(folder / f"in-{count}", folder / f"out-{count}-{turn}"))
                print(f"{count} pictures: {measured[-1]:.0f} MiB", flush=True)
    ratio = statistics.median(peaks[LARGE]) / statistics.median(peaks[SMALL])
    print(f"ratio of the medians, {LARGE} to {SMALL}: {ratio:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"peaks_mib": peaks, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
