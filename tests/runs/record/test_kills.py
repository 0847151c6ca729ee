"""Shards killed at random, resumed and merged."""

import subprocess
import sys

import pytest
from shared import ROOT


@pytest.mark.slow
def test_killed_shards_come_to_the_files_and_the_record_of_a_run_left_in_peace() -> None:
    words = [sys.executable, ROOT / "benchmarks/kill.py", "--kills", "12"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "all equal the undisturbed run" in " ".join(done.stdout.split())
