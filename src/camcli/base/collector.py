"""Python's garbage collector, which has nothing to find while a process starts, kept out of the way until then.

Imports make half a million objects that stay. Left alone, the collector goes over all of them again and again while
they are made, and once more when the process ends: a third of what a short run takes.
"""

import gc

_paused = False


def pause() -> None:
    """Collect nothing from now on: for a process of camcli's own, when it begins."""
    global _paused
    gc.disable()
    _paused = True


def keep() -> None:
    """What there is stays until the process ends, and is looked at no more; where :func:`pause` was called."""
    if _paused:
        gc.freeze()


def resume() -> None:
    """Collect again, but for what is still there after a last look at it; where :func:`pause` was called."""
    global _paused
    if _paused:
        gc.collect()
        gc.freeze()
        gc.enable()
        _paused = False
