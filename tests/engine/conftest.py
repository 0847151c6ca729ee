"""Fixtures of the engine's tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small CLIP model for each kind of tower, made when it is first asked for."""
    return tmp_path_factory.mktemp("towers")
