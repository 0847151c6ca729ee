"""Hold the whole zoo to its laws and write docs/architectures.md: ``python tests/make_architectures.py [PATTERN]``.

``--go-on`` keeps what was found before. With a pattern only the families that it fits are examined and printed;
nothing is written.
"""

import json
import multiprocessing
import os
import sys
import time
import warnings
from dataclasses import asdict
from fnmatch import fnmatchcase

import torch

from zoo import COSTLY, RESULTS, TABLE, Family, examine, families, is_left_out, page


def _look(family: Family) -> tuple[Family, dict[str, str], float]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    began = time.monotonic()
    try:
        found = asdict(examine(family.model))
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    return family, found, time.monotonic() - began


def main() -> int:
    """Examine, print, write; 1 if a family broke a law."""
    pattern = next((word for word in sys.argv[1:] if not word.startswith("-")), "*")
    wanted = [one for one in families() if fnmatchcase(one.model, pattern) and not is_left_out(one.model)]
    results = {} if pattern == "*" else None
    bad = 0
    if results is not None and "--go-on" in sys.argv:
        results = json.loads(RESULTS.read_text())
    wanted = [one for one in wanted if one.model not in (results or {})]
    wanted.sort(key=lambda one: one.model in COSTLY)
    with multiprocessing.get_context("spawn").Pool(min(2, os.cpu_count() or 1), maxtasksperchild=8) as pool:
        for family, found, seconds in pool.imap_unordered(_look, wanted):
            print(f"{family.model:60} {seconds:5.1f} s  {' | '.join(found.values())}", flush=True)
            bad += "error" in found
            if results is not None and "error" not in found:
                results[family.model] = found
                RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    if results is not None:
        TABLE.write_text(page())
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
