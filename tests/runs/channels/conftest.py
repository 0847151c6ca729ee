"""Models whose layers can be worked out by hand."""

from pathlib import Path

import pytest
from channel_runs import MODELS


@pytest.fixture(scope="session")
def models_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "models.py"
    path.write_text(MODELS, encoding="utf-8")
    return path
