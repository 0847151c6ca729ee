"""What a map costs: naive inference, camcli and other libraries in turn, each in a process of its own.

    python benchmarks/engine.py [--models resnet50 ...] [--batches 8 32] [--rounds 7] [--threads 2] [--json FILE]

All have the same network with the same random weights, the same batch and the same layer. Each contender's process
stays alive and waits for its turn: one run of each, again and again, so that a machine whose speed drifts drifts for
all. Printed are milliseconds an image (medians), the ratios to naive inference of the same round, and the peak of
memory above the loaded model. ``naive`` is ``model(x)`` under ``inference_mode``, in fp32, as everybody writes it.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASS = 3
# The layer of each; of others the default one.
LAYERS = {"resnet50": "layer4"}
MODELS = (
    "resnet50",
    "mobilenetv3_large_100",
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "vit_base_patch16_224",
    "open_clip:ViT-B-32",
)
CONTENDERS = (
    "naive",
    "camcli",
    "camcli bf16",
    "camcli compiled",
    "camcli compiled bf16",
    "pytorch-grad-cam",
    "torchcam",
    "captum",
)
GUIDED = ("naive", "camcli guided", "captum guided")


def network(name: str) -> tuple[Any, tuple[int, int], str]:
    """The network untrained, the size of its input, and the layer; the same in every process."""
    import camcli
    from camcli import Explainer

    made = camcli.load(name if ":" in name else f"timm:{name}", weights="random")
    explainer = Explainer(made, layers=[LAYERS[name]] if name in LAYERS else [])
    import torch

    explainer.check(torch.zeros(1, 3, *made.preprocess.size))
    return made, made.preprocess.size, explainer.layers[0]


def contender(who: str, made: Any, size: tuple[int, int], layer: str, batch: int) -> Callable[[], Any]:
    """What one turn of a contender is."""
    import torch

    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    module = made.module
    if who == "naive":

        def naive() -> Any:
            with torch.inference_mode():
                return module(images)

        return naive
    if who.startswith("camcli"):
        return ours(who, made, layer, images)
    target = module.get_submodule(layer)
    if who == "pytorch-grad-cam":
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = GradCAM(module, [target], reshape_transform=_cells)
        return lambda: cam(images, [ClassifierOutputTarget(CLASS)] * batch)
    if who == "torchcam":
        from torchcam.methods import GradCAM as TorchCam

        extractor = TorchCam(module, layer)
        return lambda: extractor([CLASS] * batch, module(images.requires_grad_()))
    from captum.attr import GuidedGradCam, LayerGradCam

    attribution = GuidedGradCam(module, target) if "guided" in who else LayerGradCam(module, target)
    return lambda: attribution.attribute(images.requires_grad_("guided" in who), target=CLASS)


def ours(who: str, made: Any, layer: str, images: Any) -> Callable[[], Any]:
    """Camcli as its command runs it: the network is its own to rearrange."""
    import torch

    from camcli import Explainer
    from camcli.engine.speed.tune import compile_prefix, optimize_weights

    method = "guided-gradcam" if "guided" in who else "gradcam"
    explainer = Explainer(made, layers=[layer], method=method)
    optimize_weights(explainer, images[:1])
    if "bf16" in who:
        made.module.to(torch.bfloat16)
    explainer.check(images[:1])
    if "compiled" in who:
        done = compile_prefix(explainer, images)
        print(done.reason or f"compiled in {done.compile_seconds:.1f} s", file=sys.stderr)
    # As a run does it: an image whose map is zero everywhere, which happens without training, does not end it.
    return lambda: explainer.results(images, lambda row, scores: [CLASS])


def _cells(tensor: Any) -> Any:
    """For pytorch-grad-cam: tokens behind a class token as a grid."""
    if tensor.ndim == 4:
        return tensor
    side = int((tensor.shape[1] - 1) ** 0.5)
    return tensor[:, 1:].transpose(1, 2).reshape(len(tensor), -1, side, side)


def memory_now(field: str) -> float:
    """MiB resident now (VmRSS) or at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def serve(who: str, name: str, batch: int, threads: int) -> None:
    """What a contender's process does: a run for every line that comes in, its seconds for every line out."""
    if who.startswith("camcli"):
        from camcli.base.allocator import keep_memory

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


def show(name: str, batch: int, found: dict[str, Any]) -> None:
    """A line for each contender."""
    print(f"{name}, batch {batch}")
    naive = found["naive"]["ms"]
    for who, one in found.items():
        ratios = [own / plain for own, plain in zip(one["ms"], naive, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        median = statistics.median(one["ms"])
        print(f"  {who:22}{median:8.1f} ms   {spread:22} x naive   {one['peak_mib']:6.0f} MiB", flush=True)


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
    contenders = (
        list(GUIDED) if arguments.guided else ["naive", *(one for one in arguments.contenders if one != "naive")]
    )
    results: dict[str, Any] = {}
    for name in arguments.models:
        for batch in arguments.batches:
            found = measure(name, batch, contenders, arguments.rounds, arguments.threads)
            show(name, batch, found)
            results[f"{name} {batch}"] = found
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
