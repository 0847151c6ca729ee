"""While a command loads."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from camcli.base import collector
from camcli.cli.console import Voice


@contextmanager
def loading(voice: Voice, what: str) -> Iterator[None]:
    """Around what imports torch, for the first time in a process, and loads a model; ``what`` says so meanwhile."""
    with voice.working(what):
        try:
            import torch  # noqa: F401 - the seam: torch comes in here

            collector.keep()
            # Pillow warns of metadata it cannot read; what makes a picture fail is told as that picture's failure.
            warnings.filterwarnings("ignore", module="PIL")
            yield
            if "cv2" in sys.modules:
                # Several pictures are drawn at a time; threads of OpenCV's own for each would only get into their way.
                sys.modules["cv2"].setNumThreads(1)
        finally:
            collector.resume()
