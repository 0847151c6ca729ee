"""Results of other jobs in an output folder: recognised, described, and replaced only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from camcli.base.errors import CamcliError, RequestError
from camcli.base.words import shorten
from camcli.images.address import show_path
from camcli.runs.job.content import collect_options
from camcli.runs.job.fingerprint import DIGEST_PREFIX, compute_fingerprint, select_versions
from camcli.runs.job.job import Job
from camcli.runs.record import provenance
from camcli.runs.record.ledger import Ledger
from camcli.runs.record.outcome import restore_tuples
from camcli.runs.record.provenance import ACCEPTED_KEY
from camcli.runs.record.view import has_lines
from camcli.targets import AUTO

KEEP_HINT = "keep them beside the new ones with --accept-versions, "
HIDDEN_DIFFERENCE = "the weights or a file that the job names changed, or the last run here was of another job"


class PreviousRun:
    """Last run in an output folder, compared with the current job.

    Args:
        job: the current job.
        fingerprint_parts: parts of its fingerprint.
        record: what the last run in the folder recorded of itself.
        make_fingerprint: makes a fingerprint from its parts.
    """

    def __init__(
        self,
        job: Job,
        fingerprint_parts: Mapping[str, str],
        record: Mapping[str, Any],
        make_fingerprint: Callable[[Mapping[str, str]], str] = compute_fingerprint,
    ) -> None:
        self.job = job
        self.fingerprint_parts = fingerprint_parts
        self.record = record
        self._make_fingerprint = make_fingerprint

    @property
    def fingerprint(self) -> str:
        """The current job's fingerprint."""
        return self._make_fingerprint(self.fingerprint_parts)

    @property
    def is_own(self) -> bool:
        """True if it was a run of this job, or counts as one."""
        last = self.record.get("fingerprint")
        return last == self.fingerprint or last in self.accepted_jobs

    @cached_property
    def accepted_jobs(self) -> dict[str, dict[str, str]]:
        """Versions of the jobs whose results count as this one's, by fingerprint.

        An earlier run of the job accepted them; or this one does, and only versions differ.
        """
        now, last, then = (
            self.fingerprint,
            self.record.get("fingerprint"),
            self.record.get(ACCEPTED_KEY),
        )
        earlier = {
            name: {str(part): str(version) for part, version in versions.items()}
            for name, versions in (then.items() if isinstance(then, Mapping) else ())
            if isinstance(versions, Mapping) and name != now
        }
        if last == now:
            return earlier
        if not self.job.accept_versions or not self.differs_by_versions:
            return {}
        return {**earlier, str(last): select_versions(self.record["counted"])}

    @cached_property
    def differs_by_versions(self) -> bool:
        """True if it was a run of this job but for the versions of the same libraries."""
        then = self.record.get("counted")
        if not isinstance(then, Mapping) or not all(isinstance(part, str) for part in then.values()):
            return False
        was, now = select_versions(then), select_versions(self.fingerprint_parts)
        return (
            was.keys() == now.keys()
            and {**then, **now} == self.fingerprint_parts
            and self._make_fingerprint(then) == self.record.get("fingerprint")
            and not describe_changed_options(self.record, self.job)
        )

    def describe_results(self) -> str:
        """Describe the folder's results, if they are this job's but for versions; else empty."""
        return f"results of the same job by other versions: {self.describe_difference()}" * self.differs_by_versions

    def describe_difference(self) -> str:
        """Describe how the job differs from the one that ran before."""
        # Other differences follow from those of the options, and need not be named.
        unlike = describe_changed_options(self.record, self.job) or _describe_changed_parts(
            self.record.get("counted"), self.fingerprint_parts
        )
        return "; ".join(unlike) or HIDDEN_DIFFERENCE


def describe_changed_options(record: Mapping[str, Any], job: Job) -> list[str]:
    """Describe the options that count and that a run in a folder had other values of, as far as options show it."""
    return [f"{name} was {was!r}, is {is_now!r}" for name, (was, is_now) in find_changed_options(record, job).items()]


def find_changed_options(record: Mapping[str, Any], job: Job) -> dict[str, tuple[Any, Any]]:
    """Find the options that count and that a run in a folder had other values of: both values by name."""
    then, now = record.get("job"), job.as_dict()
    then = then if isinstance(then, Mapping) else {}
    try:
        before = Job(**restore_tuples({name: value for name, value in then.items() if name in now}))
        was, is_now = collect_options(before), collect_options(job)
    except (CamcliError, TypeError, ValueError, AttributeError):  # of another version, or a file that it names is gone
        return {}
    unlike = {name for name in now if was.get(name) != is_now.get(name)}
    if _is_same_method(record, job):
        unlike.discard("method")
    # A default, a slice or a wrapped model's path may stand for the same layers.
    if not job.layers or job.wrap or list(job.layers) == record.get("layers") or not all(map(_is_plain, job.layers)):
        unlike.discard("layers")
    return {name: (then.get(name, ""), now[name]) for name in now if name in unlike}


