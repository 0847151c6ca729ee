"""Job of a finished run whose maps are evaluated; read without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from camcli.base.errors import RequestError
from camcli.images.address import is_url, show_path
from camcli.runs.job import job_file
from camcli.runs.job.content import DRAWING_OPTIONS, NOT_IN_FINGERPRINT
from camcli.runs.job.job import Job
from camcli.runs.job.option import get_option
from camcli.runs.record import provenance
from camcli.runs.record.outcome import restore_tuples

# Options of a run that metrics cannot honour.
UNKNOWN_OPTIONS = ("group", "extras", "region", "counterfactual")
ANEW_HINT = "name the images themselves, and they are explained anew"


def find_run(inputs: Sequence[str]) -> Path | None:
    """Return the folder if the input is one that a run of ``camcli explain`` wrote to, else None.

    Raises:
        RequestError: there are others beside it.
    """
    folders = (one for one in inputs if not is_url(one) and Path(one).is_dir())
    runs = [one for one in folders if "fingerprint" in provenance.read(Path(one))]
    if runs and len(inputs) > 1:
        raise RequestError(
            f"{runs[0]!r} is the folder of a run, and other inputs are named beside it",
            "name it alone, and its maps are evaluated as they are stored; or leave it out",
        )
    return Path(runs[0]) if runs else None


def recorded_job(path: Path, given: Job) -> Job:
    """Return the job of a run, with those options of the given one that do not change maps.

    Raises:
        RequestError: the job cannot be read; an option that changes maps is given and differs; the run has options that
            metrics cannot honour; or it names Python code, which is not named again.
    """
    default = Job()
    options: dict[str, Any] = job_file.read(path / provenance.FILE, asdict(default))
    recorded = Job(**restore_tuples(options))
    own = {*NOT_IN_FINGERPRINT, *DRAWING_OPTIONS} - {"inputs"}
    for name in (one.name for one in fields(Job)):
        then, now = getattr(recorded, name), getattr(given, name)
        if name in UNKNOWN_OPTIONS and then != getattr(default, name):
            raise RequestError(f"the run in {show_path(path)!r} has {_flag(name)}, which metrics do not know")
        if name not in own | {"inputs"} and now not in (then, getattr(default, name)):
            has = f"has {_flag(name)} {_words(then)}" if then != getattr(default, name) else f"has no {_flag(name)}"
            raise RequestError(
                f"the run in {show_path(path)!r} {has}, and {_words(now)} is asked for",
                f"leave it out, since the maps are there; or {ANEW_HINT}",
            )
    for name, words in job_file.find_code(options).items():
        if getattr(given, name) != words:
            raise RequestError(
                f"the run in {show_path(path)!r} names Python code, which a record alone does not run: {words}",
                f"look at what it does, and name it yourself: {_flag(name)} {words}",
            )
    return replace(recorded, **{name: getattr(given, name) for name in own})


def _flag(name: str) -> str:
    [spec] = [get_option(one) for one in fields(Job) if one.name == name]
    return spec.find_flag(name) if spec else name


def _words(value: Any) -> str:
    return repr(",".join(map(str, value)) if isinstance(value, tuple) else value)
