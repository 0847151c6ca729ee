"""A folder from disk to overlays, as whole processes: `camcli explain`, a script by hand, and the usual script.

    python benchmarks/folder.py [--small 200] [--large 40] [--rounds 7] [--model resnet50 --layer layer4] [--json FILE]
    python benchmarks/folder.py --stages [--small 200] [--large 40]

The folder holds JPEGs of 640 x 480 (and another one of 4000 x 3000), photographs cut and scaled from the sample
images with a little noise. ``hand-written`` is hand_written.py: batches, a DataLoader, threads that write, and memory
that is kept. ``usual script`` is the one of pytorch-grad-cam's pages: OpenCV reads, ``preprocess_image`` on the image
scaled to 224 x 224, GradCAM of one image after the other, ``show_cam_on_image`` at the image's own size, ``imwrite``
as JPEG. Runs alternate; printed are seconds, ratios of neighbours, and how busy the processors were: CPU time by wall
time and cores, the start included and, from a run over one image, without it. ``--stages`` says instead what the CPU
time of one run goes into.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from report import machine, ratio, table, write

SAMPLES = Path(__file__).parent.parent / "sample_images"
HAND_WRITTEN = Path(__file__).with_name("hand_written.py")
# As camcli has it kept by itself.
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
START = "camcli, one image"
SIZES = {"small": (640, 480), "large": (4000, 3000)}

CONTENDERS = ("camcli", "camcli bf16", "hand-written", "usual script")

SCRIPT = """
import sys
from pathlib import Path
import cv2, numpy as np, timm, torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image
torch.manual_seed(0)
model = timm.create_model(sys.argv[1]).eval()
def grid(tokens):
    if tokens.ndim == 4:
        return tokens
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)
cam = GradCAM(model=model, target_layers=[model.get_submodule(sys.argv[2])], reshape_transform=grid)
out = Path(sys.argv[4])
out.mkdir()
for path in sorted(Path(sys.argv[3]).iterdir()):
    picture = np.float32(cv2.imread(str(path), 1)[:, :, ::-1]) / 255
    batch = preprocess_image(cv2.resize(picture, (224, 224)), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    grey = cam(input_tensor=batch, targets=None)[0]
    grey = cv2.resize(grey, (picture.shape[1], picture.shape[0]))
    cv2.imwrite(str(out / path.name), show_cam_on_image(picture, grey, use_rgb=True)[:, :, ::-1])
"""


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Seeded cuts of the sample images."""
    folder.mkdir()
    random = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.[jp][pn]g"))]
    width, height = size
    for number in range(count):
        picture = pictures[number % len(pictures)]
        share = random.uniform(0.5, 1) * min(1, picture.height * width / height / picture.width)
        across, down = int(picture.width * share), int(picture.width * share * height / width)
        left, top = random.integers(0, picture.width - across + 1), random.integers(0, picture.height - down + 1)
        cut = picture.crop((left, top, left + across, top + down)).resize(size, Image.Resampling.LANCZOS)
        pixels = np.asarray(cut) + random.normal(0, 4, (height, width, 1))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)


def camcli(model: str, layer: str, pictures: Path, *more: str) -> list[str]:
    """The command."""
    words = ["explain", "-m", f"timm:{model}", "--weights", "random", "-l", layer, str(pictures), *more]
    return [sys.executable, "-m", "camcli", *words, "--quiet", "--out"]


def commands(model: str, layer: str, pictures: Path, one: Path) -> dict[str, list[str]]:
    """The command of each contender; what is missing at its end is the folder to write to."""
    given = [model, layer, str(pictures)]
    return {
        "camcli": camcli(model, layer, pictures),
        "camcli bf16": camcli(model, layer, pictures, "--precision", "bf16"),
        "hand-written": [sys.executable, str(HAND_WRITTEN), *given],
        "usual script": [sys.executable, "-c", SCRIPT, *given],
        START: camcli(model, layer, one),
    }


