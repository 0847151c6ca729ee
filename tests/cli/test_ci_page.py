"""Every command of docs/ci.md, one after another in one folder, on a small network of colour."""

import re
import shlex
from pathlib import Path

import pytest
from commands import do
from shared import BLUE, GREEN, RED, ROOT, Paint

from camcli.runs.check.example import EXAMPLE
from camcli.runs.check.rules import read_rules

PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_work_and_keep_its_limits(tiny: str, paint: Paint) -> None:
    for name, colour in (("a", RED), ("b", GREEN), ("c", BLUE)):
        paint(f"photos/{name}.png", colour, box=(8, 8, 20, 24))
    Path("rules.toml").write_text(EXAMPLE)
    blocks = re.findall(r"```(?:sh|yaml)\n(.*?)```", PAGE, re.DOTALL)
    lines = [line.strip().removeprefix("- ") for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("camcli ")]
    assert len(commands) == 16
    for command in commands:
        result = do(*shlex.split(command)[1:], CAMCLI_MODEL=tiny)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert {path.name for path in Path().glob("*.*")} >= {"diff.xml", "worst.png", "check.xml", "check.jsonl"}


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_rules_of_the_page_are_valid(here: Path, text: str) -> None:
    Path("rules.toml").write_text(text)
    assert read_rules(Path("rules.toml"), "check").rules
    assert read_rules(Path("rules.toml"), "diff").rules
