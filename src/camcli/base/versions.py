"""Versions of what a run's results depend on."""

from __future__ import annotations

import platform

PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "pillow", "opencv-python-headless")


def collect_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    import importlib.metadata

    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
