"""Loading of PyTorch and a model by a command."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from camcli.base import collector, timing
from camcli.cli.console import Console


@contextmanager
def loading(console: Console, message: str) -> Iterator[None]:
    """Show ``message`` while the block imports torch, for the first time in a process, and loads a model."""
    with console.working(message):
        try:
            with timing.measure("import"):
                import torch  # noqa: F401 - the seam: torch comes in here

            collector.freeze()
            # Pillow warns of metadata it cannot read; whatever makes a picture fail is reported as its failure.
            warnings.filterwarnings("ignore", module="PIL")
            yield
            if "cv2" in sys.modules:
                # Several pictures are drawn at a time; OpenCV's own threads for each would only get in the way.
                sys.modules["cv2"].setNumThreads(1)
        finally:
            collector.resume()
