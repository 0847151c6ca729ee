"""Choice of the library that computes linear layers on a CPU: PyTorch's own, or oneDNN where that is faster.

PyTorch hands float32 products to MKL, which on some processors reaches half of what oneDNN does.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from camcli.base import cache
from camcli.base.errors import RequestError
from camcli.engine import Linear
from camcli.engine.hooks.opaque import find_opaque_modules
from camcli.engine.hooks.products import Product, ProductCounter, multiply
from camcli.engine.hooks.tensors import are_close
from camcli.engine.setup import Setup

CACHE_FILE = "linear"
# Where oneDNN is not this many times as fast, PyTorch's own library stays, so that noise does not decide.
LEAST_SPEEDUP = 1.25
# The shapes that take most are timed, each by a piece of so many rows and columns at most, or of more rows if it is
# narrow: some milliseconds, in which threads that wait for one another are not most of what is measured.
SHAPES, PIECE, ROUNDS = 3, (1024, 768), 8
# The thread's own time, so that other programs count little; Windows has it in steps of 16 ms.
CLOCK = time.perf_counter if os.name == "nt" else time.thread_time
# The greatest difference between the two libraries' products, relative to the greatest value.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class LinearChoice:
    """Library that computes linear layers.

    Attributes:
        library: ``torch`` for PyTorch's own, or ``onednn``.
        speedup: how many times as fast oneDNN is; None if it was not tried, 0 if it cannot be used.
    """

    library: str = "torch"
    speedup: float | None = None


class LinearTrial:
    """Trial in which the products of a network are counted, and the choice that follows from them.

    Args:
        setup: the settings of the explainer, whose runner follows the choice.
        wanted: ``auto`` for the faster library.
        precision: the precision of the network.

    Raises:
        RequestError: oneDNN is wanted and cannot be used.
    """

    def __init__(self, setup: Setup, wanted: Linear, precision: str = "fp32") -> None:
        self._setup, self._wanted = setup, wanted
        reason = "" if wanted == "torch" else _find_obstacle(setup, precision)
        if reason and wanted == "onednn":
            raise RequestError(f"--linear onednn cannot be used: {reason}", "leave it out")
        self._tries = wanted == "auto" and not reason
        self._counts: Mapping[Product, int] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the products while the block runs, if they decide."""
        if not self._tries:
            yield
            return
        with ProductCounter() as counter:
            yield
        self._counts = counter.counts

    def choose(self, repeats: float) -> LinearChoice:
        """Choose the library, and let the network run with it.

        Args:
            repeats: how many times the images of the trial a batch has.
        """
        choice = LinearChoice(self._wanted) if self._wanted == "onednn" else LinearChoice()
        flops: dict[Product, float] = {}
        for weight in {one[1:] for one in self._counts}:
            same = {one: count for one, count in self._counts.items() if one[1:] == weight}
            # Parts of the trial run several images at a time; the fewest rows are those of one.
            batch = Product(int(min(one.rows for one in same) * repeats), *weight)
            if batch.is_large:
                flops[batch] = sum(count * one.flops for one, count in same.items())
        if flops:
            speedup = _measure_speedup({one: flops[one] for one in nlargest(SHAPES, flops, key=lambda one: flops[one])})
            choice = LinearChoice("onednn" if speedup >= LEAST_SPEEDUP else "torch", speedup)
        self._setup.runner.linear_by_onednn = choice.library == "onednn"
        return choice


def _find_obstacle(setup: Setup, precision: str) -> str:
    """Return why oneDNN cannot compute a network's linear layers; empty if it can."""
    if setup.device.type != "cpu":
        return f"it is for CPUs, and the network is on {setup.device}"
    if precision != "fp32":
        return f"it is for fp32, and the network runs in {precision}"
    if closed := find_opaque_modules(setup.module):
        return f"{closed[0].description}, which hides its operations"
    return _find_missing()


def _find_missing() -> str:
    """Return why this PyTorch cannot hand a product to oneDNN; empty if it can."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this PyTorch is built without oneDNN"
    try:
        multiply(torch.ones(1, 1), torch.ones(1, 1))
    except (AttributeError, RuntimeError) as error:
        return f"this PyTorch does not hand products to oneDNN: {error}".splitlines()[0]
    return ""


def _measure_speedup(flops: Mapping[Product, float]) -> float:
    """Return how many times as fast oneDNN computes these products, each with its share of the operations.

    What was measured before on this machine is read from the cache.
    """
    machine = _describe_machine()
    known = cache.read(CACHE_FILE) or {}
    speedups: dict[str, float] = known.get(machine, {})
    parts: list[tuple[float, float]] = []
    for product, share in flops.items():
        piece = _cut(product)
        name = f"{piece.rows}x{piece.width}x{piece.outputs}"
        if name not in speedups:
            speedups[name] = _time(piece)
            cache.write(CACHE_FILE, {**known, machine: speedups})
        parts.append((share, speedups[name]))
    if not all(speedup for _, speedup in parts):
        return 0.0
    return sum(share for share, _ in parts) / sum(share / speedup for share, speedup in parts)


def _cut(product: Product) -> Product:
    """Return the piece of a product that is timed."""
    rows, columns = PIECE
    width, outputs = min(product.width, columns), min(product.outputs, columns)
    return Product(min(product.rows, rows * columns**2 // (width * outputs)), width, outputs)


@torch.inference_mode(False)
@torch.no_grad()
def _time(product: Product) -> float:
    """Time a product by both libraries in turn, and return how many times as fast oneDNN is; 0 if it differs."""
    source = torch.Generator().manual_seed(0)
    x = torch.rand(product.rows, product.width, generator=source) - 0.5
    weight = torch.rand(product.outputs, product.width, generator=source) - 0.5
    if not are_close(F.linear(x, weight), multiply(x, weight), TOLERANCE):
        return 0.0
    by_torch, by_onednn = list[float](), list[float]()
    for _ in range(ROUNDS):
        start = CLOCK()
        F.linear(x, weight)
        between = CLOCK()
        multiply(x, weight)
        by_torch.append(between - start)
        # A clock in coarse steps gives zeros, and nothing is gained then.
        by_onednn.append(max(CLOCK() - between, 1e-9))
    # Of two estimates the smaller one, since on a busy machine either may be too large by chance.
    in_turn = median(one / other for one, other in zip(by_torch, by_onednn, strict=True))
    return min(in_turn, sum(by_torch) / sum(by_onednn))


def _describe_machine() -> str:
    """Describe what the speed of a product depends on: the processor, PyTorch's threads and its version."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().split("\n\n")[0].splitlines() if file.is_file() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words = [told[name] for name in ("vendor_id", "model name", "cpu family", "model", "stepping") if name in told]
    processor = ", ".join(words) or platform.processor() or platform.machine()
    level = torch.backends.cpu.get_cpu_capability()
    return f"{processor}, {level}, {torch.get_num_threads()} threads, torch {torch.__version__}"
