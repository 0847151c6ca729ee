"""Images of one and of two objects whose places are known, made of photographic cut-outs that Debian distributes.

    python benchmarks/object_scenes.py SCENES [--model NAME] [--pairs 60] [--singles 60] [--seed 0] [--packages FOLDER]

The cut-outs are those of `tuxpaint-stamps-default`, the photographs behind half of the scenes those of
`mate-backgrounds` (free software, and not part of this repository): `apt-get download` and `dpkg -x` fetch them into
FOLDER, unless they are there. A cut-out is used if an ImageNet class is what a person would call it, by the table
below. Written to SCENES are `pairs/` (two objects of two classes side by side; each is asked for) and `singles/`, in
each of them `images/`, `targets.csv` and `boxes.csv`. Scenes are kept in which the model finds what is asked for among
its best classes, since the map of a class that a network does not see has no right answer. Everything is seeded.
"""

import argparse
import csv
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import camcli

PACKAGES = ("tuxpaint-stamps-default", "mate-backgrounds")
STAMPS, NATURE = "usr/share/tuxpaint/stamps", "usr/share/backgrounds/mate/nature"
BACKGROUNDS = ("Aqua", "Blinds", "Dune", "Garden", "GreenMeadow", "RainDrops", "Storm", "Wood")
# Class by its ImageNet name, and its cut-outs. Left out is what a class fits only nearly, and what is below 60 pixels.
CLASSES = {
    "drake": ("animals/birds/duck",),
    "goose": ("animals/birds/gander",),
    "hen": ("animals/birds/hen",),
    "king penguin": ("animals/birds/penguin",),
    "flamingo": ("animals/birds/pink_flamingo",),
    "lorikeet": ("animals/birds/rainbow-lorikeet",),
    "toucan": ("animals/birds/tucan",),
    "vulture": ("animals/birds/vulture",),
    "magpie": ("animals/birds/magpie",),
    "peacock": ("animals/birds/peacock",),
    "slug": ("animals/insects/Brown_slug",),
    "mantis": ("animals/insects/mantis",),
    "gorilla": ("animals/mammals/apes/gorilla",),
    "killer whale": ("animals/mammals/aquatic/orca",),
    "otter": ("animals/mammals/aquatic/otter",),
    "sea lion": ("animals/mammals/aquatic/sea_lion",),
    "badger": ("animals/mammals/badger",),
    "brown bear": ("animals/mammals/bears/bear", "animals/mammals/bears/european-bear"),
    "teddy": ("animals/mammals/bears/toys/edward_bear",),
    "bison": ("animals/mammals/bovines/bison",),
    "ram": ("animals/mammals/bovines/ram",),
    "Arabian camel": ("animals/mammals/camel/camel", "animals/mammals/camel/dromedary"),
    "lion": ("animals/mammals/cats/lion",),
    "tiger": ("animals/mammals/cats/tiger", "animals/mammals/cats/tiger_sumatran"),
    "dingo": ("animals/mammals/dogs/dingo",),
    "echidna": ("animals/mammals/echidna",),
    "zebra": ("animals/mammals/equines/zebra",),
    "hog": ("animals/mammals/pig", "animals/mammals/pig_golden"),
    "beaver": ("animals/mammals/rodents/beaver",),
    "fox squirrel": ("animals/mammals/rodents/squirrel",),
    "koala": ("animals/marsupials/koala",),
    "wombat": ("animals/marsupials/wombat",),
    "strawberry": ("food/fruit/Strawberry2",),
    "custard apple": ("food/fruit/cherimoya",),
    "lemon": ("food/fruit/lemon",),
    "pineapple": ("food/fruit/pineapple",),
    "broccoli": ("food/vegetables/broccoli",),
    "bell pepper": ("food/vegetables/yellowpepper",),
    "binoculars": ("hobbies/binoculars",),
    "reflex camera": ("hobbies/camera_35mm",),
    "cornet": ("hobbies/music/brass/trumpet",),
    "drum": ("hobbies/music/percussion/drumkit", "hobbies/music/percussion/drum_tomtom_floor"),
    "cello": ("hobbies/music/string/cello",),
    "acoustic guitar": ("hobbies/music/string/guitar_classical",),
    "electric guitar": ("hobbies/music/string/guitar_electric", "hobbies/music/string/guitar2"),
    "violin": ("hobbies/music/string/violin",),
    "hammer": ("household/tools/hammer",),
    "toilet seat": ("household/toilet",),
    "paintbrush": ("household/tools/paintbrush_large",),
    "Band Aid": ("medical/bandage_adhesive",),
    "stethoscope": ("medical/stethoscope",),
    "parachute": ("military/paratrooper",),
    "warplane": ("military/vehicles/f22_raptor",),
    "jack-o'-lantern": ("seasonal/halloween/jackolantern_mean",),
    "basketball": ("sports/basketball",),
    "soccer ball": ("sports/soccer",),
    "tennis ball": ("sports/tennis_ball",),
    "racket": ("sports/tennis_racket",),
    "tricycle": ("vehicles/cycle/pink_tricycle",),
    "fire engine": ("vehicles/emergency/firetruck",),
    "balloon": ("vehicles/flight/balloon360",),
    "airliner": ("vehicles/flight/planes/747",),
    "garbage truck": ("vehicles/garbagetruck",),
}
SIDE = 448
# Nothing lies in this margin, which a model's centre crop may cut off.
MARGIN = 36
MEAN_COLOUR = (124, 116, 104)
# Longest side of an object, as a share of the room that it has.
SMALLEST, GREATEST = 0.55, 0.95
# A class counts as found if it is among so many of the model's best.
BEST = 5
OPAQUE = 127


