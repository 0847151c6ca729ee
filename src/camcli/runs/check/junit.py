"""Reports of rules for continuous integration: JUnit's XML, with a test case for each rule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from camcli.base import atomic
from camcli.base.errors import OutputError
from camcli.runs.check.judge import Tally

# Characters that XML 1.0 does not have, not even escaped.
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, suite: str, tallies: Sequence[Tally], seconds: float) -> None:
    """Write the report, whole or not at all.

    Args:
        path: the file.
        suite: name of the test suite, such as ``camcli diff``.
        tallies: the rules.
        seconds: time that it took.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        atomic.write(path.absolute(), make_junit(suite, tallies, seconds))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def make_junit(suite: str, tallies: Sequence[Tally], seconds: float) -> bytes:
    """Return the report as XML."""
    failures = sum(not tally.holds for tally in tallies)
    counts = {"tests": str(len(tallies)), "failures": str(failures), "errors": "0", "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", counts)
    found = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for tally in tallies:
        names = {"name": _clean(tally.title), "classname": suite.replace(" ", "."), "time": "0"}
        case = ElementTree.SubElement(found, "testcase", names)
        if tally.holds:
            ElementTree.SubElement(case, "system-out").text = _clean(tally.describe())
        else:
            lines = [tally.rule.describe(), *filter(None, [tally.rule.where]), *tally.list_worst()]
            failure = ElementTree.SubElement(case, "failure", {"message": _clean(tally.describe()), "type": "rule"})
            failure.text = _clean("\n".join(lines))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def _clean(text: str) -> str:
    """Return the text with escapes in place of characters that XML does not have."""
    return ILLEGAL.sub(lambda one: one[0].encode("unicode_escape", "backslashreplace").decode(), text)
