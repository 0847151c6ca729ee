"""Records of ``camcli evaluate`` in an output folder; read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camcli.runs.evaluate import Evaluation
from camcli.runs.record import provenance
from camcli.runs.record.records import RUN, Records

STEM = "evaluation"
FACTS_FILE, LINES_FILE = f"{STEM}.json", f"{STEM}.jsonl"
EVALUATION = Records("camcli evaluate", Evaluation, LINES_FILE, FACTS_FILE)


def find_records(out: Path) -> list[Records[Any]]:
    """Return the records that there are in an output folder; those of ``camcli explain`` if there are none."""
    there = [one for one in (RUN, EVALUATION) if "fingerprint" in provenance.read(out, one.facts)]
    return there or [RUN]
