"""What fixtures and tests both name: the repository's folder, colours of images, types of fixtures."""

from collections.abc import Callable
from pathlib import Path

from camcli.runs.record.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]

RED, GREEN, BLUE, BLACK = (250, 0, 0), (0, 250, 0), (0, 0, 250), (0, 0, 0)

Paint = Callable[..., Path]
Bring = Callable[..., str]
Go = Callable[..., list[list[Outcome]]]
