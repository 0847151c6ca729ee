"""camcli's types reach its users: they are in the package, and a script of theirs passes ``mypy --strict``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared import ROOT

import camcli

PACKAGE = Path(camcli.__file__).parent


def test_the_package_says_that_it_has_types():
    # Tests of CI run on the wheel that they installed.
    assert (PACKAGE / "py.typed").is_file()


def test_a_users_script_passes_strict_type_checks(tmp_path: Path):
    pytest.importorskip("mypy", reason="mypy is in the extra dev")
    beside = {} if "site-packages" in PACKAGE.parts else {"MYPYPATH": str(PACKAGE.parent)}
    # The project's own settings are strict, and with them its cache of torch's types can be used.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"),
         "--cache-dir", str(ROOT / ".mypy_cache"), str(ROOT / "tests" / "kit" / "user_script.py")],
        cwd=tmp_path, env=os.environ | beside, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
