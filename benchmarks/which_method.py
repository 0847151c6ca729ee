"""Which method finds the object that is asked for: every method on scenes whose objects are known, as a page.

    python benchmarks/which_method.py WORK [--packages FOLDER] [--scenes 40] [--costly 8]
        [--kinds pairs singles] [--page docs/benchmark.md]

Scenes of two objects and of one (`benchmarks/object_scenes.py`), for the bundled model and for DINOv2-S with a probe
(`benchmarks/dino_probe.py`); `camcli evaluate` measures all methods and controls on them. What asks the network
hundreds of times for a map is measured on the first scenes alone (0: left out). Everything is kept in WORK, and a run
that was interrupted goes on; `--page` writes the tables.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import camcli
from camcli.methods import METHODS

HERE = Path(__file__).parent
LOCALISATION = ("pointing-game", "energy-in-box")
FAITHFULNESS = ("road-most", "deletion-mean", "insertion-blur")
# Of a pointing game among cut-outs a tolerance would be a gift.
SETTINGS = ("pointing-game.tolerance=0",)
# A map of these takes hundreds of forwards, or thousands.
COSTLY = (
    "scorecam",
    "gscorecam",
    "rise",
    "sobol",
    "hsic",
    "opti-cam",
    "occlusion",
    "smoothgrad",
    "integrated-gradients",
)
OPTIONS = ("rise.samples=1000",)
# Tens of thousands of forwards: days, for so many maps, on a processor.
TOO_COSTLY = ("ss-cam", "is-cam")
# Maps of concepts and channels, which do not explain a class's score, and a baseline that the controls have.
NO_CLASS = ("dff", "pca", "kmeans", "random", "activation")
BATCH, ROUNDS = 8, 3
# Name, among the controls that a method does not beat, of one that does know the model.
BLURRED_COPY = "its blurred copy"
# Marks in the page between which the tables are.
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
# A map's kind and name; a folder of scenes and a metric.
Map = tuple[str, str]
Column = tuple[str, str]


@dataclass(frozen=True)
class Subject:
    """A model of the page: what it is called there, and its name for camcli."""

    title: str
    name: str


SUBJECTS = {
    "bundled": Subject("EfficientNet-Lite0 (bundled)", "bundled:efficientnet-lite0"),
    "dino": Subject("DINOv2 ViT-S/14 with a linear probe", f"{HERE / 'dino_probe.py'}:make"),
}


def main() -> None:
    """Make the scenes, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--packages", type=Path, default=Path("packages"))
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--costly", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=("pairs", "singles"), default=["pairs", "singles"])
    parser.add_argument("--only", choices=SUBJECTS, action="append")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    packages = given.packages.absolute()
    link = given.work / "packages"
    if not link.exists():
        packages.mkdir(parents=True, exist_ok=True)
        link.symlink_to(packages)
    page = given.page.absolute() if given.page else None
    os.chdir(given.work)
    for key in given.only or SUBJECTS:
        subject = SUBJECTS[key]
        if not Path(key).is_dir():
            count = str(given.scenes)
            script = [sys.executable, HERE / "object_scenes.py", key, "--model", subject.name]
            subprocess.run([*script, "--pairs", count, "--singles", count], check=True)
        network = camcli.load(subject.name)
        files = sorted(Path(key, "singles", "images").iterdir())[:BATCH]
        images = torch.stack([network.preprocess(Image.open(file))[0] for file in files])
        methods = [one for one in list_methods(network, images) if given.costly or one not in COSTLY]
        cheap = [one for one in methods if one not in COSTLY]
        costly = [one for one in methods if one in COSTLY]
        for scenes in given.kinds:
            metrics = LOCALISATION + FAITHFULNESS * (scenes == "singles")
            evaluate(subject, Path(key, scenes), "cheap", cheap, metrics, 0)
            if costly:
                evaluate(subject, Path(key, scenes), "costly", costly, metrics, given.costly)
        measure_cost(network, images, methods, Path(key, "cost.json"))
    if page:
        write_page(page, [*(given.only or SUBJECTS)])


def list_methods(network: camcli.Network, images: torch.Tensor) -> list[str]:
    """List the methods that explain a class of this model at a cost that can be borne; print why others do not."""
    found = []
    for method in METHODS.names():
        if method in (*TOO_COSTLY, *NO_CLASS):
            continue
        try:
            if method not in COSTLY:
                [[result]] = camcli.Explainer(network, method=[method])(images[:1])
                if isinstance(result, camcli.PictureError):
                    raise result
        except camcli.CamcliError as error:
            print(f"{network.name}: not {method}: {error}")
            continue
        found.append(method)
    return found


