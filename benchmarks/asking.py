"""Methods that ask again, against pytorch-grad-cam's, on ResNet-50 with random weights: time in turn, and peak memory.

    python benchmarks/asking.py [--channels 2048] [--rounds 2] [--methods ablation-cam scorecam] [--json FILE]

One image of 224 x 224, two threads, the layer `layer4`, each library at its own batch size. Times are taken A B A B
in one process after a short run of both, and printed as ratios of neighbours; memory is the peak above the model, each
in a process of its own (Linux). With fewer channels a 1 x 1 convolution to that many is put behind the layer.

Bars: Ablation-CAM 20 times as fast, Score-CAM 1.3 times; peak memory at most a third.
"""

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchvision
from torch import nn

CLASS = 3
BARS = {"ablation-cam": 20.0, "scorecam": 1.3}
MEMORY_BAR = 1 / 3


def build(channels: int) -> tuple[nn.Module, torch.Tensor]:
    """The network and the image, the same in every process."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = torchvision.models.resnet50(weights=None)
    if channels != 2048:
        model.layer4 = nn.Sequential(model.layer4, nn.Conv2d(2048, channels, 1), nn.ReLU())
        model.fc = nn.Linear(channels, 1000)
    # Or Ablation-CAM may meet a score below zero.
    nn.init.constant_(model.fc.bias[CLASS : CLASS + 1], 1.0)
    return model.eval(), torch.randn(1, 3, 224, 224)


def ours(method: str, model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The map at the layer."""
    from camcli import Explainer

    [[one]] = Explainer(model, layers=["layer4"], method=method)(image, CLASS)
    return torch.from_numpy(one.map)


def theirs(method: str, model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The map at the input, as pytorch-grad-cam hands it out."""
    from pytorch_grad_cam import AblationCAM, ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kind = {"ablation-cam": AblationCAM, "scorecam": ScoreCAM}[method]
    with contextlib.redirect_stderr(io.StringIO()), kind(model, [model.layer4]) as cam:
        return torch.from_numpy(cam(image, [ClassifierOutputTarget(CLASS)])[0])


LIBRARIES = {"camcli": ours, "pytorch-grad-cam": theirs}


def seconds(library: str, method: str, model: nn.Module, image: torch.Tensor) -> float:
    """The time of one map."""
    start = time.perf_counter()
    LIBRARIES[library](method, model, image)
    return time.perf_counter() - start


def memory_now(field: str) -> float:
    """MiB resident now (VmRSS) or at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(library: str, method: str, channels: int) -> float:
    """MiB above the model at the peak of one map, in a process of its own."""
    words = ["--peak", library, "--methods", method, "--channels", str(channels)]
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def measure_peak(library: str, method: str, channels: int) -> None:
    """What the process of :func:`peak` does."""
    model, image = build(channels)
    # What is imported on the way is nobody's working memory; nor is what a forward of one image takes.
    ours("gradcam", model, image)
    import pytorch_grad_cam  # noqa: F401

    before = memory_now("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    LIBRARIES[library](method, model, image)
    print(memory_now("VmHWM") - before)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=BARS, default=list(BARS))
    parser.add_argument("--peak", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.peak:
        measure_peak(arguments.peak, arguments.methods[0], arguments.channels)
        return
    model, image = build(arguments.channels)
    small = build(8)[0]
    results = {}
    for method in arguments.methods:
        times: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        for library in LIBRARIES:
            seconds(library, method, small, image)
        for _ in range(arguments.rounds):
            for library, taken in times.items():
                taken.append(seconds(library, method, model, image))
                print(f"{method}: {library} {taken[-1]:.2f} s", flush=True)
        ratios = [b / a for a, b in zip(*times.values(), strict=True)]
        peaks = {library: peak(library, method, arguments.channels) for library in LIBRARIES}
        share = peaks["camcli"] / peaks["pytorch-grad-cam"]
        print(
            f"{method}: {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"bar {BARS[method]:g}; "
            f"peak {peaks['camcli']:.0f} MiB to {peaks['pytorch-grad-cam']:.0f} MiB: {share:.2f}, "
            f"bar {MEMORY_BAR:.2f}",
            flush=True,
        )
        results[method] = {"seconds": times, "ratios": ratios, "peaks_mib": peaks, "peak_ratio": share}
    if arguments.json:
        arguments.json.write_text(json.dumps({"channels": arguments.channels, **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
