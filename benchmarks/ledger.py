"""The record of a large folder: what it costs to open it, to find all done, and to end a run in which an image fails.

    python benchmarks/ledger.py [--lines 10000,100000,1000000] [--folder FOLDER]

The record is generated: a line, and two files, for each image, 1000 images to a folder. (The files are hard links, so
that a million of them take no space.) Each step is timed in a process of its own, whose peak memory is printed: Python
with the ledger imported takes most of it where the record is short. ``fail`` is a run in which one image fails that
failed before: what is timed is the end of the run, with what it does to the record.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from camcli.runs.record.ledger import FILE, Ledger
from camcli.runs.record.outcome import Outcome

A_FOLDER = 1000
JOB = "a" * 32


def make_outcome(number: int, **more: object) -> Outcome:
    """A line as `camcli explain --save overlay --save array` writes it."""
    name, stamp = make_name(number)
    values = {
        "files": {"overlay": f"{name}.overlay.jpg", "array": f"{name}.npy"},
        "sizes": {"overlay": 4, "array": 4},
        "index": number % 1000,
        "label": "golden retriever",
        "score": 14.20571231842041,
        "probability": 0.9113197326660156,
        "layer": "layer4.2",
        "method": "gradcam",
        "low": 0.0,
        "high": 2.7416179180145264,
        "strongest": 2.7416179180145264,
        "peak": (112.5, 98.4),
        "seconds": 0.0131,
        **more,
    }
    fixed = {"source": f"/data/imagenet/{name}", "name": name, "stamp": stamp}
    return Outcome(**fixed, job=JOB, root="/data/imagenet", **{"run": "20260101T000000.000000Z-abcdef", **values})


def make_folder(out: Path, count: int) -> None:
    """An output folder of so many images, one of which failed."""
    out.mkdir()
    one = out / "one"
    with (out / FILE).open("wb") as file:
        for number in range(count):
            outcome = make_outcome(number)
            if number % A_FOLDER == 0:
                (out / outcome.name).parent.mkdir(parents=True)
                one.unlink(missing_ok=True)
                one.write_text("maps")
            for name in outcome.files.values():
                os.link(one, out / name)
            file.write(outcome.as_line())
        file.write(make_outcome(count, files={}, sizes={}, error="empty").as_line())
    one.unlink()


def step(out: Path, what: str, count: int) -> None:
    """One step, in a process of its own, and its measures as JSON."""
    begun = read_clocks()
    ledger = Ledger(out, JOB, Outcome)
    opened = read_clocks()
    with ledger:
        if what == "resume":
            for number in range(count):
                given = make_name(number)
                assert ledger.is_done(*given), given
        else:
            ledger.append(
                [make_outcome(count, files={}, sizes={}, error="empty", run="20260101T000001.000000Z-abcdef")]
            )
        used = read_clocks()
    ended = read_clocks()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    times = [[b - a for a, b in zip(one, two, strict=True)] for one, two in pairwise((begun, opened, used, ended))]
    print(json.dumps([*times, peak]))


def read_clocks() -> tuple[float, float]:
    """Seconds, and seconds of a processor, which a busy machine distorts less."""
    return time.perf_counter(), time.process_time()


def make_name(number: int) -> tuple[str, str]:
    """Name and stamp of an image."""
    name = f"train/n{number // A_FOLDER:08}/n{number // A_FOLDER:08}_{number}.JPEG"
    return name, f"{110000 + number}-1700000000000000000"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", default="10000,100000,1000000")
    parser.add_argument("--folder", help="where the output folders are made, and removed; default: a temporary folder")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        step(Path(given.step[0]), given.step[1], int(given.step[2]))
        return
    heads = " ".join(f"{what:>9} {'CPU':>6}" for what in ("open s", "look up s", "close s"))
    print(f"{'lines':>8} {'step':7} {heads} {'MiB':>5}")
    for count in map(int, given.lines.split(",")):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            out = Path(folder) / "out"
            make_folder(out, count)
            for what in ("resume", "fail", "fail"):
                words = [sys.executable, __file__, "--step", str(out), what, str(count)]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                *times, peak = json.loads(done.stdout)
                cells = " ".join(f"{wall:9.2f} {cpu:6.2f}" for wall, cpu in times)
                print(f"{count:8} {what:7} {cells} {peak:5.0f}", flush=True)


if __name__ == "__main__":
    main()
