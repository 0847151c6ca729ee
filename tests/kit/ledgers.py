"""Lines of a ledger, written and read."""

import json
from pathlib import Path

from camcli.runs.record.ledger import FILE, Ledger
from camcli.runs.record.outcome import Outcome


def outcome(name: str, run: str = "r1", job: str = "j1", **more) -> Outcome:
    values = {"stamp": "10-20", "peak": (1.0, 2.0), "files": {"overlay": f"{name}.png"}, **more}
    return Outcome(source=name, name=name, run=run, job=job, **values)


def write(out: Path, *blocks: list[Outcome], job: str = "j1", files: bool = True) -> None:
    """What a run of this job would leave: its lines, and the files they name."""
    with Ledger(out, job, Outcome) as ledger:
        for block in blocks:
            ledger.append(block)
            for one in block if files else []:
                for file in one.files.values():
                    (out / file).write_text(one.run)


def lines(out: Path) -> list[tuple[str, str]]:
    """Name and run of each line, as they stand in the file."""
    rows = [json.loads(line) for line in (out / FILE).read_bytes().splitlines()]
    return [(row["name"], row["run"]) for row in rows]


def is_done(out: Path, name: str, stamp: str = "10-20", job: str = "j1", **options) -> bool:
    with Ledger(out, job, Outcome, **options) as ledger:
        return ledger.is_done(name, stamp)
