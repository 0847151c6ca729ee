"""A job over very many images that is done: what it costs to run it again, as a whole command.

    python benchmarks/resuming.py [--images 1000000] [--folder FOLDER] [--archive] [--steps again,shard,status]

One image of 8 x 8 pixels is explained with the bundled model; the others' files, maps and lines are copies of its own
under other names (hard links, 1000 to a folder, so that a million take little space). With ``--archive`` the images are
the members of one tar file instead. Printed are seconds, those of a processor, which a busy machine distorts less, and
the peak of resident memory of each command; ``start`` is a run over one image that is done, in a folder of its own.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

A_FOLDER = 1000
MARK, STAMP = "@@", "@stamp@"
# In a tar file, whose members are stamped with their places.
MEMBER_BYTES = 1024
SAVES = ("--save", "overlay", "--save", "array")
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**10]))
"""


def run(*words: str) -> tuple[float, float, float]:
    """Seconds, seconds of a processor and MiB at the peak of a command."""
    whole = [sys.executable, "-c", MEASURE, sys.executable, "-m", "camcli", *words]
    code, *found = json.loads(subprocess.run(whole, check=True, capture_output=True, text=True).stdout)
    assert code == 0, words
    return found[0], found[1], found[2]


def make_images(top: Path, count: int, archive: bool) -> str:
    """Make the images; return the input that names them."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).convert("RGB").save(content, "PNG")
    if archive:
        with tarfile.open(top / "in.tar", "w") as file:
            for number in range(count):
                member = tarfile.TarInfo(name_image(number))
                member.size, member.mtime = content.tell(), 1_700_000_000
                file.addfile(member, io.BytesIO(content.getvalue()))
        return "in.tar"
    (top / "one.png").write_bytes(content.getvalue())
    link(top / "one.png", [top / "in" / name_image(number) for number in range(count)])
    return "in"


def name_image(number: int) -> str:
    """Name of an image below its folder."""
    return f"{number // A_FOLDER:05}/{number % A_FOLDER:03}.png"


def link(file: Path, names: list[Path]) -> None:
    """Give a file further names; a new copy of it serves each folder."""
    content, made = file.read_bytes(), file.stat()
    for number, name in enumerate(names):
        if number % A_FOLDER == 0:
            name.parent.mkdir(parents=True, exist_ok=True)
            copy = name.with_suffix(".copy")
            copy.write_bytes(content)
            os.utime(copy, ns=(made.st_atime_ns, made.st_mtime_ns))
        if not name.exists():
            os.link(copy, name)
        if number % A_FOLDER == A_FOLDER - 1 or number == len(names) - 1:
            copy.unlink()


def finish(top: Path, given: str, count: int) -> None:
    """Explain the first image, and record the others as if they had been."""
    first = name_image(0)
    run("explain", f"{given}/{first}", "--root", ".", "--out", "maps", *SAVES)
    ledger = top / "maps" / "outcomes.jsonl"
    line = ledger.read_text()
    values = json.loads(line)
    kinds, (base, _, place) = values["files"], values["stamp"].rpartition("-")
    line = line.replace(values["stamp"], STAMP)
    for file in kinds.values():
        here = top / "maps" / file
        link(here, [here.parents[1] / (name_image(number) + here.name[len("000.png") :]) for number in range(count)])
    template = line.replace(first, MARK).split(MARK)
    with ledger.open("w") as lines:
        for number in range(count):
            stamp = f"{base}-{int(place) + number * MEMBER_BYTES}" if given.endswith(".tar") else values["stamp"]
            lines.write(name_image(number).join(template).replace(STAMP, stamp))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where they are made, and stay; default: a temporary folder")
    parser.add_argument("--archive", action="store_true")
    parser.add_argument("--steps", default="start,again,shard,status")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        top = (given.folder or Path(temporary)).absolute()
        top.mkdir(exist_ok=True)
        os.chdir(top)
        named = "in.tar" if given.archive else "in"
        if not (top / "maps").exists():
            named = make_images(top, given.images, given.archive)
            finish(top, named, given.images)
        out = ["--out", "maps", *SAVES]
        commands = {
            "start": ["explain", f"{named}/{name_image(0)}", "--quiet", "--out", "one", *SAVES],
            "again": ["explain", named, "--quiet", *out],
            "shard": ["explain", named, "--quiet", "--shard", "3/16", "--dry-run", *out],
            "status": ["status", "maps"],
        }
        run(*commands["start"])
        print(f"{given.images:,} images {'in a tar file' if given.archive else 'in folders'}")
        print(f"{'step':8} {'s':>8} {'CPU s':>8} {'MiB':>6}")
        for step in given.steps.split(","):
            seconds, used, peak = run(*commands[step])
            if step == "again":
                assert json.loads((top / "maps" / "run.json").read_text())["skipped"] == given.images
            print(f"{step:8} {seconds:8.1f} {used:8.1f} {peak:6.0f}", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
