"""Hold the zoo to its laws and write docs/architectures.md: ``python tools/make_architectures.py [PATTERN ...]``.

With patterns only the models that they fit are examined; the other lines of the table stay.
"""

import multiprocessing
import os
import sys
import time
import warnings
from fnmatch import fnmatchcase
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kit"))  # what tests share

from zoo import TABLE, examine, families, family, page, row, rows


def _look(model: str) -> tuple[str, str, str, float]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    began = time.monotonic()
    try:
        return model, row(family(model), examine(model)), "", time.monotonic() - began
    except Exception as error:
        return model, "", f"{type(error).__name__}: {error}", time.monotonic() - began


def main() -> int:
    """Examine, print, write; 1 if a family broke a law."""
    patterns = sys.argv[1:] or ["*"]
    wanted = [one.model for one in families() if any(fnmatchcase(one.model, pattern) for pattern in patterns)]
    lines = rows(TABLE.read_text()) if TABLE.exists() else {}
    bad = 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=8) as pool:
        for model, line, error, seconds in pool.imap_unordered(_look, wanted):
            print(f"{seconds:6.1f} s  {model:50} {error or line}", flush=True)
            bad += bool(error)
            lines.pop(model, None)
            if line:
                lines[model] = line
            TABLE.write_text(page(lines))  # at once, since the next may take minutes
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
