"""Runs killed at random (SIGKILL), resumed and merged: files and record must equal those of a run left in peace.

    python benchmarks/kill.py [--kills 100] [--images 60] [--shards 4] [--merges 10] [--seed 0]

Processes are forked with the libraries loaded, so that the kills fall on the work: reading, computing, writing maps,
lines and run.json, merging. Each folder is done by all shards at once, which are killed, and run again, until they end
by themselves; then it is merged, which is killed too, and begun anew from the shards' records ``--merges`` times. With
``--shards 0`` one process does all images, and there is nothing to merge. As many folders are made as it takes to kill
so often. Maps written more often than once are work done twice.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.images.own_outputs import find_line_records
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.record.folder import Folder
from camcli.runs.record.merge import merge_shards

MODEL = """
import torch
from torch import nn
from camcli import Labels, Preprocess

def make():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers), Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3), Labels(("a", "b", "c"))
"""
# What differs from run to run.
UNLIKE = ("run", "seconds")


def start(work: Callable[[], object]) -> int:
    """Work in a process of its own, whose id is returned."""
    process = os.fork()
    if process:
        return process
    try:
        quiet = os.open("errors.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def end(process: int, after: float) -> int:
    """Kill a process at a time, if it still runs then; its exit code, or minus the signal that ended it."""
    while time.monotonic() < after:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def explain(shard: str, out: str) -> None:
    """Run a shard, or all, to the end; one image at a time, since sums are rounded otherwise in other batches."""
    with Run(Job(model="model.py:make", inputs=("in",), out=out, device="cpu", shard=shard, batch_size=1)) as run:
        for _ in run:
            pass


def read(out: str) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """All maps, and the record; what should not be there comes among the maps."""
    records = {"outcomes.jsonl", "run.json", ".camcli.lock", "camcli.log"}
    files = {str(one.relative_to(out)): one.read_bytes() for one in Path(out).rglob("*") if one.is_file()}
    rows = [json.loads(line) for line in Path(out, "outcomes.jsonl").read_bytes().splitlines()]
    kept = [{key: value for key, value in row.items() if key not in UNLIKE} for row in rows]
    maps = {name: content for name, content in files.items() if Path(name).name not in records}
    return maps, sorted(kept, key=lambda row: row["name"])


def count_writes() -> int:
    """Have each map that is written add a byte to a file, whose descriptor is returned."""
    counter = os.open("writes", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    write = Folder.write

    def write_counted(folder: Folder, name: str, content: bytes) -> None:
        write(folder, name, content)
        if name.endswith(".jpg"):
            os.write(counter, b".")

    Folder.write = write_counted  # type: ignore[method-assign]
    return counter


def do_folder(out: str, shards: int, seconds: float, kills: int) -> int:
    """Do all shards, or all images at once, killing up to so many processes; return the number killed."""
    left = [f"{number}/{shards}" for number in range(1, shards + 1)] or [""]
    killed = 0
    while left:
        running = {}
        for shard in left:
            running[shard] = start(lambda shard=shard: explain(shard, out))
        now = time.monotonic()
        times = {shard: now + (random.uniform(0, seconds / 2) if killed < kills else 600) for shard in left}
        codes = {shard: end(running[shard], times[shard]) for shard in sorted(left, key=times.__getitem__)}
        killed += sum(code == -signal.SIGKILL for code in codes.values())
        failed = [shard for shard, code in codes.items() if code > 0]
        assert not failed, Path("errors.txt").read_text()
        left = [shard for shard, code in codes.items() if code]
    return killed


def kill_merges(out: str, times: int) -> int:
    """Merge the same shards so often, each time killed once if it is not done before, then to the end."""
    before = {path: path.read_bytes() for path in find_line_records(Path(out), "outcomes.jsonl")}
    killed, seconds, rows = 0, 0.3, None
    for _ in range(times):
        for path, content in before.items():
            path.write_bytes(content)
        code = end(start(lambda: merge_shards(Path(out))), time.monotonic() + random.uniform(0, seconds))
        assert code in (0, -signal.SIGKILL), Path("errors.txt").read_text()
        killed += code != 0
        begun = time.monotonic()
        assert end(start(lambda: merge_shards(Path(out))), begun + 600) == 0, Path("errors.txt").read_text()
        seconds = time.monotonic() - begun
        rows = rows or read(out)
        assert read(out) == rows, "merges differ"
    assert merge_shards(Path(out)).status.is_complete
    return killed


def main() -> None:
    """Print what was killed, and fail at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in {"kills": 100, "images": 60, "shards": 4, "merges": 10, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    random.seed(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("model.py").write_text(MODEL)
        Path("in").mkdir()
        for number in range(given.images):
            values = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
            Image.fromarray(values).save(f"in/{number}.png")
        begun = time.monotonic()
        code = end(start(lambda: explain("", "whole")), begun + 600)
        assert code == 0, Path("errors.txt").read_text()
        seconds = time.monotonic() - begun
        whole, killed, merges, folders = read("whole"), 0, 0, 0
        writes = count_writes()
        while killed < given.kills:
            killed += do_folder("out", given.shards, seconds, given.kills - killed)
            merges += kill_merges("out", given.merges) if given.shards else 0
            maps, rows = read("out")
            assert maps.keys() == whole[0].keys(), maps.keys() ^ whole[0].keys()
            assert maps == whole[0], "maps differ"
            assert rows == whole[1], [pair for pair in zip(rows, whole[1], strict=False) if pair[0] != pair[1]][:1]
            shutil.rmtree("out")
            folders += 1
            print(f"{killed} runs and {merges} merges killed, {folders} equal", file=sys.stderr, flush=True)
        twice = os.fstat(writes).st_size - folders * given.images
        os.chdir("/")
    print(f"{killed} runs and {merges} merges killed in {folders} folders of {given.images} images: all equal the")
    print(f"undisturbed run; {twice} maps written twice")


if __name__ == "__main__":
    main()
