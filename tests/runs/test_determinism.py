"""The same job on the same machine: the same files, whatever the threads; numbers to rounding, whatever the batches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import Go

IMAGES = 17
# docs/outputs.md states it: of the range of a map's values.
TOLERANCE = 1e-5
JOBS = {
    "tokens": {"model": "timm:test_vit"},
    "gradients of the input": {
        "model": "timm:test_efficientnet",
        "method": "integrated-gradients",
        "options": ("steps=2",),
    },
}


@pytest.fixture
def noise(here: Path) -> str:
    random = np.random.default_rng(0)
    Path("in").mkdir()
    for number in range(IMAGES):
        coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize((96, 80), Image.Resampling.BICUBIC).save(f"in/{number:02}.png")
    return "in"


def read(folder: str) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in Path(folder, "in").iterdir()}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_the_same_job_gives_the_same_files(noise: str, go: Go, job: dict) -> None:
    job = {"weights": "random", "save": ("array", "overlay"), **job}
    for out, workers in {"out": 1, "again": 4}.items():
        go(noise, **job, batch_size=4, workers=workers, out=out)
    wanted = read("out")
    assert len(wanted) == 2 * IMAGES
    assert read("again") == wanted

    for size in (1, 16):
        go(noise, **{**job, "save": "array"}, batch_size=size, out=f"by {size}")
        assert len(read(f"by {size}")) == IMAGES
        for name in read(f"by {size}"):
            map_, other = np.load(f"out/in/{name}"), np.load(f"by {size}/in/{name}")
            assert np.abs(map_ - other).max() <= TOLERANCE * np.ptp(map_), name
