"""See what a vision model looks at.

``camcli.explain("photos", model="resnet50", layer="layer4")`` yields explanations one by one;
``camcli.Explainer(module, layers=["layer4"])`` explains batches of tensors. Importing this is cheap: torch and the
model libraries are loaded on the first use of a name.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from camcli.errors import CamcliError, NothingFoundError, PictureError, RequestError
    from camcli.explainer import Explainer
    from camcli.geometry import Prepare, View
    from camcli.job import Explanation, Job, Outcome
    from camcli.labels import Labels
    from camcli.models import load
    from camcli.network import Network
    from camcli.outlet import Outlet
    from camcli.run import Run
    from camcli.worker import explain

_HOMES = {
    "CamcliError": "errors",
    "Explainer": "explainer",
    "Explanation": "job",
    "Job": "job",
    "Labels": "labels",
    "Network": "network",
    "NothingFoundError": "errors",
    "Outcome": "job",
    "Outlet": "outlet",
    "PictureError": "errors",
    "Prepare": "geometry",
    "RequestError": "errors",
    "Run": "run",
    "View": "geometry",
    "explain": "worker",
    "load": "models",
}

__all__ = [
    "CamcliError",
    "Explainer",
    "Explanation",
    "Job",
    "Labels",
    "Network",
    "NothingFoundError",
    "Outcome",
    "Outlet",
    "PictureError",
    "Prepare",
    "RequestError",
    "Run",
    "View",
    "explain",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"camcli.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
