"""The stages of gpu.py: each a generator of results, one table each."""

import argparse
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import CLASS, CONTENDERS, contender, network
from folder import SIZES, make_pictures
from report import ratio

from camcli import Explainer
from camcli.base import timing
from camcli.base.errors import CamcliError
from camcli.base.signature import read_options
from camcli.engine.devices import is_out_of_memory
from camcli.engine.precision import DTYPES, float32_precision
from camcli.methods import METHODS, works_at
from camcli.runs.explain.run import Run
from camcli.runs.job.job import Job
from camcli.runs.worker import pipeline
from engine import memory_now

Row = dict[str, Any]
CORES = len(os.sched_getaffinity(0))
ROOT = Path(__file__).parent.parent
NETWORKS = ("resnet50", "vit_base_patch16_224", "convnext_tiny", "open_clip:ViT-B-32")
SMALL_NETWORKS = ("resnet18", "test_vit")
PEERS = [one for one in CONTENDERS if not one.startswith("camcli")]
# Of a map's greatest value: float32 on both, sums in another order. Where a ReLU's input is about zero, one device's
# gradient passes and the other's does not, hence no less.
TOLERANCE = 1e-3
# Fewer samples, masks and steps than the papers', for methods that ask often, and a layer of few channels.
QUICK = {"samples": 2, "top": 4, "steps": 3, "stride": 64, "window": 64, "iterations": 5}
EACH_CHANNEL = ("scorecam", "ss-cam", "is-cam", "ablation-cam")
FEW_CHANNELS = {"resnet50": "layer1", "convnext_tiny": "stages.0", "resnet18": "layer1"}
TURN_SECONDS = 0.3
# A process loads each once.
cached_network = cache(network)


def synchronize(device: str) -> None:
    """Wait until the device has done everything."""
    if device != "cpu":
        torch.cuda.synchronize()


def peak(device: str) -> float:
    """MiB at the most: of the device's memory since the last reset, of a process on the CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else memory_now("VmHWM")


def forget_peak(device: str) -> float:
    """Begin to count anew; return what is in use."""
    if device == "cpu":
        return memory_now("VmRSS")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**20


def timed(run: Callable[[], Any], device: str) -> float:
    """Seconds of one turn."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def run_tests(_: argparse.Namespace) -> Iterator[Row]:
    """``pytest -m gpu`` on the files that have such tests."""
    marked = [str(one) for one in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in one.read_text()]
    # Other versions of libraries may warn.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-q", "-W", "default", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *marked], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout[-20_000:], done.stderr[-5_000:])
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            yield {"result": line}
    yield {"result": lines[-1]}


# ---- equal


def explain(made: Any, layer: str, method: str, device: str) -> list[Any]:
    """The maps of two images, or why there are none."""
    row = METHODS.find(method)
    known = {name for part in row.parts or (method,) for name in read_options(METHODS.load(part))}
    own = replace(made, module=deepcopy(made.module).to(device))
    images = torch.randn(2, 3, *made.preprocess.size, generator=torch.Generator().manual_seed(0))
    options = {name: value for name, value in QUICK.items() if name in known}
    layers = [layer] if "layer" in works_at(row) else []
    explainer = Explainer(own, layers=layers, method=method, options=options)
    found = explainer.results(images, lambda row, scores: [1 if method == "activation" else CLASS])
    return [one for ones in found for one in ones]


def compare(name: str, method: str, device: str) -> str:
    """The greatest difference between the device's and the CPU's maps, by the map's greatest value."""
    made, _, layer = cached_network(name)
    layer = FEW_CHANNELS.get(name, layer) if method in EACH_CHANNEL else layer
    ways = []
    for one in ("cpu", device):
        try:
            with float32_precision("fp32"):
                ways.append(explain(made, layer, method, one))
        except CamcliError as error:
            ways.append([error])
        except Exception as error:
            return f"FAILED on {one}: {type(error).__name__}: {error}"[:300]
    if len(ways[0]) != len(ways[1]):
        return f"DIFFERS: {ways}"[:300]
    worst = 0.0
    for own, other in zip(*ways, strict=True):
        if isinstance(own, CamcliError) or isinstance(other, CamcliError):
            if str(own) != str(other):
                return f"DIFFERS: {own} | {other}"[:300]
            continue
        most = np.abs(own.map).max() or 1.0
        worst = max(worst, float(np.abs(own.map - other.map).max() / most))
    if all(isinstance(one, CamcliError) for one in ways[0]):
        return "refused by both"
    return f"{worst:.0e}" if worst <= TOLERANCE else f"DIFFERS by {worst:.0e}"


