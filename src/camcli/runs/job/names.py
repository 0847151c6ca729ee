"""Names in a job: of its model, device, formats, score and options of methods, checked without their libraries."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.base import signature
from camcli.base.errors import RequestError
from camcli.engine import check_device_words
from camcli.methods import METHODS
from camcli.models.check_name import check_name
from camcli.models.listing import find_network_file
from camcli.models.preprocess_words import USAGE
from camcli.outputs import OUTPUTS
from camcli.runs.job.job import Job
from camcli.targets import AUTO
from camcli.targets.scores import SCORES


def check_names(job: Job, formats: Sequence[str] = ()) -> None:
    """Check the names in a job, and those of output formats.

    Raises:
        RequestError: there is nothing of such a name, or a file of a network is named without its preprocessing.
    """
    check_device_words(job.device)
    check_name(job.model, by_listing=True)
    if not job.preprocess and find_network_file(job.model):
        raise RequestError(f"nothing says how images are prepared for {job.model}", USAGE)
    for name in formats:
        OUTPUTS.find(name)
    if job.score != AUTO:
        SCORES.find(job.score)
    check_method_options(job.method, job.options)


def check_method_options(methods: str, options: Sequence[str]) -> None:
    """Check that the methods have options of these names, as far as their sources say so.

    Args:
        methods: names of methods, joined by commas.
        options: each ``name=value``, or ``method.name=value``.

    Raises:
        RequestError: no method has an option of that name, or one is not ``name=value``.
    """
    if not options or "auto" in methods.split(","):
        return
    known = {name: _read_option_names(name) for name in methods.split(",")}
    if all(names is not None for names in known.values()):
        signature.find_owners(options, {method: names or () for method, names in known.items()})


def _read_option_names(method: str) -> tuple[str, ...] | None:
    row = METHODS.find(method)
    parts = [METHODS.find(name) for name in row.parts or (row.name,)]
    names = [signature.read_option_names(METHODS.module_path(part), part.function_name) for part in parts]
    if any(one is None for one in names):
        return None
    return tuple(name for one in names for name in one or ())
