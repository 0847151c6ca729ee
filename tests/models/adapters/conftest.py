"""Wrappers and text towers, written to the current folder."""

from pathlib import Path

import pytest
from text_towers import OWN, TOWERS, WIDE
from wrappers import WRAPPERS


@pytest.fixture
def tower(here: Path) -> str:
    (here / "neighbour.py").write_text(f"WIDE = {WIDE}\n")
    (here / "own.py").write_text(OWN)
    (here / "tower.py").write_text(TOWERS)
    return str(here / "tower.py")


@pytest.fixture
def wrap(here: Path) -> str:
    (here / "wrap.py").write_text(WRAPPERS)
    return "wrap.py:"
