"""The comparison that a folder holds, and how it differs from another one, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from camcli.runs.compare import CompareJob
from camcli.runs.job.fingerprint import CODE_PREFIX, JOB_PARTS
from camcli.runs.record.other_jobs import HIDDEN_DIFFERENCE, PreviousRun, find_changed_options

# Options of the job that draw its cells, and none of the comparison's own: these change the sheets, not the maps.
DRAWING = ("colormap", "alpha", "outside", "panel_size")
# Parts of all passes together.
SHARED_PARTS = frozenset({"images", "sheets"})


class PreviousComparison(PreviousRun):
    """Last comparison in a folder, compared with the current one.

    Args:
        compare_job: the current job.
        names: name of each pass.
        parts: parts of its fingerprint; those of a pass have its number before them where there are several.
        record: what the last run in the folder recorded of itself.
        make_fingerprint: makes a fingerprint from its parts.
    """

    def __init__(
        self,
        compare_job: CompareJob,
        names: Sequence[str],
        parts: Mapping[str, str],
        record: Mapping[str, Any],
        make_fingerprint: Callable[[Mapping[str, str]], str],
    ) -> None:
        super().__init__(compare_job.job, parts, record, make_fingerprint)
        self._compare_job, self._names = compare_job, names

    @cached_property
    def differs_by_versions(self) -> bool:
        """True if it was the same comparison but for the versions of the same libraries."""
        unlike = self._find_unlike_parts()
        return bool(unlike) and all(
            name not in JOB_PARTS | SHARED_PARTS and not name.startswith(CODE_PREFIX) for name in unlike
        )

    def describe_results(self) -> str:
        """Describe what the folder holds: every folder of this name is worth a word."""
        return super().describe_results() or f"another comparison: {self.describe_difference()}"

    def describe_difference(self) -> str:
        """Describe how the comparison differs from the one before."""
        return "; ".join(self._iter_differences()) or HIDDEN_DIFFERENCE

    def _iter_differences(self) -> Iterator[str]:
        own = {name: value for name, value in asdict(self._compare_job).items() if name not in ("job", "save")}
        groups = self.record.get("job"), self.record.get("compared")  # the comparison's own come last
        then = {name: value for group in groups if isinstance(group, Mapping) for name, value in group.items()}
        now = {**own, **{name: getattr(self.job, name) for name in DRAWING}}
        changed = {
            name: (then.get(name), value) for name, value in now.items() if _format(then.get(name)) != _format(value)
        }
        counted = {name: pair for name, pair in find_changed_options(self.record, self.job).items() if name not in now}
        for name, (was, is_now) in {**counted, **changed}.items():
            yield f"--{name.replace('_', '-')} was {_format(was)}, is {_format(is_now)}"
        same_passes = not changed.keys() & {"model", "weights", "scales"}
        for name, numbers in self._find_unlike_parts().items():
            if name == "images":
                yield "the images are others"
            elif name == "weights" and same_passes:
                yield f"the weights of {' and of '.join(self._list_names(numbers))} changed"
            elif name in JOB_PARTS | SHARED_PARTS:
                # These follow from the options, unless none differs.
                if name not in {"job", "sheets", "weights"} and same_passes and not counted:
                    yield f"the {name} of {' and of '.join(self._list_names(numbers))} changed"
            elif same_passes:
                yield self._describe_version(name, numbers[0])

    def _find_unlike_parts(self) -> dict[str, list[str]]:
        """Return the parts that differ by their names, each with the numbers of the passes; empty for the only one."""
        then, now = self._then, self.fingerprint_parts
        unlike: dict[str, list[str]] = defaultdict(list)
        for part in dict.fromkeys([*now, *then]) if then else ():
            if then.get(part) != now.get(part):
                number, separator, name = part.partition(": ")
                numbered = bool(separator) and number.isdecimal()
                unlike[name if numbered else part].append(number if numbered else "")
        return unlike

    @property
    def _then(self) -> Mapping[str, Any]:
        counted = self.record.get("counted")
        return counted if isinstance(counted, Mapping) else {}

    def _list_names(self, numbers: Sequence[str]) -> list[str]:
        places = [int(number or 1) - 1 for number in numbers]
        return [*dict.fromkeys(self._names[place] for place in places if place < len(self._names))]

    def _describe_version(self, name: str, number: str) -> str:
        part = f"{number}: {name}" if number else name
        was, is_now = self._then.get(part), self.fingerprint_parts.get(part)
        if name.startswith(CODE_PREFIX):
            return f"the {name} changed"
        return f"{name} was {was or 'not used'}, is {is_now or 'not used'}"


def _format(value: Any) -> str:
    """Return an option's value as it is given on the command line."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "not given"
    return "not given" if value in ("", None) else str(value)
