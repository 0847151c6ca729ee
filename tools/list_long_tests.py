"""Write tests/long_tests.txt out of a run's times: ``pytest --junitxml=T.xml`` and ``list_long_tests.py T.xml``.

The everyday suite, ``pytest -m "not slow and not long"``, leaves these out.
"""

import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

FILE = Path(__file__).parents[1] / "tests" / "long_tests.txt"
# Seconds that a test function may take in all its cases without being listed.
LIMIT = 0.4


def find_long_tests(reports: Iterable[str]) -> list[str]:
    """Return the ids, without their parameters, of the test functions that took longer than the limit."""
    times: dict[str, float] = defaultdict(float)
    for case in (case for report in reports for case in ET.parse(report).iter("testcase")):
        folders, _, rest = case.attrib["classname"].rpartition("test_")
        module, *classes = f"test_{rest}".split(".")
        function = case.attrib["name"].partition("[")[0]
        times["::".join([f"{folders.replace('.', '/')}{module}.py", *classes, function])] += float(case.attrib["time"])
    return sorted(name for name, seconds in times.items() if seconds > LIMIT)


if __name__ == "__main__":
    FILE.write_text("\n".join(find_long_tests(sys.argv[1:])) + "\n", encoding="utf-8")
