"""See what a vision model looks at.

``camcli.explain("photos", model="resnet50", layer="layer4")`` yields explanations one by one;
``camcli.Explainer(module, layers=["layer4"])`` explains batches of tensors. Importing this is cheap: torch and the
model libraries are loaded on the first use of a name.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from camcli.base.errors import CamcliError, NothingFoundError, PictureError, RequestError
    from camcli.engine.explainer import Explainer
    from camcli.engine.explanation import Explanation
    from camcli.engine.network import Network
    from camcli.images.transform import Preprocess
    from camcli.images.view import View
    from camcli.images.volumes import VolumePreprocess
    from camcli.models.load import load
    from camcli.runs.api.drawing import ImageExplanation
    from camcli.runs.api.explain import explain
    from camcli.runs.api.explanations import Explanations
    from camcli.runs.explain.run import Run
    from camcli.runs.job.job import Job
    from camcli.runs.record.outcome import Outcome
    from camcli.targets.labels import Labels
    from camcli.targets.readers.spec import OutputSpec

_HOMES = {
    "CamcliError": "base.errors",
    "Explainer": "engine.explainer",
    "Explanation": "engine.explanation",
    "Explanations": "runs.api.explanations",
    "ImageExplanation": "runs.api.drawing",
    "Job": "runs.job.job",
    "Labels": "targets.labels",
    "Network": "engine.network",
    "NothingFoundError": "base.errors",
    "Outcome": "runs.record.outcome",
    "OutputSpec": "targets.readers.spec",
    "PictureError": "base.errors",
    "Preprocess": "images.transform",
    "RequestError": "base.errors",
    "Run": "runs.explain.run",
    "View": "images.view",
    "VolumePreprocess": "images.volumes",
    "explain": "runs.api.explain",
    "load": "models.load",
}

# Names of the last release.
_RENAMED = {"Outlet": "OutputSpec", "Prepare": "Preprocess"}

__all__ = [
    "CamcliError",
    "Explainer",
    "Explanation",
    "Explanations",
    "ImageExplanation",
    "Job",
    "Labels",
    "Network",
    "NothingFoundError",
    "Outcome",
    "OutputSpec",
    "PictureError",
    "Preprocess",
    "RequestError",
    "Run",
    "View",
    "VolumePreprocess",
    "explain",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from camcli.base.deprecated import warn_renamed

        warn_renamed(f"camcli.{name}", f"camcli.{_RENAMED[name]}")
        return getattr(importlib.import_module(__name__), _RENAMED[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"camcli.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