def timed(who: str, command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a whole process."""
    environment = os.environ | (KEPT if who == "hand-written" else {})
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu}


def stages(model: str, layer: str, pictures: Path, out: Path, **asked: Any) -> dict[str, float]:
    """CPU seconds of each stage of a run's images, their wall seconds, and what the wall could have held."""
    from camcli.base.allocator import keep_memory
    from camcli.runs.explain.run import Run
    from camcli.runs.explain.writer import Writer
    from camcli.runs.job.job import Job
    from camcli.runs.worker import pipeline

    keep_memory()
    spent = {"decode and resize": 0.0, "draw and write": 0.0}
    adding = Lock()

    def watched(owner: Any, name: str, stage: str) -> None:
        plain = getattr(owner, name)

        def timed(*given: Any) -> Any:
            start = time.thread_time()
            done = plain(*given)
            with adding:
                spent[stage] += time.thread_time() - start
            return done

        setattr(owner, name, timed)

    watched(pipeline, "prepare_item", "decode and resize")
    watched(Writer, "write", "draw and write")
    given = {"model": f"timm:{model}", "weights": "random", "layers": (layer,), "inputs": (str(pictures),)}
    job = Job(**given, out=str(out), **asked)
    with Run(job) as run:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in run:
            pass
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rest = cpu - sum(spent.values())
    return {**spent, "network and the rest": rest, "wall": wall, "could have been": wall * len(os.sched_getaffinity(0))}


def show_stages(model: str, layer: str, folder: Path, counts: dict[str, int]) -> None:
    """Print them."""
    for kind, count in counts.items():
        make_pictures(folder / kind, count, SIZES[kind])
        found = stages(model, layer, folder / kind, folder / f"{kind}-out")
        whole = found.pop("could have been")
        wall = found.pop("wall")
        width, height = SIZES[kind]
        print(f"{count} images of {width} x {height}: {1000 * wall / count:.1f} ms each, the start left out")
        for stage, seconds in found.items():
            print(f"  {stage:22}{1000 * seconds / count:7.1f} ms of CPU   {seconds / whole:4.0%} of the cores' time")
        print(f"  {'idle':22}{'':17}{1 - sum(found.values()) / whole:7.0%}", flush=True)


def busy(whole: dict[str, float], start: dict[str, float] | None = None) -> float:
    """The share of the processors' time that was used, without that of another run if one is given."""
    wall, cpu = (whole[key] - (start[key] if start else 0) for key in ("wall", "cpu"))
    return cpu / wall / len(os.sched_getaffinity(0))


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each number."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def show(what: str, runs: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    """A line for each contender, and the same as rows of the table."""
    print(what)
    rows, start = [], median(runs[START])
    for who, own in runs.items():
        ratios = ratio([one["wall"] for one in own], [one["wall"] for one in runs["camcli"]])
        whole = median(own)
        behind = f", {busy(whole, start):.0%} behind the start" if who.startswith("camcli") and who != START else ""
        rows.append([what, who, f"{whole['wall']:.1f}", ratios, f"{busy(whole):.0%}{behind}"])
        print(f"  {who:18}{whole['wall']:7.1f} s   {ratios:22} x camcli   busy {rows[-1][-1]}", flush=True)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--layer", default="layer4")
    parser.add_argument("--small", type=int, default=200, help="how many images of 640 x 480")
    parser.add_argument("--large", type=int, default=40, help="how many images of 4000 x 3000")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--contenders", nargs="+", metavar="WHO", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--stages", action="store_true", help="what the time goes into, instead")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "model": arguments.model}
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = {kind: getattr(arguments, kind) for kind in SIZES if getattr(arguments, kind)}
        if arguments.stages:
            show_stages(arguments.model, arguments.layer, folder, counts)
            return
        make_pictures(folder / "one", 1, SIZES["small"])
        for kind, count in counts.items():
            make_pictures(folder / kind, count, SIZES[kind])
            asked = commands(arguments.model, arguments.layer, folder / kind, folder / "one")
            runs: dict[str, list[dict[str, float]]] = {
                who: [] for who in asked if who in ("camcli", *arguments.contenders, START)
            }
            for _ in range(arguments.rounds):
                for who, done in runs.items():
                    with tempfile.TemporaryDirectory(dir=folder) as out:
                        done.append(timed(who, [*asked[who], str(Path(out, "out"))]))
            rows += show(f"{count} of {SIZES[kind][0]} x {SIZES[kind][1]}", runs)
            results[kind] = {"pictures": count, "size": SIZES[kind], "runs": runs}
            write(arguments.json, results, table(["images", "who", "seconds", "x camcli", "cores busy"], rows))


if __name__ == "__main__":
    main()