def run_equal(asked: argparse.Namespace) -> Iterator[Row]:
    """Every method on every network: the device's maps against the CPU's, several at a time."""
    names = SMALL_NETWORKS if asked.quick else NETWORKS
    late = ("masking", "cells", "sensitivity", "optimised", "pixel", "concept")
    methods = [row.name for row in sorted(METHODS.rows, key=lambda row: row.kind in late)]
    at_once = max(1, CORES // 4)
    share = (CORES // at_once,)
    with ProcessPoolExecutor(at_once, get_context("spawn"), torch.set_num_threads, share) as pool:
        tasks = [[pool.submit(compare, name, method, asked.device) for name in names] for method in methods]
        for method, own in zip(methods, tasks, strict=True):
            yield {"method": method, **{name: one.result() for name, one in zip(names, own, strict=True)}}


# ---- speed


def prepare(who: str, given: Any, batch: int, precision: str, device: str) -> Callable[[], Any]:
    """One turn of a contender, with a network of its own, tried twice."""
    made, size, layer = given
    own = replace(made, module=deepcopy(made.module).to(device))
    if precision in ("bf16", "fp16"):
        if who.startswith("camcli"):
            who = f"{who} {precision}"
        else:
            own.module.to(DTYPES[precision])
    run = contender(who, own, size, layer, batch)
    for _ in range(2):
        run()
    return run


def measure(contenders: Sequence[str], given: Any, batch: int, precision: str, device: str) -> Iterator[Row]:
    """Milliseconds an image of contenders in turn, their ratios to naive tuned inference, their peak of memory."""
    runs: dict[str, Callable[[], Any]] = {}
    peaks: dict[str, float] = {}
    case = {"batch": batch, "precision": precision}
    with float32_precision(precision):
        for who in contenders:
            try:
                runs[who] = prepare(who, given, batch, precision, device)
                before = forget_peak(device)
                runs[who]()
                peaks[who] = peak(device) - before
            except ImportError as error:
                yield {"who": who, **case, "ms an image": f"not installed: {error.name}"}
            except Exception as error:
                runs.pop(who, None)
                short = "out of memory" if is_out_of_memory(error) else f"failed: {error}"[:120]
                yield {"who": who, **case, "ms an image": short}
        taken: dict[str, list[float]] = {who: [] for who in runs}
        began = time.perf_counter()
        for turn in range(7):
            if turn >= 3 and time.perf_counter() - began > TURN_SECONDS * len(runs):
                break
            for who, run in runs.items():
                taken[who].append(timed(run, device) / batch)
    for who, seconds in taken.items():
        middle = statistics.median(seconds)
        base = ratio(seconds, taken["naive tuned"]) if "naive tuned" in taken else ""
        yield {
            "who": who,
            **case,
            "ms an image": f"{1000 * middle:.3f}",
            "images/s": round(1 / middle),
            "x naive tuned": base,
            "MiB": round(peaks[who]),
        }


def run_speed(asked: argparse.Namespace) -> Iterator[Row]:
    """Grad-CAM by everybody: first what says most, until the time ends."""
    names = SMALL_NETWORKS if asked.quick else NETWORKS
    given = {name: network(name) for name in names}
    everybody = ["naive tuned", "camcli", *(one for one in PEERS if one != "naive tuned")]
    tuned = [one for one in everybody if one == "camcli" or one.endswith(("tuned", "written"))]
    for batch, who in ((2, everybody),) if asked.quick else ((128, everybody), (32, tuned), (256, tuned)):
        for precision in DTYPES:
            for name in names:
                for row in measure(who, given[name], batch, precision, asked.device):
                    yield {"network": name, **row}


def run_compile(asked: argparse.Namespace) -> Iterator[Row]:
    """What a compiled network and, at small batches, a CUDA graph of the forward gain."""
    for name in SMALL_NETWORKS[:1] if asked.quick else ("resnet50", "vit_base_patch16_224"):
        given = network(name)
        for batch, precision in ((2, "fp32"),) if asked.quick else ((32, "bf16"), (128, "tf32")):
            for row in measure(("naive tuned", "camcli", "camcli compiled"), given, batch, precision, asked.device):
                yield {"network": name, **row}
        if asked.device != "cpu":
            yield from replay_graph(name, given, asked.device)


def replay_graph(name: str, given: Any, device: str) -> Iterator[Row]:
    """A forward of one image, and the same as a CUDA graph."""
    with float32_precision("fp32"):
        run = prepare("naive tuned", given, 1, "fp32", device)
        graph = torch.cuda.CUDAGraph()
        case = {"network": name, "batch": 1, "precision": "fp32"}
        try:
            with torch.cuda.graph(graph):
                run()
            turns = {"naive tuned": run, "its CUDA graph": graph.replay}
        except RuntimeError as error:
            yield {**case, "who": "its CUDA graph", "ms an image": f"failed: {error}"[:120]}
            return
        for who, turn in turns.items():
            middle = statistics.median(timed(turn, device) for _ in range(20))
            yield {**case, "who": who, "ms an image": f"{1000 * middle:.3f}"}


# ---- a folder


def fill(folder: Path, count: int) -> None:
    """A folder of so many JPEGs, a tenth of them drawn and the others the same files under other names."""
    drawn = folder / "drawn"
    make_pictures(drawn, math.ceil(count / 10), SIZES["small"])
    own = sorted(drawn.iterdir())
    (folder / "in").mkdir()
    for number in range(count):
        (folder / "in" / f"{number:05}.jpg").hardlink_to(own[number % len(own)])


def explain_folder(folder: Path, asked: argparse.Namespace, model: str, more: Row, maps: bool = False) -> Row:
    """A run over the folder, its start left out: images a second, where the time went, what it notes."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        source = model if ":" in model else f"timm:{model}"
        job = Job(
            model=source, weights="random", inputs=(f"{folder}/in",), out=f"{out}/out", device=asked.device, **more
        )
        with Run(job) as run:
            timing.take()
            before, wall, cpu = forget_peak(asked.device), time.perf_counter(), time.process_time()
            outcomes = [one for ones in run for one in ones]
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            notes = [note for note in run.notes if "memory" in note]
        arrays = {one.name: np.load(one) for one in Path(out, "out").rglob("*.npy")} if maps else {}
    return {
        "images": len(outcomes),
        "failed": sum(one.error is not None for one in outcomes),
        "seconds": wall,
        "cores busy": cpu / wall,
        "MiB": peak(asked.device) - before,
        "stages": timing.take(),
        "notes": notes,
        "maps": arrays,
    }


def run_folder(asked: argparse.Namespace) -> Iterator[Row]:
    """2,000 JPEGs to overlays, against the forward alone; seconds of threads are of all threads together."""
    count = 12 if asked.quick else 2000
    cases: list[tuple[str, Row]] = [
        *((name, {"precision": precision}) for name in NETWORKS[:2] for precision in ("fp32", "tf32", "bf16")),
        ("resnet50", {"precision": "bf16", "batch_size": 128}),
        ("resnet50", {"precision": "bf16", "save": ("array",)}),
        ("resnet50", {"precision": "bf16", "decode": "reduced"}),
        ("resnet50", {"precision": "bf16", "workers": 32}),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, count)
        for model, more in [("resnet18", {"precision": "fp32"})] if asked.quick else cases:
            made = cached_network(model)
            batch, precision = more.get("batch_size", 8 if asked.quick else 32), more["precision"]
            with float32_precision(precision):
                run = prepare("naive tuned", made, batch, precision, asked.device)
                forward = batch / statistics.median(timed(run, asked.device) for _ in range(5))
            del run
            found = explain_folder(folder, asked, model, {"layers": (made[2],), **more})
            rate = found["images"] / found["seconds"]
            stages = {stage: f"{1e3 * seconds / count:.2f}" for stage, seconds in found["stages"].items()}
            yield {
                "network": model,
                "asked": ", ".join(f"{key} {value}" for key, value in more.items()),
                "images/s": round(rate),
                "forward alone": round(forward),
                "share": f"{rate / forward:.0%}",
                "failed": found["failed"],
                "cores busy": f"{found['cores busy']:.1f} of {CORES}",
                "MiB": round(found["MiB"]),
                **{f"{stage}, ms": taken for stage, taken in stages.items()},
            }


def run_decode(asked: argparse.Namespace) -> Iterator[Row]:
    """Images a second of what could be done elsewhere: decoding and resizing by threads and by the GPU, the copy."""
    import cv2
    import simplejpeg
    import torchvision

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "in")
        make_pictures(folder, 8 if asked.quick else 64, SIZES["small"])
        files = [one.read_bytes() for one in sorted(folder.iterdir())]
    files *= 1 if asked.quick else 8

    def decode(data: bytes) -> np.ndarray:
        return simplejpeg.decode_jpeg(data, "RGB")

    def resize(data: bytes) -> np.ndarray:
        return cv2.resize(decode(data), (224, 224), interpolation=cv2.INTER_AREA)

    def threads(work: Callable[[bytes], Any], count: int) -> Callable[[], Any]:
        def run() -> None:
            with ThreadPoolExecutor(count) as pool:
                for _ in pool.map(work, files):
                    pass

        return run

    raw = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    pixels = torch.stack([torch.from_numpy(decode(data)).permute(2, 0, 1) for data in files[:64]])
    there = pixels.to(asked.device)
    inputs = torch.empty(len(files), 3, 224, 224)
    inputs = inputs.pin_memory() if asked.device != "cpu" else inputs

    def on_device() -> None:
        for first in range(0, len(raw), 64):
            torchvision.io.decode_jpeg(raw[first : first + 64], device=asked.device)

    def resized_there() -> None:
        torch.nn.functional.interpolate(there.float(), (224, 224), mode="bicubic", antialias=True)

    cases: list[tuple[str, int, Callable[[], Any]]] = [
        *((f"simplejpeg, {count} threads", len(files), threads(decode, count)) for count in (1, CORES)),
        *((f"simplejpeg, cv2's resize, {count} threads", len(files), threads(resize, count)) for count in (1, CORES)),
        ("nvJPEG, 64 at a time", len(files), on_device),
        ("resize there, antialiased bicubic", len(there), resized_there),
        ("copy of pinned inputs there", len(files), lambda: inputs.to(asked.device, non_blocking=True)),
    ]
    for what, count, run in cases:
        try:
            run()
            yield {"what": what, "images/s": round(count / min(timed(run, asked.device) for _ in range(3)))}
        except Exception as error:
            yield {"what": what, "images/s": f"failed: {error}"[:150]}


# ---- memory


def limit_memory(device: str, mib: float) -> None:
    """Let this process have no more than so many MiB beyond what it uses; on a CPU, pretend that few images fit."""
    if device != "cpu":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + mib * 2**20) / total)
        return
    plain = pipeline.find_results

    def short(worker: Any, explainer: Any, items: Sequence[Any]) -> Any:
        if len(items) > 5:
            raise torch.OutOfMemoryError("pretended")
        return plain(worker, explainer, items)

    pipeline.find_results = short


def run_memory(asked: argparse.Namespace) -> Iterator[Row]:
    """A batch that does not fit is divided, with the same maps; then the peaks of batches."""
    model, count, big = ("resnet18", 24, 24) if asked.quick else ("resnet50", 256, 256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, count)
        given: Row = {"save": ("array",), "layers": ("layer1",)}
        plain = explain_folder(folder, asked, model, {**given, "batch_size": 8}, maps=True)
        yield {"batch": 8, "limit, MiB": "", "MiB": round(plain["MiB"]), "notes": "; ".join(plain["notes"])}
        room = 3 * plain["MiB"]
        limit_memory(asked.device, room)
        short = explain_folder(folder, asked, model, {**given, "batch_size": big}, maps=True)
        worst = max(float(np.abs(plain["maps"][one] - short["maps"][one]).max()) for one in short["maps"])
        largest = max(float(np.abs(one).max()) for one in plain["maps"].values())
        yield {
            "batch": big,
            "limit, MiB": round(room),
            "MiB": round(short["MiB"]),
            "notes": "; ".join(short["notes"]),
            "failed": short["failed"],
            "difference": f"{worst / largest:.0e}",
            "divided": bool(re.search("not have enough memory", " ".join(short["notes"]))),
        }