def check_recorded_options(job: Job, facts_file: str, lines_file: str) -> None:
    """Check, before the model is loaded, that a given output folder has no results of a job with other options.

    Args:
        job: the job.
        facts_file: file of the last run's record.
        lines_file: file that is there, and not empty, if there are results.

    Raises:
        RequestError: it has.
    """
    record = provenance.read(Path(job.out), facts_file) if job.out and not job.overwrite else {}
    unlike = describe_changed_options(record, job) if "fingerprint" in record else []
    if unlike and has_lines(Path(job.out), lines_file):
        raise _make_refusal(job, "; ".join(unlike))


def _make_refusal(job: Job, unlike: str, keep: str = "") -> RequestError:
    if job.accept_versions:
        unlike += "; --accept-versions is for results that differ only in versions"
    return RequestError(
        f"{job.out!r} contains the results of another job: {unlike}",
        f"{keep}choose another folder with --out, or replace them with --overwrite; without --out each job has a "
        "folder of its own",
    )


def _is_same_method(record: Mapping[str, Any], job: Job) -> bool:
    """Return whether a run's methods may be those that a job asks for, perhaps by default."""
    found = record.get("methods")
    names = [one.get("name") for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    defaults = ["gradcam"], ["odam"], ["recipro-cam"], ["rise"]
    return names in defaults if job.method == AUTO else names == job.method.split(",")


def _is_plain(name: str) -> bool:
    return not any(one in name for one in "*?[-:")


def check_other_jobs(ledger: Ledger[Any], previous: PreviousRun, names: Callable[[], Iterable[str]] | None) -> None:
    """Check that no result of another job would be lost, unless that is asked for.

    Args:
        ledger: the ledger of the output folder.
        previous: the last run there.
        names: returns the output names of this run's images; None if they are not known beforehand.

    Raises:
        RequestError: one would be lost; or the last run here was another job's and did not finish, so that its files
            may lie where the ledger has those of this job.
    """
    if previous.is_own:
        return  # the last run was allowed to replace what remains of other jobs, and has not reached it yet
    begun = "fingerprint" in previous.record and "finished" not in previous.record and not ledger.empty
    if not ledger.other_jobs and not begun:
        return
    unlike = previous.describe_difference()
    out = show_path(ledger.folder.out)
    keep = KEEP_HINT if previous.differs_by_versions else ""
    if not previous.job.overwrite:
        raise _make_refusal(previous.job, unlike, keep)
    left = ledger.find_unnamed(names() if names else ())
    if left and not previous.job.drop_others:
        which = (
            f"that are not in this run: {shorten(left, len(left))}" if names else "and standard input may not name all"
        )
        raise RequestError(
            f"{out!r} contains another job's results of {len(left)} image{'s' * (len(left) > 1)} {which} ({unlike})",
            f"name those images too, {keep}choose another folder with --out, or drop their results with --overwrite "
            "--drop-others",
        )


def check_same_job(previous: PreviousRun, found: Iterable[str] = ()) -> None:
    """Check that an output folder is this job's, so that its shards may write there at the same time.

    Args:
        previous: the last run there.
        found: fingerprints of other jobs with results there.

    Raises:
        RequestError: it has results of another job.
    """
    if not previous.is_own or set(found):
        keep = KEEP_HINT if previous.differs_by_versions else ""
        raise RequestError(
            f"{str(previous.job.out)!r} contains the results of another job: {previous.describe_difference()}",
            f"{keep}choose another folder with --out; a run without --shard can replace them with --overwrite",
        )


def note_accepted(previous: PreviousRun, jobs_found: set[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what a run records of accepted results of other versions, and notes on them.

    Args:
        previous: the last run in the folder.
        jobs_found: fingerprints of the jobs that have results there.
    """
    there = {name: versions for name, versions in previous.accepted_jobs.items() if name in jobs_found}
    if not there:
        return {}, []
    made = " and by ".join(", ".join(" ".join(part) for part in versions.items()) for versions in there.values())
    return {ACCEPTED_KEY: there}, [f"earlier results made by {made} count as done (--accept-versions)"]


def _describe_changed_parts(then: Any, now: Mapping[str, str]) -> Iterator[str]:
    then = then if isinstance(then, Mapping) else {}
    for name in dict.fromkeys([*now, *then]):
        was, is_now = then.get(name), now.get(name)
        if not then or name == "job" or was == is_now:
            continue
        if any(str(one).startswith(DIGEST_PREFIX) for one in (was, is_now)):
            yield f"the {name} changed"
        else:
            yield f"{name} was {was or 'nothing'}, is {is_now or 'nothing'}"
