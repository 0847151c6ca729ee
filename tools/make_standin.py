"""Make the stand-in for CLIP that the tests and docs use: ``python tools/make_standin.py FOLDER``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kit"))  # what tests share

import standin

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    standin.write(Path(sys.argv[1]))
    print(f"camcli explain --model open_clip:local-dir:{sys.argv[1]} --text {standin.prompt('tabby')!r} PICTURES")