@dataclass(frozen=True)
class Placed:
    """An object in a scene: its class, and where it is opaque, ``(SIDE, SIDE)``."""

    label: str
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, in pixels."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Cutouts:
    """Cut-outs and photographs of the packages' files.

    Args:
        folder: where the packages are unpacked, or will be.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / STAMPS).is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, folder], check=True)
        self.objects = {
            label: [_cut_out(folder / STAMPS / f"{file}.png") for file in files] for label, files in CLASSES.items()
        }
        self.photographs = [Image.open(folder / NATURE / f"{name}.jpg").convert("RGB").copy() for name in BACKGROUNDS]

    def compose(self, labels: list[str], draw: np.random.Generator) -> tuple[Image.Image, list[Placed]]:
        """Draw objects of some classes side by side, at random sizes and heights, on a colour or on a photograph."""
        scene = self._make_background(draw)
        width = (SIDE - 2 * MARGIN) // len(labels)
        placed = []
        for place, label in enumerate(labels):
            cutout = self.objects[label][draw.integers(len(self.objects[label]))]
            factor = draw.uniform(SMALLEST, GREATEST) * min(width / cutout.width, (SIDE - 2 * MARGIN) / cutout.height)
            object_ = cutout.resize((round(cutout.width * factor), round(cutout.height * factor)), Image.LANCZOS)
            left = MARGIN + place * width + int(draw.integers(0, width - object_.width + 1))
            top = MARGIN + int(draw.integers(0, SIDE - 2 * MARGIN - object_.height + 1))
            scene.paste(object_, (left, top), object_)
            mask = np.zeros((SIDE, SIDE), bool)
            opaque = np.asarray(object_.getchannel("A")) > OPAQUE
            mask[top : top + object_.height, left : left + object_.width] = opaque
            placed.append(Placed(label, mask))
        return scene, placed

    def _make_background(self, draw: np.random.Generator) -> Image.Image:
        if draw.random() < 0.5:
            return Image.new("RGB", (SIDE, SIDE), MEAN_COLOUR)
        photograph = self.photographs[draw.integers(len(self.photographs))]
        part = int(min(photograph.size) * draw.uniform(0.5, 1))
        left, top = (int(draw.integers(0, room - part + 1)) for room in photograph.size)
        return photograph.crop((left, top, left + part, top + part)).resize((SIDE, SIDE), Image.LANCZOS)


def _cut_out(file: Path) -> Image.Image:
    """Read an image with transparency, cut to what is opaque in it."""
    image = Image.open(file).convert("RGBA")
    return image.crop(image.getchannel("A").point(lambda value: 255 * (value > OPAQUE)).getbbox())


def iter_scenes(
    cutouts: Cutouts, network: camcli.Network, objects: int, count: int, seed: int
) -> Iterator[tuple[Image.Image, list[Placed]]]:
    """Iterate over scenes of so many objects in which the network finds each class among its best.

    Prints at the end how many scenes were drawn for that.
    """
    draw = np.random.default_rng([seed, objects])
    indices = {label: network.labels.find(label) for label in CLASSES}
    drawn = kept = 0
    while kept < count:
        scene, placed = cutouts.compose([*draw.choice(list(CLASSES), objects, replace=False)], draw)
        drawn += 1
        with torch.no_grad():
            best = network.module(network.preprocess(scene)[0][None]).topk(BEST).indices[0].tolist()
        if all(indices[one.label] in best for one in placed):
            kept += 1
            yield scene, placed
    print(f"{kept} scenes of {objects}: {drawn} drawn, the others without a class among the best {BEST}")


def write_scenes(folder: Path, scenes: Iterator[tuple[Image.Image, list[Placed]]]) -> None:
    """Write scenes, what is asked of each, and where it is."""
    (folder / "images").mkdir(parents=True)
    with (
        (folder / "targets.csv").open("w", newline="") as targets,
        (folder / "boxes.csv").open("w", newline="") as boxes,
    ):
        target_rows, box_rows = csv.writer(targets), csv.writer(boxes)
        target_rows.writerow(("image", "target"))
        box_rows.writerow(("image", "x0", "y0", "x1", "y1", "label"))
        for number, (scene, placed) in enumerate(scenes):
            name = f"{number:03}.png"
            scene.save(folder / "images" / name)
            for one in placed:
                target_rows.writerow((name, one.label))
                box_rows.writerow((name, *one.box, one.label))


def main() -> None:
    """Write the scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--model", default="bundled:efficientnet-lite0")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--singles", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", type=Path, default=Path("packages"))
    given = parser.parse_args()
    cutouts = Cutouts(given.packages)
    network = camcli.load(given.model)
    for name, objects, count in (("pairs", 2, given.pairs), ("singles", 1, given.singles)):
        write_scenes(given.scenes / name, iter_scenes(cutouts, network, objects, count, given.seed))


if __name__ == "__main__":
    main()
