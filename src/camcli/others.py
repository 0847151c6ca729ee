"""What lies in an output folder of other jobs: told apart, named, and never replaced unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from camcli.counted import DIGEST
from camcli.errors import RequestError
from camcli.job import NOT_IN_FINGERPRINT, Compared, Job, Outcome
from camcli.ledger import Ledger
from camcli.listed import several

BEHIND_THE_WORDS = "the weights or a file named in it were changed, or the last run here was not its"


def check_others(
    ledger: Ledger[Outcome] | Ledger[Compared],
    job: Job,
    fingerprint: str,
    counted: Mapping[str, str],
    before: Mapping[str, Any],
    names: Callable[[], Iterable[str]] | None,
) -> None:
    """See that no result of another job goes unless that was asked for.

    Args:
        ledger: of the output folder.
        job: what is asked now.
        fingerprint: its.
        counted: what that is made of.
        before: what the last run here recorded of itself.
        names: of the pictures that are named now; None if that is not known beforehand.

    Raises:
        RequestError: one would go; or the last run here was another job's and did not come to its end, so that its
            files may lie where the ledger has those of this job.
    """
    last = before.get("fingerprint")
    if last == fingerprint:
        return  # what there still is of other jobs its run has agreed to replace, and has not reached yet
    begun = last is not None and "finished" not in before and not ledger.empty
    if not ledger.others and not begun:
        return
    out, unlike = job.out, difference(job, counted, before)
    if not job.overwrite:
        raise RequestError(
            f"{out!r} holds the results of another job: {unlike}",
            "choose another folder with --out, or replace them with --overwrite",
        )
    left = ledger.left(names() if names else ())
    if left and not job.drop_others:
        which = (
            f"that are not named now: {several(left, len(left))}" if names else "and standard input may not name all"
        )
        raise RequestError(
            f"{out!r} holds another job's results of {len(left)} picture{'s' * (len(left) > 1)} {which} ({unlike})",
            "name those pictures too, choose another folder with --out, or drop their results with --overwrite "
            "--drop-others",
        )


def difference(job: Job, counted: Mapping[str, str], before: Mapping[str, Any]) -> str:
    """How a job differs from the one that ran before, in words for people."""
    then, now = before.get("job"), job.as_dict()
    then = then if isinstance(then, Mapping) else {}
    names = [field.name for field in fields(Job) if field.name not in NOT_IN_FINGERPRINT]
    asked = [f"{name} was {then[name]!r}, is {now[name]!r}" for name in names if then.get(name, now[name]) != now[name]]
    # What differs behind other words follows from them, and need not be said.
    return "; ".join(asked or _unlike(before.get("counted"), counted)) or BEHIND_THE_WORDS


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
