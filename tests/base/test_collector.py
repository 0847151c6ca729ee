"""The collector rests while a command starts, misses nothing, and leaves other people's processes alone."""

import gc
import subprocess
import sys
import weakref

import pytest

from camcli.base import collector


class Ring:
    def __init__(self):
        self.self = self


def said(code: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    return done.stdout.split()


def test_what_went_round_in_circles_while_it_rested_is_still_found():
    code = (
        "import gc, weakref; from camcli.base import collector\n"
        "class Ring: pass\n"
        "collector.pause(); kept = Ring(); collector.freeze()\n"
        "ring = Ring(); ring.self = ring; gone = weakref.ref(ring); del ring\n"
        "print(gone() is None, gc.isenabled(), gc.get_freeze_count() > 0)\n"
        "collector.resume(); print(gone() is None, gc.isenabled())"
    )
    assert said(code) == ["False", "False", "True", "True", "True"]


def test_a_collector_that_somebody_else_has_switched_off_stays_off():
    code = (
        "import gc; from camcli.base import collector; gc.disable(); collector.freeze(); collector.resume()\n"
        "print(gc.isenabled(), gc.get_freeze_count())"
    )
    assert said(code) == ["False", "0"]


def test_where_nobody_paused_nothing_is_frozen():
    frozen = gc.get_freeze_count()
    ring = Ring()
    gone = weakref.ref(ring)
    collector.freeze()
    collector.resume()
    assert gc.get_freeze_count() == frozen
    assert gc.isenabled()
    del ring
    gc.collect()
    assert gone() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("layers", "timm:test_resnet"),
        ("layers", "timm:resnet50.no_such_tag"),
        ("explain", __file__, "-m", "nowhere.py:make"),
        ("methods", "gradcam"),
    ],
)
def test_a_command_collects_again_once_it_has_loaded_or_failed_to(words):
    code = (
        "import atexit, gc, sys; from camcli.__main__ import main\n"
        "atexit.register(lambda: print('\\n', gc.isenabled(), gc.get_freeze_count() > 100_000))\n"
        "main()"
    )
    assert said(code, *words)[-2:] == ["True", "True"]


def test_pictures_are_drawn_by_camclis_threads_alone(sample_images, here):
    code = (
        "import atexit, sys; from camcli.__main__ import main\n"
        "atexit.register(lambda: print('\\n', sys.modules['cv2'].getNumThreads()))\n"
        "main()"
    )
    picture = str(sample_images / "chelsea.png")
    assert said(code, "explain", picture, "--out", "out", "--quiet")[-1] == "1"
    assert (here / "out" / "run.json").exists()
