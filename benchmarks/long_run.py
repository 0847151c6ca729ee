"""A long run: memory must not grow, nor the rate fall; and what it costs to do the same images in several shards.

    python benchmarks/long_run.py [--images 100000] [--shard-images 2000] [--shards 1,2,4] [--model test_resnet]

Tiny images, and a tiny untrained network of timm, so that what is measured is the work around it. Printed are the rate
and the resident memory in each tenth of the run; then the seconds of a processor of all shards together, each in a
process of its own and all at once, and of as many commands over one image, which is what starting costs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job

A_FOLDER = 1000
DISTINCT = 100


def make_images(top: Path, count: int) -> str:
    """Noise of 32 x 32 pixels, some images many times."""
    random = np.random.default_rng(0)
    drawn = [Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(DISTINCT)]
    for number in range(count):
        if number % A_FOLDER == 0:
            folder = top / f"{number // A_FOLDER:05}"
            folder.mkdir(parents=True)
        file = folder / f"{number % A_FOLDER:03}.png"
        if number % A_FOLDER < DISTINCT:
            drawn[number % DISTINCT].save(file)
        else:
            os.link(folder / f"{number % DISTINCT:03}.png", file)
    return str(top)


def explain(given: str, out: str, model: str, shard: str = "") -> None:
    """Explain images in this process; print the measures of each tenth as JSON."""
    job = Job(
        model=model, inputs=(given,), out=out, weights="random", size="64", batch_size=64, device="cpu", shard=shard
    )
    tenths: list[Any] = []
    with Run(job) as run:
        begun = time.perf_counter(), time.process_time()
        for number, _ in enumerate(run, start=1):
            if number % (run.total // 10 or 1) == 0:
                now = time.perf_counter(), time.process_time()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                tenths.append([now[0] - begun[0], now[1] - begun[1], pages * resource.getpagesize() / 2**20])
                begun = now
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([tenths, used.ru_utime + used.ru_stime]))


def start(*words: str) -> "subprocess.Popen[str]":
    """Start explaining in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, "--run", *words], stdout=subprocess.PIPE, text=True)


def wait(process: "subprocess.Popen[str]") -> Any:
    """Wait for a process; return what it measured."""
    printed, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(printed)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--shard-images", type=int, default=2000)
    parser.add_argument("--shards", default="1,2,4")
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        explain(*given.run)
        return
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        if given.images:
            many = make_images(top / "many", given.images)
            tenths, _ = wait(start(many, str(top / "out"), given.model))
            print(f"{given.images:,} images: {'images/s':>9} {'CPU ms each':>12} {'MiB':>6}")
            for place, (seconds, used, memory) in enumerate(tenths[:10], start=1):
                tenth = given.images // 10
                print(f"{place:>4}. tenth {'':7} {tenth / seconds:9.1f} {1000 * used / tenth:12.2f} {memory:6.0f}")
        few = make_images(top / "few", given.shard_images)
        for count in map(int, given.shards.split(",") if given.shards else ()):
            out = str(top / f"out-{count}")
            parts = [f"{number}/{count}" for number in range(1, count + 1)] if count > 1 else [""]
            one = [start(f"{few}/00000/000.png", f"{out}-one-{number}", given.model) for number in range(count)]
            begins = sum(wait(process)[1] for process in one)
            begun = time.perf_counter()
            used = sum(wait(process)[1] for process in [start(few, out, given.model, part) for part in parts])
            seconds = time.perf_counter() - begun
            print(f"{count} processes: {seconds:.1f} s, {used:.1f} CPU s, {begins:.1f} of them to start", flush=True)


if __name__ == "__main__":
    main()
