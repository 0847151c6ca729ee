"""What linear layers by oneDNN save: a method with PyTorch's own library and with oneDNN, in turn.

    python benchmarks/linear.py [--models timm:vit_base_patch16_224 ...] [--method gradcam] [--batch 16] [--rounds 7]
        [--threads 2]

One process, one network, one batch of noise; only who multiplies changes from one run to the next. Printed are
milliseconds of a processor for an image (medians), the ratio of neighbours and its spread, the largest difference
between the maps in units of their range, and how many times as fast camcli finds oneDNN on the shapes that it times, by
which `--linear auto` chooses, with the seconds that this takes.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from contenders import CLASS, network
from report import machine, ratio, table, write

from camcli import Explainer
from camcli.base.allocator import keep_memory
from camcli.engine.speed.linear import LinearTrial
from camcli.engine.speed.tune import optimize_weights

MODELS = (
    *("timm:vit_base_patch16_224", "timm:convnext_tiny", "timm:swin_tiny_patch4_window7_224"),
    *("open_clip:ViT-B-32", "timm:deit3_small_patch16_224"),
)
HEAD = ["network", "torch", "oneDNN", "ratio", "difference of maps", "found", "in s"]


def measure(name: str, method: str, batch: int, rounds: int) -> list[str]:
    """A row of the table."""
    made, size, layer = network(name)
    explainer = Explainer(made, method=method)
    if explainer.setup.uses_layer:
        explainer = Explainer(made, layers=[layer], method=method)
    runner, images = explainer.setup.runner, torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    optimize_weights(explainer, images[:1])
    explainer.locate(images[:1])
    trial = LinearTrial(explainer.setup, "auto")
    with trial.counting():
        explainer.check(images[:1])
    start = time.perf_counter()
    choice = trial.choose(float(batch))
    took = time.perf_counter() - start

    seconds: dict[bool, list[float]] = {False: [], True: []}
    maps = {}
    for turn in range(rounds + 1):
        for by_onednn in (False, True):
            runner.linear_by_onednn = by_onednn
            start = time.process_time()
            found = explainer.results(images, lambda row, scores: [CLASS])
            if turn:
                seconds[by_onednn].append(time.process_time() - start)
            maps[by_onednn] = [getattr(one, "map", None) for several in found for one in several]
    apart = max(abs(one - other).max() / (one.max() - one.min()) for one, other in zip(*maps.values(), strict=True))
    plain, onednn = (f"{1000 * statistics.median(seconds[by]) / batch:.1f}" for by in (False, True))
    found = "not tried" if choice.speedup is None else f"{choice.speedup:.2f}: {choice.library}"
    return [name, plain, onednn, ratio(seconds[True], seconds[False]), f"{apart:.0e}", found, f"{took:.2f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()
    print(machine(), flush=True)
    # Timed anew, and not read from the user's cache.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        rows = []
        for name in arguments.models:
            rows.append(measure(name, arguments.method, arguments.batch, arguments.rounds))
            print(" ".join(rows[-1]), flush=True)
    text = table(HEAD, rows)
    print(text)
    write(arguments.json, {"machine": machine(), "rows": [dict(zip(HEAD, row, strict=True)) for row in rows]}, text)


if __name__ == "__main__":
    main()
