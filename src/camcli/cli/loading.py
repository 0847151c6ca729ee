"""Loading of PyTorch and a model by a command."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from camcli.base import collector, timing
from camcli.cli.console import Console
from camcli.runs.job.job import Job
from camcli.runs.job.names import check_names

# Words for the stages that a wait may be for, besides loading.
STAGES = {
    "import": "importing PyTorch",
    "hash": "hashing the weights",
    "trial": "trying the method on noise",
    "place": "measuring where the layer's cells look",
    "linear": "timing linear layers",
    "compile": "compiling the network",
}


def check_job(job: Job, formats: Sequence[str] = ()) -> None:
    """Check a job, and names of output formats, as far as that goes without PyTorch: a typo is answered at once."""
    check_names(job, formats)
    from camcli.runs.record.preflight import check_early  # brings NumPy and Pillow

    check_early(job)


@contextmanager
def loading(console: Console, message: str) -> Iterator[None]:
    """Show ``message``, or what runs instead, while the block imports torch, for the first time, and loads a model."""
    with console.working(message, STAGES):
        try:
            with timing.measure("import"):
                import torch  # noqa: F401 - the seam: torch comes in here

            collector.freeze()
            # Pillow warns of metadata it cannot read; whatever makes an image fail is reported as its failure.
            warnings.filterwarnings("ignore", module="PIL")
            yield
            if "cv2" in sys.modules:
                # Several images are drawn at a time; OpenCV's own threads for each would only get in the way.
                sys.modules["cv2"].setNumThreads(1)
        finally:
            collector.resume()
