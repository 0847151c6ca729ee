"""Gradient checkpointing: memory and time of a ViT-L at batch 8 whose whole tower is in the graph, in turn (Linux).

    python benchmarks/checkpointing.py [--rounds 2] [--model open_clip:ViT-L-14] [--size 224] [--method saliency]
                                       [--json FILE]

Each turn is a process of its own that loads the untrained model, sees one image, and explains eight, without or with
checkpointing. Printed are its peak resident memory, how much of that is above the loaded model, the time of the eight,
and the ratios of the medians. Bar: at most 0.6 of the memory above the model, whose weights are there in any case.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from asking import memory_now

BATCH = 8
BAR = 0.6
WAYS = ("plain", "recompute")
MEASURED = ("peak_mib", "above_model_mib", "seconds")


def measure(way: str, model: str, size: str, method: str) -> dict[str, float]:
    """What a process of its own measures."""
    import torch

    from camcli import Explainer, load

    network = load(model, weights="random", size=size)
    images = torch.randn(BATCH, 3, *network.preprocess.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.module(images[:1])
    before = memory_now("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    Explainer(network, method=method, recompute=way == "recompute")(images, 1)
    peak = memory_now("VmHWM")
    return dict(zip(MEASURED, (peak, peak - before, time.perf_counter() - began), strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="open_clip:ViT-L-14")
    parser.add_argument("--size", default="")
    parser.add_argument("--method", default="saliency")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    asked = arguments.model, arguments.size, arguments.method
    if arguments.way:
        print(json.dumps(measure(arguments.way, *asked)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    words = [
        word for name, value in zip(("model", "size", "method"), asked, strict=True) for word in (f"--{name}", value)
    ]
    for _ in range(arguments.rounds):
        for way, turns in found.items():
            command = [sys.executable, __file__, "--way", way, *words]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            turns.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{way}: " + ", ".join(f"{name} {value:.0f}" for name, value in turns[-1].items()), flush=True)
    ratios = {
        name: statistics.median(one[name] for one in found["recompute"])
        / statistics.median(one[name] for one in found["plain"])
        for name in MEASURED
    }
    print(
        f"ratios of the medians: peak {ratios['peak_mib']:.2f}, above the model {ratios['above_model_mib']:.2f} "
        f"(bar {BAR}), time {ratios['seconds']:.2f}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps({"asked": asked, **found, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
