"""What a run left in its output folder."""

import json
from pathlib import Path


def ledger(out: str = "out") -> list[dict]:
    """The lines of outcomes.jsonl."""
    return [json.loads(line) for line in Path(out, "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]


def facts(out: str = "out") -> dict:
    """The content of run.json."""
    return json.loads(Path(out, "run.json").read_text(encoding="utf-8"))


def files(out: str = "out") -> list[str]:
    """All other files."""
    found = (path.relative_to(out).as_posix() for path in Path(out).rglob("*") if path.is_file())
    return sorted(set(found) - {"outcomes.jsonl", "run.json", ".camcli.lock", "camcli.log"})
