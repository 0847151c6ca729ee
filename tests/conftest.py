"""Fixtures that several rooms' tests share."""

import ctypes
import gc
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from shared import BLACK, BLUE, RED, ROOT, TINY, Bring, Go, Paint

from camcli.runs.job.job import Job
from camcli.runs.record.outcome import Outcome

# Tests run in a process for each core, so each has one thread; on networks this small more would wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # likewise for the commands that tests start

MUCH_MEMORY = 2 * 2**30  # bytes

# Of the slow tests so many parts, of which a plain `pytest` runs one, another each day; `pytest -m slow` runs them all.
SLOW_PARTS = 12
# Test functions that take more than 0.4 s in all their cases, which the everyday suite leaves out:
# tools/list_long_tests.py.
LONG_TESTS = Path(__file__).with_name("long_tests.txt")


def pytest_configure(config: pytest.Config) -> None:
    """Where nobody says which tests are wanted, choose the part of the day, for all processes of this run."""
    if hasattr(config, "workerinput"):
        return
    plain = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr
    os.environ["CAMCLI_SLOW_PART"] = str(int(time.time()) // 86_400 % SLOW_PARTS) if plain else ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that take long, and leave out the slow tests of other days."""
    long_tests = set(LONG_TESTS.read_text(encoding="utf-8").split())
    for item in items:
        if item.nodeid.partition("[")[0] in long_tests:
            item.add_marker("long")
    if not (part := os.environ["CAMCLI_SLOW_PART"]):
        return
    others = {
        item
        for item in items
        if item.get_closest_marker("slow") and zlib.crc32(item.nodeid.encode()) % SLOW_PARTS != int(part)
    }
    config.hook.pytest_deselected(items=list(others))
    items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session", autouse=True)
def commands_keep_no_memory() -> Iterator[None]:
    """Commands that tests run in their own process do not set its allocator for all tests after them.

    What a command wants of the C library's memory is for as long as it runs one network; a process that builds hundreds
    of them, kept so, grew to 12 GB. tests/base/test_allocator.py tries it in processes of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("camcli.base.allocator.keep_memory", lambda: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def names_are_cached_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands that tests run in their own process leave the user's cache of names alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("camcli.base.cache.find_folder", lambda: folder)
        yield


@pytest.fixture(autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """Networks hold themselves in circles, and the C library what lay between them: gigabytes after some dozen."""
    yield
    if psutil.Process().memory_info().rss > MUCH_MEMORY:
        gc.collect()
        if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
            library.malloc_trim(0)


@pytest.fixture(autouse=True)
def places_are_measured_in_everyday_tests_alone(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zoo's laws are of maps, and not of where their cells lie, which takes dozens of passes to measure.

    That has tests of its own, which are no slow ones: test_placement.py.
    """
    if request.node.get_closest_marker("slow"):
        monkeypatch.setattr("camcli.engine.checks.places.locate", lambda *_given, **_options: {})


@pytest.fixture(scope="session")
def sample_images() -> Path:
    """The folder of sample images."""
    return ROOT / "sample_images"


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with small models of colour: ``make``, ``slow`` (0.15 s a forward), ``moody`` (fails on bright ones)."""
    path = tmp_path_factory.mktemp("model") / "tiny.py"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file: Path) -> str:
    """The model string of the small model of colour."""
    return f"{tiny_file}:make"


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> str:
    """The model string of the stand-in for CLIP (tests/kit/standin.py), made once for all processes of the session."""
    import standin as making

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder = shared / "standin"
    with filelock.FileLock(shared / "standin.lock"):
        if not folder.exists():
            making.write(shared / "standin.part")
            (shared / "standin.part").rename(folder)
    return f"open_clip:local-dir:{folder}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one; without settings from the caller's environment."""
    for name in os.environ:
        if name.startswith("CAMCLI_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def paint(here: Path) -> Paint:
    """Writes an image of one colour, perhaps with a box of another: ``paint("a.png", RED, box=(x0, y0, x1, y1))``."""

    def paint(
        name: str,
        colour: tuple[int, int, int] = RED,
        size: tuple[int, int] = (32, 32),
        box: tuple[int, int, int, int] | None = None,
        ground: tuple[int, int, int] = BLACK,
    ) -> Path:
        picture = Image.new("RGB", size, ground if box else colour)
        if box:
            picture.paste(colour, box)
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        return path.relative_to(here)

    return paint


@pytest.fixture
def pixels() -> Callable[[Path | str], np.ndarray]:
    """Reads an image back: uint8 ``(h, w, 3)``."""

    def pixels(path: Path | str) -> np.ndarray:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))

    return pixels


@pytest.fixture(scope="session")
def command() -> list[str]:
    """What starts camcli in a process of its own."""
    return [sys.executable, "-m", "camcli"]


@pytest.fixture
def two(paint: Paint) -> None:
    """Two images below ``in``."""
    paint("in/a.png", RED)
    paint("in/b.png", BLUE)


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Brings a function into the table of methods for one test: ``bring(function, fuse=...)`` gives its name."""
    from camcli.methods import METHODS, MethodRow

    loaded, beside = METHODS.load, METHODS.load_function
    functions: dict[str, Callable] = {}
    monkeypatch.setattr(METHODS, "load", lambda name: functions.get(name) or loaded(name))
    monkeypatch.setattr(METHODS, "load_function", lambda row, name: functions.get(name) or beside(row, name))

    def bring(
        function: Callable, name: str = "", fuse: Callable | None = None, kind: str = "gradient", **fields: str
    ) -> str:
        name = name or function.__name__.replace("_", "-")
        functions[name] = function
        if fuse:
            functions[fuse.__name__] = fuse
            fields["fuse"] = fuse.__name__
        row = MethodRow(kind, name, "brought in by a test", **fields)
        monkeypatch.setattr(METHODS, "rows", (*(one for one in METHODS.rows if one.name != name), row))
        return name

    return bring


@pytest.fixture
def go(tiny: str) -> Go:
    """Runs a job on the small model of colour, from beginning to end; gives each image's outcomes."""
    from camcli.runs.explain.run import Run

    def go(*inputs: str, **options) -> list[list[Outcome]]:
        with Run(Job(**{"model": tiny, "inputs": inputs, "out": "out", "device": "cpu", **options})) as run:
            return list(run)

    return go
