"""What lies in an output folder of other jobs: told apart, named, and never replaced unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any

from camcli.base.errors import RequestError
from camcli.base.words import several
from camcli.runs.job.content import NOT_IN_FINGERPRINT
from camcli.runs.job.fingerprint import DIGEST, fingerprint, versions_in
from camcli.runs.job.job import Job
from camcli.runs.record.ledger import Ledger

# In a run's record: by their fingerprints the jobs whose results count as its own, each with its versions.
ACCEPTED = "accepted"
KEEP = "keep them beside the new ones with --accept-versions, "
BEHIND_THE_WORDS = "the weights or a file named in it were changed, or the last run here was not its"


class Before:
    """The last run in an output folder, beside what is asked now.

    Args:
        job: what is asked now.
        counted: what its fingerprint is made of.
        record: what the last run here recorded of itself.
        of: makes a fingerprint of what it is made of.
    """

    def __init__(
        self,
        job: Job,
        counted: Mapping[str, str],
        record: Mapping[str, Any],
        of: Callable[[Mapping[str, str]], str] = fingerprint,
    ) -> None:
        self.job = job
        self.counted = counted
        self.record = record
        self._of = of

    @property
    def own(self) -> bool:
        """Whether it was this job's, or counts as this job's."""
        last = self.record.get("fingerprint")
        return last == self._of(self.counted) or last in self.accepted

    @cached_property
    def accepted(self) -> dict[str, dict[str, str]]:
        """The versions of the jobs whose results count as this one's, by fingerprint.

        An earlier run of the job accepted them; or this one does, and versions are all that differs.
        """
        now, last, then = self._of(self.counted), self.record.get("fingerprint"), self.record.get(ACCEPTED)
        earlier = {
            name: {str(part): str(version) for part, version in versions.items()}
            for name, versions in (then.items() if isinstance(then, Mapping) else ())
            if isinstance(versions, Mapping) and name != now
        }
        if last == now:
            return earlier
        if not self.job.accept_versions or not self.by_versions:
            return {}
        return {**earlier, str(last): versions_in(self.record["counted"])}

    @cached_property
    def by_versions(self) -> bool:
        """Whether it was this job's but for the versions of the same libraries."""
        then = self.record.get("counted")
        if not isinstance(then, Mapping) or not all(isinstance(part, str) for part in then.values()):
            return False
        was, now = versions_in(then), versions_in(self.counted)
        return (
            was.keys() == now.keys()
            and {**then, **now} == self.counted
            and self._of(then) == self.record.get("fingerprint")
            and not self._asked_otherwise()
        )

    def difference(self) -> str:
        """How the job differs from the one that ran before, in words for people."""
        # What differs behind other words follows from them, and need not be said.
        unlike = self._asked_otherwise() or _unlike(self.record.get("counted"), self.counted)
        return "; ".join(unlike) or BEHIND_THE_WORDS

    def _asked_otherwise(self) -> list[str]:
        then, now = self.record.get("job"), self.job.as_dict()
        then = then if isinstance(then, Mapping) else {}
        names = [field.name for field in fields(Job) if field.name not in NOT_IN_FINGERPRINT]
        unlike = (name for name in names if then.get(name, now[name]) != now[name])
        return [f"{name} was {then[name]!r}, is {now[name]!r}" for name in unlike]


def check_others(ledger: Ledger[Any], before: Before, names: Callable[[], Iterable[str]] | None) -> None:
    """See that no result of another job goes unless that was asked for.

    Args:
        ledger: of the output folder.
        before: the last run there.
        names: of the pictures that are named now; None if that is not known beforehand.

    Raises:
        RequestError: one would go; or the last run here was another job's and did not come to its end, so that its
            files may lie where the ledger has those of this job.
    """
    if before.own:
        return  # what there still is of other jobs its run has agreed to replace, and has not reached yet
    begun = "fingerprint" in before.record and "finished" not in before.record and not ledger.empty
    if not ledger.others and not begun:
        return
    out, unlike = before.job.out, before.difference()
    keep = KEEP if before.by_versions else ""
    if before.job.accept_versions:
        unlike += "; --accept-versions is for results that differ in nothing but versions"
    if not before.job.overwrite:
        raise RequestError(
            f"{out!r} holds the results of another job: {unlike}",
            f"{keep}choose another folder with --out, or replace them with --overwrite",
        )
    left = ledger.left(names() if names else ())
    if left and not before.job.drop_others:
        which = (
            f"that are not named now: {several(left, len(left))}" if names else "and standard input may not name all"
        )
        raise RequestError(
            f"{out!r} holds another job's results of {len(left)} picture{'s' * (len(left) > 1)} {which} ({unlike})",
            f"name those pictures too, {keep}choose another folder with --out, or drop their results with --overwrite "
            "--drop-others",
        )


def note_accepted(before: Before, met: set[str]) -> tuple[dict[str, Any], list[str]]:
    """What a run records, and what it says, of results that were made by other versions.

    Args:
        before: the last run in the folder.
        met: fingerprints of the jobs whose results lie there.
    """
    there = {name: versions for name, versions in before.accepted.items() if name in met}
    if not there:
        return {}, []
    made = " and by ".join(", ".join(" ".join(part) for part in versions.items()) for versions in there.values())
    return {ACCEPTED: there}, [f"earlier results made by {made} count as done, as --accept-versions has it"]


def _unlike(then: Any, now: Mapping[str, str]) -> Iterator[str]:
    then = then if isinstance(then, Mapping) else {}
    for name in dict.fromkeys([*now, *then]):
        was, is_now = then.get(name), now.get(name)
        if not then or name == "job" or was == is_now:
            continue
        if any(str(one).startswith(DIGEST) for one in (was, is_now)):
            yield f"the {name} changed"
        else:
            yield f"{name} was {was or 'nothing'}, is {is_now or 'nothing'}"
