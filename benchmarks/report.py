"""What the benchmarks print and write: medians with their spread, tables in markdown, results as JSON."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def ratio(ones: Sequence[float], others: Sequence[float]) -> str:
    """The median of the ratios of neighbours, and the least and the greatest."""
    ratios = [one / other for one, other in zip(ones, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine() -> str:
    """The processor, the cores that may be used, the versions and, if there is one, the GPU."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    named = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    name = named[0].partition(": ")[2] if named else cpu
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores{gpu}; Python {platform.python_version()}, torch {torch.__version__}"


def write(path: Path | None, results: Any, markdown: str = "") -> None:
    """Write the results as JSON, and beside them the tables in markdown."""
    if path:
        path.write_text(json.dumps(results, indent=2) + "\n")
        if markdown:
            path.with_suffix(".md").write_text(markdown)