def measure_cost(network: camcli.Network, images: torch.Tensor, methods: list[str], file: Path) -> None:
    """Write by method the processor's time for a map, as a multiple of Grad-CAM's."""

    def measure(batch: torch.Tensor) -> float:
        begun = time.process_time()
        explainer(batch)
        return (time.process_time() - begun) / len(batch)

    seconds = {}
    for method in methods:
        explainer = camcli.Explainer(network, method=[method])
        explainer(images[:1])  # which tries it on noise first
        batch, rounds = (images[:1], 1) if method in COSTLY else (images, ROUNDS)
        seconds[method] = min(measure(batch) for _ in range(rounds))
    file.write_text(json.dumps({method: one / seconds["gradcam"] for method, one in seconds.items()}, indent=2) + "\n")


def evaluate(
    subject: Subject, folder: Path, name: str, methods: list[str], metrics: tuple[str, ...], limit: int
) -> None:
    """Measure methods on scenes, beside the controls, with the command that everybody has."""
    words = ["images", "--model", subject.name, "--targets", "targets.csv", "--boxes", "boxes.csv", "--out", name]
    words += ["--method", ",".join(methods), "--metrics", ",".join(metrics), "--to", f"{name}.jsonl"]
    words += [word for setting in SETTINGS for word in ("--setting", setting)]
    words += [word for option in OPTIONS if option.split(".")[0] in methods for word in ("--option", option)]
    words += ["--limit", str(limit)] if limit else []
    done = subprocess.run([sys.executable, "-m", "camcli", "evaluate", *words], cwd=folder, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)


# ---- the page


def write_page(page: Path, keys: Sequence[str]) -> None:
    """Replace what the page has between its marks by the tables; what stands around them is written by hand."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    tables = "\n".join(make_table(SUBJECTS[key].title, Path(key)) for key in keys)
    page.write_text(f"{head}{BEGIN}\n\n{tables}\n{END}{tail}", encoding="utf-8")


def make_table(title: str, folder: Path) -> str:
    """Make the Markdown table of a model: methods by energy in the asked object, controls below."""
    numbers, images = read_numbers(folder)
    file = folder / "cost.json"
    cost = json.loads(file.read_text()) if file.is_file() else {}
    columns = [("pairs", "pointing-game"), ("pairs", "energy-in-box")]
    if "singles" in images:
        columns += [("singles", metric) for metric in FAITHFULNESS]
    counts = [f"{images['pairs']} scenes of two objects"]
    counts += [f"{images['singles']} of one"] if "singles" in images else []
    names = ["peak in it", "energy in it", *(f"`{one}`" for one in FAITHFULNESS)][: len(columns)]
    lines = [
        f"### {title}",
        "",
        ", ".join(counts) + (f"; methods marked \\* on the first {images['costly']}." if "costly" in images else "."),
        "",
        f"| {' | '.join(['method', *names, *['cost'] * bool(cost)])} |",
        "|---" * (len(columns) + 1 + bool(cost)) + "|",
    ]
    maps = sorted({one for one, _ in numbers}, key=lambda one: (one[0] == "control", -numbers[one, columns[1]]["mean"]))
    for one in maps:
        kind, name = one
        cells = [format_cell(numbers.get((one, column))) for column in columns]
        shown = f"*control* {name}" if kind == "control" else f"`{name}`" + " \\*" * (name in COSTLY)
        cells += [f"{cost[name]:.2g}" if name in cost else ""] * bool(cost)
        lines.append(f"| {' | '.join([shown, *cells])} |")
    return "\n".join([*lines, ""])


def read_numbers(folder: Path) -> tuple[dict[tuple[Map, Column], dict[str, Any]], dict[str, int]]:
    """Read the tables of a model; return their rows by map and column, and how many images they are of."""
    found: dict[tuple[Map, Column], dict[str, Any]] = {}
    images = {}
    for scenes, name in itertools.product(("pairs", "singles"), ("costly", "cheap")):
        file = folder / scenes / f"{name}.jsonl"
        for line in file.read_text().splitlines() if file.is_file() else ():
            row = json.loads(line)
            if row["kind"] != "blurred":  # the controls, which come twice, are those of all scenes
                found[(row["kind"], row["map"]), (scenes, row["metric"])] = row
            images[scenes if name == "cheap" else name] = row["images"]
    return found, images


def format_cell(row: dict[str, Any] | None) -> str:
    """Format a mean with half of its interval, and a mark where a map that does not know the model is as good."""
    if row is None or row["mean"] is None:
        return ""
    half = "" if row["low"] is None else f" ± {(row['high'] - row['low']) / 2:.2f}"
    return f"{row['mean']:.2f}{half}" + (" †" if {*row["not_above"].split(", ")} - {"", BLURRED_COPY} else "")


if __name__ == "__main__":
    main()
