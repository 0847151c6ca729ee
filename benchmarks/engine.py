"""What a map costs: naive inference, camcli and other libraries in turn, each in a process of its own.

    python benchmarks/engine.py [--models resnet50 ...] [--batches 8 32] [--rounds 7] [--threads 2] [--json FILE]

All have the same network with the same random weights, the same batch and the same layer. Each contender's process
stays alive and waits for its turn: one run of each, again and again, so that a machine whose speed drifts drifts for
all. Libraries run as their pages show them and *tuned* (contenders.py). Printed are milliseconds an image (medians),
the ratios to naive tuned inference in fp32 of the same round, their spread, and the peak of memory above the loaded
model. Beside the JSON file a table is written in markdown.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, GUIDED, contender, keeps_memory, network
from report import machine, ratio, table, write

from camcli.base.allocator import keep_memory

BASE = "naive tuned"
MODELS = (
    "resnet50",
    "mobilenetv3_large_100",
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "vit_base_patch16_224",
    "open_clip:ViT-B-32",
)


def memory_now(field: str) -> float:
    """MiB resident now (VmRSS) or at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def serve(who: str, name: str, batch: int, threads: int) -> None:
    """What a contender's process does: a run for every line that comes in, its seconds for every line out."""
    if keeps_memory(who):
        keep_memory()
    import torch

    torch.set_num_threads(threads)
    with contextlib.redirect_stdout(sys.stderr):
        made, size, layer = network(name)
        run = contender(who, made, size, layer, batch)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = memory_now("VmRSS")
    for _ in range(2):
        run()
    print(memory_now("VmHWM") - before, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


class Process:
    """A contender that waits for its turn."""

    def __init__(self, who: str, name: str, batch: int, threads: int) -> None:
        words = ["--serve", who, "--models", name, "--batches", str(batch), "--threads", str(threads)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.peak = self._read()

    def _read(self) -> float:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._process.stderr.read().strip().splitlines()[-1])
        return float(line)

    def turn(self) -> float:
        """Seconds of one run."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        """No more turns."""
        self._process.stdin.close()
        self._process.wait()


def measure(name: str, batch: int, contenders: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds an image of each contender round by round, and its peak of memory."""
    processes = {}
    for who in contenders:
        try:
            processes[who] = Process(who, name, batch, threads)
        except RuntimeError as error:
            print(f"  {who}: {error}", flush=True)
    taken: dict[str, list[float]] = {who: [] for who in processes}
    for _ in range(rounds):
        for who, process in processes.items():
            taken[who].append(1000 * process.turn() / batch)
    for process in processes.values():
        process.end()
    return {who: {"ms": times, "peak_mib": processes[who].peak} for who, times in taken.items()}


def show(name: str, batch: int, found: dict[str, Any]) -> list[list[str]]:
    """A line for each contender, and the same as rows of the table."""
    print(f"{name}, batch {batch}")
    rows = []
    for who, one in found.items():
        cells = [f"{statistics.median(one['ms']):.1f}", ratio(one["ms"], found[BASE]["ms"]), f"{one['peak_mib']:.0f}"]
        print(f"  {who:24}{cells[0]:>8} ms   {cells[1]:22} x {BASE}   {cells[2]:>6} MiB", flush=True)
        rows.append([name, str(batch), who, *cells])
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--contenders", nargs="+", choices=[*CONTENDERS, *GUIDED[1:]], default=list(CONTENDERS))
    parser.add_argument("--guided", action="store_true", help="Guided Grad-CAM instead: " + ", ".join(GUIDED[1:]))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.models[0], arguments.batches[0], arguments.threads)
        return
    contenders = list(GUIDED) if arguments.guided else [BASE, *(one for one in arguments.contenders if one != BASE)]
    results: dict[str, Any] = {"machine": machine()}
    rows = []
    for name in arguments.models:
        for batch in arguments.batches:
            found = measure(name, batch, contenders, arguments.rounds, arguments.threads)
            rows += show(name, batch, found)
            results[f"{name} {batch}"] = found
            head = ["network", "batch", "who", "ms an image", f"x {BASE}", "MiB"]
            write(arguments.json, results, table(head, rows))


if __name__ == "__main__":
    main()
