"""What a GPU shows: tests, maps equal to the CPU's, speed, a folder from end to end, memory. Started by gpu.sh.

    benchmarks/gpu.sh [--out FOLDER] [--stages tests equal ...] [--device cpu --quick --patience 10]

A stage is a process of its own with a limit of time, eight minutes together. One that fails, or whose time ends, is
reported, and the next goes on. Each result is printed and written (results.jsonl) when it is there; at the end come all
of them as tables (gpu.md) and JSON (gpu.json). ``--device cpu --quick --patience 10``
tries the program itself, on small counts.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from report import machine, table, write

Row = dict[str, Any]
SECONDS = 480
# Stages and their seconds, together as many.
LIMITS = {"tests": 60, "equal": 120, "speed": 120, "folder": 80, "decode": 20, "memory": 30, "compile": 50}
PEERS = {"pytorch_grad_cam": "grad-cam", "torchcam": "torchcam", "captum": "captum"}


def note_versions() -> Row:
    """Where it runs, and what is missing."""
    missing = [package for module, package in PEERS.items() if not find_spec(module)]
    return {"machine": machine(), "not installed": ", ".join(missing) or "nothing"}


def serve(name: str, asked: argparse.Namespace) -> None:
    """Run a stage: its results as lines of JSON on standard output."""
    import gpu_stages

    stage: Callable[[argparse.Namespace], Iterator[Row]] = getattr(gpu_stages, f"run_{name}")
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not a result
    for row in stage(asked):
        print(json.dumps(row), file=out, flush=True)


def run_stage(name: str, limit: float, given: list[str], keep: Callable[[Row], None], log: Any) -> str:
    """Run a stage in a process of its own, hand over its results as they come, and return how it ended."""
    command = [sys.executable, __file__, *given, "--serve", name, "--limit", str(limit)]
    process = subprocess.Popen(
        ["timeout", "-k", "5", str(limit), *command], stdout=subprocess.PIPE, stderr=log, text=True
    )
    for line in process.stdout or ():
        keep(json.loads(line))
    code = process.wait()
    return {0: "done", 124: f"stopped after {limit:.0f} s"}.get(code, f"failed with {code}, see log.txt")


def make_tables(rows: list[Row]) -> str:
    """A table for each stage."""
    text = ""
    for stage in dict.fromkeys(row["stage"] for row in rows):
        own = [{key: value for key, value in row.items() if key != "stage"} for row in rows if row["stage"] == stage]
        head = list(dict.fromkeys(key for row in own for key in row))
        text += f"\n## {stage}\n\n{table(head, [[str(row.get(key, '')) for key in head] for row in own])}"
    return text


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--stages", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks and counts: whether the program runs")
    parser.add_argument("--patience", type=float, default=1.0, help="times the limits, for a slower machine")
    parser.add_argument("--serve", choices=list(LIMITS), help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=60, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked)
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    given = ["--device", asked.device, "--out", str(asked.out), *(["--quick"] if asked.quick else [])]
    rows: list[Row] = []
    began = time.monotonic()
    with (asked.out / "results.jsonl").open("w") as lines, (asked.out / "log.txt").open("w") as log:

        def keep(stage: str, row: Row) -> None:
            rows.append({"stage": stage, **row})
            print(stage, *(f"{key}={value}" for key, value in row.items()), flush=True)
            lines.write(json.dumps(rows[-1]) + "\n")
            lines.flush()

        keep("here", note_versions())
        for name in asked.stages:
            start = time.monotonic()
            limit = min(asked.patience * LIMITS[name], asked.patience * SECONDS - (start - began))
            end = "left out: no time" if limit < 10 else run_stage(name, limit, given, partial(keep, name), log)
            keep("stages", {"name": name, "end": end, "seconds": round(time.monotonic() - start, 1)})
            write(asked.out / "gpu.json", rows, make_tables(rows))
    print(make_tables(rows))


if __name__ == "__main__":
    main()
