"""CPU time of ROAD: ten maps of an image, five shares, the bundled model; camcli, pytorch-grad-cam and Quantus.

    python benchmarks/road.py [--rounds 3] [--json FILE]

Each in a process of its own, one after another, several times: CPU seconds, which other programs on the machine change
less than the clock. What is not installed is left out with a line. Of Quantus its imputation is timed, with a forward
of each changed image: its metric as a whole fails on images in colour (0.6.0).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

import camcli
from camcli.engine.signals.asked import make_score_of_arrays
from camcli.engine.speed.tune import optimize_weights
from camcli.metrics import CONTROLS
from camcli.metrics.faithfulness import road

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "sample_images" / "chelsea.png"
MODEL = "bundled:efficientnet-lite0"
SHARES = (10, 30, 50, 70, 90)
BATCH = 16
CONTENDERS = ("camcli", "pytorch-grad-cam", "quantus")


def make_work() -> tuple[np.ndarray, np.ndarray]:
    """The input of the model, and ten maps of it: controls, of several draws."""
    image = cv2.cvtColor(cv2.imread(str(PHOTOGRAPH)), cv2.COLOR_BGR2RGB)
    given = (cv2.resize(image, (224, 224)).transpose(2, 0, 1).astype(np.float32) / 255 - 0.5) / 0.5
    names = ("random", "smooth-random", "centre", "edges")
    maps = [CONTROLS.load(one)(given, np.random.default_rng(seed)) for seed in range(3) for one in names][:10]
    return np.ascontiguousarray(given), np.stack([(one - one.min()) / np.ptp(one) for one in maps])


def prepare_camcli(
    image: np.ndarray, maps: np.ndarray, index: int, network: camcli.Network
) -> Callable[[], np.ndarray]:
    """Metric of camcli."""
    explainer = camcli.Explainer(network, method="gradcam")
    noise = torch.randn(1, *image.shape)
    explainer.check(noise)
    optimize_weights(explainer, noise)
    runner = explainer.setup.runner

    def run() -> np.ndarray:
        with runner.ready():
            return road(maps, image, make_score_of_arrays(runner, image, index, rows=BATCH))[0]

    return run


def prepare_gradcam(
    image: np.ndarray, maps: np.ndarray, index: int, network: camcli.Network
) -> Callable[[], np.ndarray]:
    """Metric of pytorch-grad-cam."""
    from pytorch_grad_cam.metrics.road import ROADMostRelevantFirstAverage
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    metric, targets = ROADMostRelevantFirstAverage(percentiles=[*SHARES]), [ClassifierOutputTarget(index)] * len(maps)
    images = torch.from_numpy(image).expand(len(maps), -1, -1, -1)
    return lambda: metric(images, maps, targets, network.module)


def prepare_quantus(
    image: np.ndarray, maps: np.ndarray, index: int, network: camcli.Network
) -> Callable[[], np.ndarray]:
    """Imputation of Quantus, and forwards."""
    from quantus.functions.perturb_func import noisy_linear_imputation

    def run() -> np.ndarray:
        scores = []
        for map in maps:
            order = np.argsort(-map.ravel())
            for share in SHARES:
                changed = noisy_linear_imputation(image, order[: map.size * share // 100], 0.01)
                with torch.no_grad():
                    scores.append(float(network.module(torch.from_numpy(changed).float()[None])[0, index]))
        return np.reshape(scores, (len(maps), -1)).mean(1)

    return run


def measure(contender: str) -> float:
    """CPU seconds of the second of two runs."""
    network = camcli.load(MODEL)
    image, maps = make_work()
    with torch.no_grad():
        index = int(network.module.eval()(torch.from_numpy(image)[None]).argmax())
    prepare = {"camcli": prepare_camcli, "pytorch-grad-cam": prepare_gradcam, "quantus": prepare_quantus}[contender]
    run = prepare(image, maps, index, network)
    run()
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(measure(given.only))
        return
    seconds: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        for contender in CONTENDERS:
            command = [sys.executable, __file__, "--only", contender]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{contender} is left out: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            seconds.setdefault(contender, []).append(float(done.stdout.split()[-1]))
    base = min(seconds["camcli"])
    for contender, found in seconds.items():
        print(f"{contender}: {min(found):.1f} to {max(found):.1f} CPU seconds, {min(found) / base:.1f} of camcli's")
    if given.json:
        given.json.write_text(json.dumps(seconds, indent=2))


if __name__ == "__main__":
    main()
