"""Write docs/SKILL.md and docs/llms.txt, for coding assistants: ``python tools/make_skill.py``.

The options come from the command line, the fields of a JSON line from ``Outcome``, the pages from mkdocs.yml.
"""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from make_cli import panels
from rich.text import Text

from camcli.cli import app
from camcli.runs.record.outcome import ImageLine, Outcome

ROOT = Path(__file__).parents[1]
SKILL, INDEX = ROOT / "docs" / "SKILL.md", ROOT / "docs" / "llms.txt"
SUMMARY = (
    "camcli shows what a vision model looks at: heatmaps (Grad-CAM and related methods) for images and folders, for "
    "models of timm, torchvision and open_clip and for one's own, from the command line."
)
GUIDE = """
Use it when somebody asks why an image model predicts what it predicts, where in an image a class, a prompt (CLIP) or
a feature is, or whether a classifier looks at the object or the background; for one image or a million.

## How to use it

1. Pick model and layer: `camcli models 'resnet*'` lists names, `camcli layers MODEL` the layers where a map can be
   computed. Without `--layer` a default layer is chosen and printed. Without `--model` a small bundled ImageNet model
   is used, which needs no download.
2. Run `camcli explain --model MODEL --layer LAYER --json IMAGES > maps.jsonl`. Standard output has one line of JSON
   for each map; all messages go to standard error. Without `--json` nothing is written to standard output.
3. Read the exit code: 0 all done, 1 some images failed (each line with an `error`, the rest done), 2 the request was
   wrong (the message names what exists), 3 nothing to do, 130 interrupted. The same command again resumes.
4. In Python: `for e in camcli.explain(images, model="resnet50", target="top:2"): e.map, e.label, e.probability`; for
   a module in memory `camcli.Explainer(module, layers=["layer4.-1"])(batch, targets=[281])`.

Do not: draw conclusions from `--weights random` (the maps mean nothing, and each file says so); compare the colours
of two images without `--normalize run`, since each map is scaled by itself; read a map as proof that the model is
right, or that it would decide otherwise without that place.
""".strip()


def skill() -> str:
    """Return the page that tells an assistant how to use the command."""
    front = f"---\nname: camcli\ndescription: {json.dumps(SUMMARY)}\n---\n\n# camcli"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = re.search(r"^## Use it\n+(```sh\n.*?\n```)", readme, re.M | re.S)
    assert examples, "README.md has no examples below '## Use it'"
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    fields = [f"- `{name}`: {text}" for owner in (ImageLine, Outcome) for name, text in _describe_fields(owner)]
    parts = [front, SUMMARY, GUIDE, "## Examples", examples[1], "## A line of JSON", "\n".join(fields)]
    for name, command in commands.items():
        options = [_describe(one) for several in panels(command).values() for one in several]
        parts += [f"## camcli {name}", _first_sentence(command.help), "\n".join(options)]
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """Return the list of the documentation's pages, in the format of llmstxt.org."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    lines = ["# camcli", "", f"> {SUMMARY}", "", "- [How to use the command, with all options](SKILL.md)"]
    for title, page in re.findall(r"^ +- ([^\n:]+):(?: (\S+\.md))?$", navigation, re.M):
        if not page:
            lines += ["", f"## {title}", ""]
        elif (ROOT / "docs" / page).is_file() and page != SKILL.name:
            lines.append(f"- [{title}]({page})")
    return "\n".join(lines) + "\n"


def _describe(one: Any) -> str:
    """Return an option in a line: flags, value, meaning."""
    flags = ", ".join(flag for flag in (*one.opts, *one.secondary_opts) if flag.startswith("-"))
    value = "" if getattr(one, "is_flag", False) else f" {one.metavar or one.name.upper()}"
    return f"- `{flags}{value}`: {Text.from_markup(one.help, emoji=False).plain}".replace("` ", "`")


def _describe_fields(owner: type) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of a docstring's ``Attributes``."""
    text = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")[2]
    for names, words in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", text, re.M):
        yield names.replace(", ", "`, `"), re.sub(r"\s+", " ", words).replace("``", "`")


def _first_sentence(text: str) -> str:
    return inspect.cleandoc(text).partition("\n\n")[0]


if __name__ == "__main__":
    SKILL.write_text(skill(), encoding="utf-8")
    INDEX.write_text(index(), encoding="utf-8")
